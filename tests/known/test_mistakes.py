"""What a model gets wrong, and numbers that are not finite, where the answer is known by hand."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from torch import nn

import vitscope
from vitscope.cli.summary import weakest_of
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.diagnostics.feature_variance import FeatureVariance
from vitscope.engine.reading.activation import Predictions
from vitscope.engine.reading.mistakes import SIDE, mistakes
from vitscope.engine.reading.scores import Scores
from vitscope.interventions.studies.corruption import CorruptionStudy
from vitscope.measurement.errors import UserError
from vitscope.runs.run import Run

INPUT = vitscope.PixelInput(8, 1, (0.0,), (1.0,))
GREYS = (0, 51, 102, 153, 204, 255)


def pictures(labels):
    return vitscope.images(([Image.new("L", (8, 8), grey) for grey in GREYS], np.array(labels)))


class Unit(nn.Module):
    """Adds ``log`` of the values where it is told to, which is minus infinity at 0."""

    def __init__(self, spoils: bool):
        super().__init__()
        self.scale, self.spoils = nn.Linear(1, 1), spoils

    def forward(self, x):
        return x + x.log() * 0 if self.spoils else x


class Net(nn.Module):
    """Says class k of six for the k-th grey: a black picture's values are no numbers after the unit that spoils."""

    def __init__(self, spoils=(False, False), forgives=False):
        super().__init__()
        self.stem = nn.Identity()
        self.blocks = nn.Sequential(*(Unit(one) for one in spoils))
        self.forgives, self.bias = forgives, nn.Parameter(torch.zeros(6))

    def forward(self, x):
        level = self.blocks(self.stem(x)).mean((1, 2, 3))
        level = level.nan_to_num(0.0) if self.forgives else level
        return -20 * (level[:, None] * 5 - torch.arange(6)).abs() + self.bias


def measured(module, labels=(0, 1, 2, 3, 4, 5)) -> Run:
    return vitscope.measure(vitscope.load(module, input=INPUT), pictures(labels), [Accuracy(), FeatureVariance()])


def test_scores_are_kept_image_by_image():
    run = measured(Net(), labels=(0, 1, 2, 3, 4, 4))
    scores = run.tree["predictions"].to_dataset()
    assert scores["predicted"].values.tolist() == [0, 1, 2, 3, 4, 5]
    assert scores["label"].values.tolist() == [0, 1, 2, 3, 4, 4]
    assert scores["image"].values.tolist() == list(range(6))
    assert scores["picture"].values[5] == "images[5]"
    assert scores["rank"].values.tolist() == [1, 1, 1, 1, 1, 2]
    sure = 1 / (1 + math.exp(-20) * (1 - math.exp(-100)) / (1 - math.exp(-20)))
    np.testing.assert_allclose(scores["confidence"][5], sure)
    np.testing.assert_allclose(scores["loss"][5], 20 - math.log(sure), rtol=1e-6)
    assert float(run["accuracy/top1"]) == pytest.approx(5 / 6)


def test_the_rank_counts_what_is_more_probable_and_equals_before_it():
    logits = torch.tensor([[2.0, 1.0, 2.0, 0.0]] * 4)
    assert Predictions(logits, torch.arange(4)).rank.tolist() == [1, 3, 2, 4]


def test_ten_thousand_images_take_less_than_30_bytes_each(tmp_path):
    generator, count = np.random.default_rng(0), 10_000
    numbers = [torch.from_numpy(generator.random(count, np.float32)).double() for _ in range(2)]
    classes = [torch.from_numpy(generator.integers(1, 1000, count)) for _ in range(3)]
    black = vitscope.images((np.zeros((count, 1, 1, 3), np.uint8), classes[0].numpy()))
    scores = Scores(torch.arange(count), *classes[:2], *numbers, classes[2])
    node = xr.DataTree.from_dict({"/": xr.Dataset(), "predictions": scores.dataset(black)})
    node.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    assert (tmp_path / "run.nc").stat().st_size < 30 * count
    with xr.open_datatree(tmp_path / "run.nc", engine="h5netcdf", phony_dims="access") as again:
        for name, values in scores.tensors.items():
            assert (again["predictions"][name.removeprefix("scores.")].values == values.numpy()).all()
        assert again["predictions"]["picture"].values[-1] == "images[9999]"


def test_a_piece_that_was_kept_without_ranks_is_read():
    kept = {name: one for name, one in made([0, 1], [0, 0], [0.9, 0.8], [0.1, 2]).tensors.items() if "rank" not in name}
    assert Scores.from_tensors(kept).rank.tolist() == [0, 0]


def test_the_terminal_names_the_weakest_class_and_what_it_is_taken_for():
    assert weakest_of(measured(Net())) is None
    run = measured(Net(), labels=(0, 1, 1, 2, 4, 5))
    assert weakest_of(run) == "2 0% of 1 right, 1 50% of 2 right"
    run = measured(Net(), labels=(4, 4, 1, 2, 4, 5))
    assert weakest_of(run).endswith("4 33% of 3 right"), "one confusion of each kind is no pattern"


