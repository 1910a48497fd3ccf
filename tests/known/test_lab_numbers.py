"""Means over trials, verdicts, needed samples and fits, by pencil and paper."""

import math

import numpy as np
import pytest

from vitscope.labs.dataset import Along, curves, over_trials
from vitscope.labs.fit import bootstrap_line
from vitscope.labs.needed import needed, sample_sizes, through
from vitscope.labs.verdict import normal_above
from vitscope.measurement.claim import Verdict
from vitscope.measurement.errors import UserError
from vitscope.measurement.estimate import Estimate, above, below, between, together
from vitscope.measurement.quantity import Quantity

QUANTITY = Quantity("some", "Some quantity", "1", "What it says.")
STEPS = Along("step", [1, 10], "Step", "steps", logarithmic=True)


def test_trials_without_a_value_do_not_count() -> None:
    found = over_trials(QUANTITY, [STEPS], np.array([[1.0, 3.0, np.nan], [np.nan, np.nan, 5.0]]))
    assert found["some"].values.tolist() == [2.0, 5.0]
    assert found["some_error"].values[0] == pytest.approx(1.0)
    assert math.isnan(found["some_error"].values[1])
    assert found["some_count"].values.tolist() == [2, 1]
    assert found["step"].attrs["scale"] == "log"


def test_predictions_stand_beside_measured_curves_without_trials() -> None:
    values = np.array([[1.0, 3.0], [2.0, 2.0]])
    found = curves(QUANTITY, [STEPS], {"measured": values}, {"predicted": np.array(7.0)})
    assert found["some"].dims == ("curve", "step")
    assert found["some"].sel(curve="predicted").values.tolist() == [7.0, 7.0]
    assert found["some_count"].values.tolist() == [[2, 2], [0, 0]]


def test_students_interval_of_two_trials() -> None:
    mean = Estimate(1.0, 0.01, 2)
    low, high = mean.interval(0.01)
    assert high - 1 == pytest.approx(0.01 * math.tan(math.pi * 0.495))  # one degree of freedom is Cauchy's law
    assert low == pytest.approx(2 - high)
    assert above(mean, 0.3) is Verdict.HOLDS
    assert above(mean, 0.5) is Verdict.UNDECIDED
    assert below(mean, 0.3) is Verdict.FAILS
    assert between(mean, 0.3, 1.7) is Verdict.HOLDS
    assert above(Estimate(1.0, math.nan, 1), -1e9) is Verdict.UNDECIDED


def test_the_normal_interval_and_verdicts_together() -> None:
    assert normal_above(2.58, 1.0, 0.0) is Verdict.HOLDS
    assert normal_above(2.57, 1.0, 0.0) is Verdict.UNDECIDED
    assert normal_above(-2.58, 1.0, 0.0) is Verdict.FAILS
    assert normal_above(math.nan, 1.0, 0.0) is Verdict.UNDECIDED
    assert together(Verdict.HOLDS, Verdict.UNDECIDED) is Verdict.UNDECIDED
    assert together(Verdict.HOLDS, Verdict.FAILS) is Verdict.FAILS


def rates(*successes: int, trials: int = 4) -> np.ndarray:
    """So many successes of the trials at each number of samples."""
    return np.arange(trials)[None] < np.array(successes)[:, None]


def test_needed_samples_lie_between_those_tried() -> None:
    reached = np.stack([rates(0, 1, 3, 4), rates(0, 0, 1, 1), rates(3, 4, 4, 4), rates(2, 0, 4, 4)])
    found = needed((8, 16, 32, 64), reached)
    assert found.middle[0] == pytest.approx(16 * math.sqrt(2))
    assert math.isnan(found.middle[1])
    assert found.middle[2] == 8
    assert found.middle[3] == pytest.approx(16 * 2 ** (1 / 3))  # 2 and 0 of 4 become 1 and 1
    assert np.isnan(found.inside.middle).tolist() == [False, True, True, False]


def test_an_exponent_is_found_again() -> None:
    share = np.array([0.1, 0.2, 0.4])
    times = 3 * share[:, None] ** -2.0 * np.ones((3, 5))
    line = bootstrap_line(1 / share, times, logarithmic=True)
    assert line.slope.value == pytest.approx(2)
    assert line.slope.error == pytest.approx(0, abs=1e-12)
    assert line.offset.value == pytest.approx(math.log(3))
    assert math.isnan(bootstrap_line(share[:1], times[:1], logarithmic=True).slope.value)


def test_the_error_of_a_slope_is_that_of_its_means() -> None:
    generator = np.random.default_rng(0)
    x = np.array([-1.0, 0.0, 1.0])
    values = x[:, None] + generator.normal(size=(3, 400))
    error = bootstrap_line(x, values, logarithmic=False).slope.error
    assert error == pytest.approx(1 / math.sqrt(2 * 400), rel=0.15)  # four standard deviations of 1000 resamples


def test_a_curve_goes_through_the_geometric_mean() -> None:
    assert through(np.array([1.0, 16.0, np.nan]), np.array([1.0, 1.0, 2.0])).tolist() == [4.0, 4.0, 8.0]


def test_numbers_of_samples_are_doubled_or_listed() -> None:
    assert sample_sizes("8:100") == (8, 16, 32, 64)
    assert sample_sizes("20,5") == (5, 20)
    for text in ("8:4", "0:8", "8:", "1.5"):
        with pytest.raises(UserError):
            sample_sizes(text)
