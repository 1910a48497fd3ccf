"""Real data sets, read as a user names them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vitscope.data import images
from vitscope.measurement.errors import UserError


def mean_colour(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255


def test_the_cifar_test_set_is_whole(real_data: Path) -> None:
    cifar = images(real_data / "cifar10", split="test")
    batches = list(cifar.batches(mean_colour, 500))
    means = torch.stack([batch.pixels.double().mean((0, 2, 3)) for batch in batches]).mean(0)
    np.testing.assert_allclose(means, [0.4942, 0.4851, 0.4504], atol=1e-4)  # published means of the test set
    assert np.bincount(cifar.labels).tolist() == [1000] * 10
    assert cifar.classes[:3] == ("airplane", "automobile", "bird")
    assert torch.cat([batch.labels for batch in batches]).tolist() == cifar.labels.tolist()
    assert cifar.for_classes(10, None).labels is cifar.labels


def test_a_balanced_subset_of_three_files_is_taken(real_data: Path) -> None:
    cifar = images(str(real_data / "cifar10" / "train-*.parquet"), limit=205)
    assert sorted(np.bincount(cifar.labels)) == [20] * 5 + [21] * 5
    assert sum(len(batch) for batch in cifar.batches(mean_colour, 64)) == 205


def test_two_label_columns_call_for_a_choice(real_data: Path) -> None:
    with pytest.raises(UserError, match=r"several label columns \(fine_label, coarse_label\): choose one with --label"):
        images(real_data / "cifar100", split="test")
    fine, coarse = (images(real_data / "cifar100", split="test", label=f"{kind}_label") for kind in ("fine", "coarse"))
    assert (len(fine.classes), len(coarse.classes)) == (100, 20)


def test_imagenette_meets_a_model_of_a_thousand_classes(real_data: Path, tmp_path: Path) -> None:
    ten = images(real_data / "imagenette")
    with pytest.raises(
        UserError, match=r"imagenette/validation has 10 classes .* the model 1000.*--label.*--label-map"
    ):
        ten.for_classes(1000, None)
    thousand = images(real_data / "imagenette", label="imagenet_label").for_classes(1000, None)
    (tmp_path / "map.json").write_text(
        '{"tench": 0, "English springer": 217, "cassette player": 482, "chain saw": 491, "church": 497, '
        '"French horn": 566, "garbage truck": 569, "gas pump": 571, "golf ball": 574, "parachute": 701}'
    )
    mapped = images(real_data / "imagenette", label_map=str(tmp_path / "map.json")).for_classes(1000, None)
    assert mapped.labels.tolist() == thousand.labels.tolist()
