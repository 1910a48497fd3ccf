"""Augmentation by hand: where a crop lands, what is mirrored, what a mixed target weighs, whose draws are whose."""

import numpy as np
import pytest
import torch
from PIL import Image

from vitscope.data.augmentation import apply_randaugment, randaugment
from vitscope.data.load import images
from vitscope.models.pixels import PixelInput
from vitscope.training.augmentation import RecipeAugmentation, mix_batch, step_seeded
from vitscope.training.batches import StepPlan
from vitscope.training.pixels import pixels, statistics
from vitscope.training.recipe import Recipe

GREY = PixelInput(4, 1, (0.2,), (1.0,))  # the mean colour is 51
IMAGE = np.arange(1, 17, dtype=np.uint8).reshape(1, 4, 4, 1)
SEEDS = np.zeros(1, np.int64)


def augmentation(crop, **fields):
    return RecipeAugmentation(Recipe(**{"randaugment": 0, "flip": False, "padding": 0.25, **fields}), crop, GREY)


def draws(flip=0.9, top=0.5, left=0.5, area=0.5, ratio=0.5):
    return np.array([[flip, top, left, area, ratio]], np.float32)


def test_a_padded_crop_in_the_middle_is_the_image():
    assert np.array_equal(augmentation("padded").batch(IMAGE, draws(), SEEDS), IMAGE)


@pytest.mark.parametrize(
    ("top", "left", "corner"), [(0.0, 0.0, (51, 51, 51, 1)), (0.0, 0.5, (51, 51, 1, 2)), (0.99, 0.99, (6, 7, 10, 11))]
)
def test_a_padded_crop_is_a_shift_filled_with_the_mean(top, left, corner):
    found = augmentation("padded").batch(IMAGE, draws(top=top, left=left), SEEDS)
    assert tuple(found[0, :2, :2, 0].flatten()) == corner


def test_every_magnitude_of_randaugment_changes_pictures():
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    for magnitude in range(1, 11):
        policy = randaugment(magnitude, 4, (128, 128, 128))
        changed = [apply_randaugment(policy, pixels, seed) for seed in range(60)]
        assert any(not np.array_equal(one, pixels) for one in changed)


def test_half_of_the_images_are_mirrored_left_to_right():
    flipping = augmentation("none", flip=True)
    assert np.array_equal(flipping.batch(IMAGE, draws(flip=0.49), SEEDS), IMAGE[:, :, ::-1])
    assert np.array_equal(flipping.batch(IMAGE, draws(flip=0.51), SEEDS), IMAGE)


def test_a_resized_crop_of_the_whole_area_is_the_image():
    picture = Image.fromarray(IMAGE[0, :, :, 0])
    assert np.array_equal(augmentation("resized").part(picture, draws(area=1.0)[0]), IMAGE[0])


@pytest.mark.parametrize(("top", "left", "value"), [(0, 0, 0), (0, 1, 64), (1, 0, 128), (1, 1, 192)])
def test_a_resized_crop_of_a_quarter_lies_where_it_was_drawn(top, left, value):
    quarters = np.kron(np.array([[0, 64], [128, 192]], np.uint8), np.ones((16, 16), np.uint8))
    found = augmentation("resized", least_area=0.2).part(
        Image.fromarray(quarters), draws(top=top, left=left, area=0.0)[0]
    )
    assert abs(found[1:3, 1:3].astype(int) - value).max() <= 2  # bicubic rings a little at the seam


def test_an_images_change_does_not_depend_on_its_batch():
    changing = augmentation("padded", randaugment=9, flip=True)
    generator = np.random.default_rng(0)
    batch = generator.integers(0, 256, (6, 4, 4, 1), np.uint8)
    uniforms, seeds = generator.random((6, 5), np.float32), generator.integers(0, 2**32, 6)
    whole = changing.batch(batch, uniforms, seeds)
    for i in range(6):
        assert np.array_equal(changing.batch(batch[i : i + 1], uniforms[i : i + 1], seeds[i : i + 1])[0], whole[i])
    assert not np.array_equal(whole, augmentation("padded", flip=True).batch(batch, uniforms, seeds))


def test_targets_of_a_batch_that_is_not_mixed_are_smoothed():
    inputs = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    out, targets = mix_batch(Recipe(mixup=0.0, cutmix=0.0, label_smoothing=0.2), inputs, torch.tensor([1, 0]), 4)
    assert torch.equal(out, inputs)
    torch.testing.assert_close(targets, torch.tensor([[0.05, 0.85, 0.05, 0.05], [0.85, 0.05, 0.05, 0.05]]))


def test_mixup_weighs_images_and_targets_alike():
    inputs = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    with step_seeded(5, torch.device("cpu")):
        out, targets = mix_batch(Recipe(cutmix=0.0, label_smoothing=0.0), inputs, torch.tensor([0, 1]), 2)
    assert 0 < out[0].mean() < 1
    torch.testing.assert_close(out.mean((1, 2, 3)), targets[:, 1])


def test_cutmix_weighs_targets_by_area():
    inputs = torch.stack([torch.zeros(1, 16, 16), torch.ones(1, 16, 16)])
    with step_seeded(0, torch.device("cpu")):
        out, targets = mix_batch(Recipe(mixup=0.0, label_smoothing=0.0), inputs, torch.tensor([0, 1]), 2)
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert 0 < out[0].mean() < 1
    torch.testing.assert_close(out.mean((1, 2, 3)), targets[:, 1])
    assert inputs[0].max() == 0  # the given images are not written into


def test_an_epoch_shows_every_image_once_and_devices_share_each_batch():
    whole = list(StepPlan(0, 12, 4, 2).draws(0))
    assert sorted(np.concatenate([draw.indices for draw in whole[:3]])) == list(range(12))
    assert not np.array_equal(whole[0].indices, whole[3].indices)
    first, second = (list(StepPlan(0, 12, 4, 2, rank, 2).draws(2)) for rank in (0, 1))
    for draw, one, other in zip(whole[2:], first, second, strict=True):
        assert sorted(draw.indices) == sorted([*one.indices, *other.indices])
        assert set(draw.seeds) == {*one.seeds, *other.seeds}


def test_statistics_are_those_of_the_images():
    values = np.random.default_rng(0).integers(0, 256, (9, 4, 4), np.uint8)
    mean, std = statistics(images((values, np.zeros(9, int))), GREY)
    assert mean == pytest.approx([values.mean() / 255], abs=1e-4)
    assert std == pytest.approx([values.std() / 255], abs=1e-4)


def test_broken_images_are_left_out_with_their_labels(tmp_path):
    for name, label in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / label).mkdir(exist_ok=True)
        Image.new("L", (4, 4), 7).save(tmp_path / label / f"{name}.png")
    (tmp_path / "x" / "a.png").write_bytes(b"broken")
    found = pixels(images(tmp_path, max_broken=1), GREY, 1e6)
    assert (len(found), found.rows.tolist(), found.labels.tolist()) == (2, [1, 2], [0, 1])
    assert (found.read(np.array([0, 1])) == 7).all()
