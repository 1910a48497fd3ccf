"""Differences over seeds and images: worked by hand, and their false-alarm rate simulated."""

import math

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from vitscope.measurement.crossed import crossed_difference
from vitscope.measurement.points import Points, parse_points
from vitscope.training.trial_results import Trials, describe_trials, judge_trials


def test_it_is_the_root_of_both_errors_squared():
    after = np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]])
    before = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    found = crossed_difference(after, before)
    # by image, seeds averaged: 1, 0, 0, 0.5; by seed, images averaged: 0.5, 0.25
    images = np.array([1, 0, 0, 0.5]).std(ddof=1) / 2
    seeds = np.array([0.5, 0.25]).std(ddof=1) / math.sqrt(2)
    assert (found.mean, found.count, found.seeds) == (0.375, 4, 2)
    assert (found.over_images, found.over_seeds) == (pytest.approx(images), pytest.approx(seeds))
    assert found.error == pytest.approx(math.hypot(images, seeds))
    freedom = (images**2 + seeds**2) ** 2 / (images**4 / 3 + seeds**4 / 1)
    reach = float(scipy.stats.t.ppf(0.975, freedom)) * found.error
    assert found.interval(0.05) == pytest.approx((0.375 - reach, 0.375 + reach))


def test_one_seed_decides_nothing():
    found = crossed_difference(np.ones((1, 50)), np.zeros((1, 50)))
    assert found.interval(0.05) == (-math.inf, math.inf)


def runs(rng: np.random.Generator, chance: np.ndarray, seeds: int, luck: float) -> np.ndarray:
    """Which images are right: each by its own chance, moved by each run's own luck."""
    shift = luck * rng.standard_normal((seeds, 1))
    return (rng.random((seeds, len(chance))) < np.clip(chance + shift, 0, 1)).astype(float)


@pytest.mark.parametrize("luck", [0.0, 0.02], ids=["independent", "lucky"])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_two_arms_that_are_alike_are_told_apart_no_more_often_than_said(seeds, luck):
    rng = np.random.default_rng(seeds)
    times, rate, wrong = 1500, 0.05, 0
    for _ in range(times):
        chance = rng.beta(2, 0.5, 300)
        low, high = crossed_difference(runs(rng, chance, seeds, luck), runs(rng, chance, seeds, luck)).interval(rate)
        wrong += not low <= 0 <= high
    assert wrong / times <= rate + 3 * math.sqrt(rate * (1 - rate) / times)


def test_an_arm_that_is_better_is_found():
    rng = np.random.default_rng(0)
    chance = rng.beta(2, 0.5, 2000)
    low, _ = crossed_difference(runs(rng, chance + 0.05, 3, 0.0), runs(rng, chance, 3, 0.0)).interval(0.05)
    assert low > 0


def made(gains: tuple[float, ...], validation: tuple[float, ...], seeds: int = 3) -> Trials:
    """Trials at as many learning rates, each better than the first by its gain."""
    rng = np.random.default_rng(1)
    chance = rng.uniform(0.3, 0.8, 1000)
    groups = []
    for gain, valid in zip(gains, validation, strict=True):
        for right in runs(rng, chance + gain, seeds, 0.0):
            label = np.zeros(1000, int)
            predictions = xr.Dataset(
                {
                    "label": ("image", label),
                    "predicted": ("image", (1 - right).astype(int)),
                    "loss": ("image", 1 - right),
                }
            )
            words = {"long_name": "v", "units": "1", "meaning": "m", "better": "b"}
            curve = {
                "validation_accuracy": ("epoch", [0.1, valid], words),
                "validation_accuracy_error": ("epoch", [0.01, 0.01]),
            }
            groups.append({"predictions": predictions, "training": xr.Dataset(curve, {"epoch": [1, 2]})})
    points = Points({"learning_rate": tuple(0.1 * (1 + n) for n in range(len(gains)))})
    return Trials(points, range(seeds), groups, [""] * len(groups))


def test_the_tree_has_the_grids_axes_and_the_seed():
    groups, notes = describe_trials(made((0.0, 0.1, 0.0), (0.5, 0.6, 0.5)))
    assert groups["trials"]["accuracy"].dims == ("learning_rate", "seed")
    assert groups["trials"]["accuracy_deviation"].dims == ("learning_rate",)
    assert groups["learning-curves"]["validation_accuracy"].dims == ("point", "epoch")
    assert list(groups["trial-differences"]["point"].values) == ["learning rate 0.2", "learning rate 0.3"]
    assert float(groups["trial-differences"]["accuracy_difference"][0]) == pytest.approx(0.1, abs=0.04)
    assert notes == ()


@pytest.mark.parametrize(
    ("gains", "validation", "seeds", "verdict"),
    [
        ((0.0, 0.15), (0.5, 0.6), 3, "holds"),
        ((0.0, 0.15), (0.6, 0.5), 3, "fails"),
        ((0.0, 0.0), (0.5, 0.6), 3, "undecided"),
        ((0.0, 0.15), (0.5, 0.6), 1, "undecided"),
    ],
)
def test_validation_chooses_and_the_test_images_judge(gains, validation, seeds, verdict):
    (claim,) = judge_trials(made(gains, validation, seeds))
    assert claim.verdict.value == verdict
    assert claim.evidence == "trial-differences/accuracy_difference"


def test_a_grid_in_text_has_the_types_of_the_fields():
    from vitscope.training.recipe import Recipe

    names = {"learning_rate": "learning_rate", "epochs": "epochs", "flip": "flip", "pool": "pool", "image": "image"}
    texts = {"learning_rate": "1e-3,2e-3", "epochs": "1:3:3", "flip": "True,False", "pool": "class", "image": "8"}
    assert parse_points("A recipe", Recipe, names, texts).values == {
        "learning_rate": (1e-3, 2e-3),
        "epochs": (1, 2, 3),
        "flip": (True, False),
        "pool": ("class",),
        "image": (8,),
    }