def made(label, predicted, confidence, loss) -> Scores:
    numbers = [torch.tensor(one, dtype=torch.float64) for one in (confidence, loss)]
    rank = torch.tensor([1 + (one != other) for one, other in zip(label, predicted, strict=True)])
    return Scores(torch.arange(len(label)), torch.tensor(label), torch.tensor(predicted), *numbers, rank)


def test_classes_pairs_and_pictures():
    scores = made(
        [0, 0, 0, 2, 2, 1], [0, 1, 1, 2, 0, -1], [0.9, 0.6, 0.8, 0.7, 0.5, math.nan], [0.1, 1, 2, 0.4, 3, math.nan]
    )
    found = mistakes(scores, pictures([0, 0, 0, 2, 2, 1]), ("ant", "bee", "cat"))
    assert found["classes_name"].values.tolist() == ["ant", "bee", "cat"]
    np.testing.assert_allclose(found["class_accuracy"], [1 / 3, 0, 1 / 2])
    np.testing.assert_allclose(found["class_accuracy_error"][[0, 2]], [1 / 3, 1 / 2])
    assert found["class_accuracy_count"].values.tolist() == [3, 1, 2]
    pairs = zip(
        found["mistake_true"].values, found["mistake_predicted"].values, found["mistake_count"].values, strict=True
    )
    assert list(pairs) == [("ant", "bee", 2), ("bee", "nothing (not finite)", 1), ("cat", "ant", 1)]
    np.testing.assert_allclose(found["mistake_share"], [2 / 3, 1, 1 / 2])
    assert found["example"].values.tolist() == ["images[2]", "images[1]", "images[4]"]
    assert found["by_confidence"].values.tolist() == [0, 1, 2]
    assert found["by_loss"].values.tolist() == [1, 2, 0]
    assert found["thumbnail"].shape == (3, SIDE, SIDE, 3)
    assert [int(one[0, 0, 0]) for one in found["thumbnail"].values] == [102, 51, 204]


def test_a_wide_picture_lies_on_grey_and_a_model_without_mistakes_has_none():
    shown = vitscope.images(([Image.new("RGB", (20, 10), "white")], np.array([1])))
    (thumbnail,) = mistakes(made([1], [0], [0.9], [1.0]), shown, None)["thumbnail"].values
    assert thumbnail[0, 0].tolist() == [128] * 3
    assert thumbnail[SIDE // 2, 0].tolist() == [255] * 3
    none = mistakes(made([1], [1], [0.9], [1.0]), shown, None)
    assert none.sizes["example"] == none.sizes["mistake"] == 0
    assert none["classes_name"].values.tolist() == ["1"]


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (0, 5, 4, 3, 2, 1)])
def test_a_picture_without_finite_logits_is_wrong_and_named_with_its_first_unit(order):
    run = measured(Net(spoils=(False, True)), labels=order)
    assert float(run["accuracy/top1"]) == pytest.approx(
        (5 if order == (0, 1, 2, 3, 4, 5) else 1) / 6 - (order[3] != 3) / 6
    )
    assert int(run["accuracy/top1_count"]) == 6
    assert int(run["accuracy/nll_count"]) == 5
    (note,) = run.notes
    assert note.startswith("1 image (such as images[0]) give logits that are not finite: they count as wrong")
    assert "layer 2 (blocks.1)" in note
    assert run.tree["predictions"]["predicted"].values[0] == -1
    assert run.tree["predictions"]["rank"].values[0] == 0


def test_values_that_are_not_finite_are_told_even_if_the_logits_are():
    (note,) = measured(Net(spoils=(True, False), forgives=True)).notes
    assert "still give finite logits" in note
    assert "layer 1 (blocks.0)" in note


def test_a_study_tells_it_too():
    subject = vitscope.load(Net(spoils=(False, True)), input=INPUT)
    run = vitscope.study(subject, pictures(range(6)), CorruptionStudy(kinds="contrast", severities="1"))
    assert any("not finite" in note for note in run.notes)


def test_weights_that_are_not_finite_are_named():
    module = Net()
    module.bias.data[2] = math.nan
    with pytest.raises(UserError, match=r"not finite \(1 of 6 numbers in bias\)"):
        measured(module)
    module = Net()
    module.blocks[1].scale.bias.data[0] = math.inf
    assert measured(module).notes == ("Weights that are not finite: 1 of 1 numbers in blocks.1.scale.bias.",)


def test_a_class_that_is_masked_is_no_fault():
    module = Net()
    module.bias.data[5] = -math.inf
    run = measured(module)
    assert len(run.notes) == 1
    assert "bias" in run.notes[0]
    assert run.tree["predictions"]["predicted"].values.tolist() == [0, 1, 2, 3, 4, 4]
    assert math.isinf(float(run["accuracy/nll"]))


def test_images_none_of_which_can_be_read_are_not_called_unlabelled(tmp_path):
    for name in "abcdef":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"no picture")
    run = vitscope.measure(vitscope.load(Net(), input=INPUT), vitscope.images(tmp_path, max_broken=6), [Accuracy()])
    assert run.skipped == {"accuracy": "none of the images could be read"}
