"""Means over trials, verdicts, needed samples and fits, by pencil and paper."""

import math

import numpy as np
import pytest

from vitscope.labs.fit import line_of_trials
from vitscope.labs.shallow.needed import sample_sizes, samples_needed_at, through
from vitscope.labs.verdict import judge_all
from vitscope.measurement.claim import Verdict
from vitscope.measurement.errors import UserError
from vitscope.measurement.estimate import Estimate, above, below, between, together
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.trials import Along, curves, over_trials

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
    assert above(mean, 0.3, 0.01) is Verdict.HOLDS
    assert above(mean, 0.5, 0.01) is Verdict.UNDECIDED
    assert below(mean, 0.3, 0.01) is Verdict.FAILS
    assert between(mean, 0.3, 1.7, 0.01) is Verdict.HOLDS
    assert above(Estimate(1.0, math.nan, 1), -1e9, 0.01) is Verdict.UNDECIDED


def test_verdicts_together() -> None:
    assert together(Verdict.HOLDS, Verdict.UNDECIDED) is Verdict.UNDECIDED
    assert together(Verdict.HOLDS, Verdict.FAILS) is Verdict.FAILS


@pytest.mark.parametrize(
    ("estimate", "said"),
    [
        (Estimate(9.0, 1.0, 8), ""),
        (Estimate(1.0, 0.5, 8), "(--trials 18)"),  # Student's 2.90 times 0.5 sqrt(8 / 18) is below 1
        (Estimate(1.0, 0.0, 8), "identical ones"),
        (Estimate(1.0, math.nan, 1), "identical ones"),
        (Estimate(1e-9, 1.0, 8), "on the threshold"),
        (Estimate(1.0, 0.5, 8, floor=0.45), "too far apart"),
        (Estimate(math.nan, math.nan, 0), ""),
    ],
)
def test_what_is_undecided_says_how_many_trials_it_takes(estimate: Estimate, said: str) -> None:
    verdict, advice = judge_all(lambda one: above(one, 0.0, 0.01), estimate)
    assert verdict is (Verdict.HOLDS if estimate.mean > 5 else Verdict.UNDECIDED)
    assert said in advice
    assert bool(advice) == bool(said)


def rates(*successes: int, trials: int = 4) -> np.ndarray:
    """So many successes of the trials at each number of samples."""
    return np.arange(trials)[None] < np.array(successes)[:, None]


def test_needed_samples_lie_between_those_tried() -> None:
    reached = np.stack([rates(0, 1, 3, 4), rates(0, 0, 1, 1), rates(3, 4, 4, 4), rates(2, 0, 4, 4)])
    found = samples_needed_at((8, 16, 32, 64), reached)
    assert found.middle[0] == pytest.approx(16 * math.sqrt(2))
    assert math.isnan(found.middle[1])
    assert found.middle[2] == 8
    assert found.middle[3] == pytest.approx(16 * 2 ** (1 / 3))  # 2 and 0 of 4 become 1 and 1
    assert np.isnan(found.inside.middle).tolist() == [False, True, True, False]


def test_seeds_are_drawn_and_not_trials() -> None:
    reached = np.repeat(rates(0, 2, 4)[None], 5, axis=0)  # what a seed can do at one setting it can do at all
    found = samples_needed_at((8, 16, 32), reached)
    assert found.middle.tolist() == pytest.approx([16] * 5)
    assert (found.resampled == found.resampled[:, :1]).all()
    assert np.unique(found.resampled).size > 1


def test_the_place_between_two_numbers_is_not_known_better_than_that() -> None:
    found = samples_needed_at((8, 32, 64), np.stack([rates(0, 4, 4), rates(0, 0, 4)]))
    assert found.resampled.std(0).max() < 1e-9
    spread = found.middle * np.log([4, 2]) / math.sqrt(12)
    assert found.error.tolist() == pytest.approx(spread.tolist())
    line = found.power(np.array([1.0, 2.0])).slope
    assert line.error == line.floor == pytest.approx(math.hypot(2, 1) / math.sqrt(12))


def test_an_exponent_is_found_again() -> None:
    share = np.array([0.1, 0.2, 0.4])
    times = 3 * share[:, None] ** -2.0 * np.ones((3, 5))
    line = line_of_trials(1 / share, times, logarithmic=True)
    assert line.slope.value == pytest.approx(2)
    assert line.slope.error == pytest.approx(0, abs=1e-12)
    assert line.offset.value == pytest.approx(math.log(3))
    assert math.isnan(line_of_trials(share[:1], times[:1], logarithmic=True).slope.value)


def test_the_error_of_a_slope_is_that_over_trials_and_of_the_grid() -> None:
    x, slopes = np.array([-1.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0, 6.0])
    line = line_of_trials(x, 5 + x[:, None] * slopes, logarithmic=False)
    assert (line.slope.value, line.slope.points, line.slope.trials) == (pytest.approx(3), 3, 4)
    assert line.slope.error == pytest.approx(slopes.std(ddof=1) / 2)
    assert line.offset.error == pytest.approx(0, abs=1e-12)
    coarse = line_of_trials(x, 5 + x[:, None] * slopes, logarithmic=False, grain=0.3)
    assert coarse.slope.floor == pytest.approx(0.3 / math.sqrt(2))
    assert coarse.slope.error == pytest.approx(math.hypot(slopes.std(ddof=1) / 2, 0.3 / math.sqrt(2)))


def test_values_on_a_grid_have_the_error_of_their_rounding() -> None:
    found = over_trials(QUANTITY, [], np.full(4, 0.125), 0.125)
    assert float(found["some_error"]) == pytest.approx(0.125 / math.sqrt(12) / 2)


def test_a_curve_goes_through_the_geometric_mean() -> None:
    assert through(np.array([1.0, 16.0, np.nan]), np.array([1.0, 1.0, 2.0])).tolist() == [4.0, 4.0, 8.0]


def test_numbers_of_samples_are_doubled_or_listed() -> None:
    assert sample_sizes("8:100") == (8, 16, 32, 64)
    assert sample_sizes("20,5") == (5, 20)
    for text in ("8:4", "0:8", "8:", "1.5"):
        with pytest.raises(UserError):
            sample_sizes(text)
