"""No rule errs more often than it says at the edge of its margin: exactly where laws can be listed, else simulated."""

import itertools
from functools import cache

import numpy as np
import pytest
from false_alarms import CASES, COUNTS, errors, mean_of, per_image
from finding_runs import of_changes
from scipy.stats import binom, binomtest, multinomial

import vitscope.labs.shallow.needed
from vitscope.findings.checkup import findings
from vitscope.labs.verdict import read_mean
from vitscope.measurement.claim import Verdict
from vitscope.measurement.estimate import FALSE_ALARMS, Estimate, OverImages, above
from vitscope.measurement.exact import Bounded, Change, change_of, clopper_pearson, contrast, paired_share
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.trials import over_trials

RATE = FALSE_ALARMS
QUANTITY = Quantity("gain", "Gain", "1", "What it says.")


def most(draws: int, rate: float = RATE) -> int:
    """How often an event of this rate is seen in so many draws, but for one time in ten thousand."""
    return int(binom.ppf(1 - 1e-4, draws, rate))


def misses(interval: tuple[float, float], truth: float) -> bool:
    return not interval[0] <= truth <= interval[1]


@pytest.mark.parametrize(("gain", "loss"), [(0.0, 0.01), (0.0, 0.05), (0.03, 0.05), (0.2, 0.2), (0.5, 0.5), (0.0, 0.0)])
def test_exact_intervals_of_changes_miss_at_most_at_their_rate(gain: float, loss: float) -> None:
    count, law = 40, multinomial(40, (gain, loss, 1 - gain - loss))
    missed = 0.0
    for gained, lost in itertools.product(range(count + 1), repeat=2):
        if gained + lost <= count:
            change = Change((gained - lost) / count, 0.0, count, gained=float(gained), lost=float(lost))
            missed += law.pmf((gained, lost, count - gained - lost)) * misses(change.interval(RATE), gain - loss)
    assert missed <= RATE


@cache
def paired_interval(gained: int, lost: int, count: int, rate: float) -> tuple[float, float]:
    return paired_share(gained, lost, count).interval(rate)


LAWS = [(0.0, 0.01), (0.0, 0.05), (0.03, 0.05), (0.2, 0.2), (0.5, 0.5), (0.0, 0.0), (0.3, 0.1), (0.875, 0.125)]


@pytest.mark.parametrize(("gain", "loss"), LAWS)
@pytest.mark.parametrize("rate", [RATE, 0.05, 0.3])
def test_paired_intervals_and_mcnemars_test_err_at_most_at_their_rate(gain: float, loss: float, rate: float) -> None:
    """Of 16 images, over all outcomes; the test errs where gain and loss are equal."""
    count, law = 16, multinomial(16, (gain, loss, 1 - gain - loss))
    missed = rejected = 0.0
    for gained, lost in itertools.product(range(count + 1), repeat=2):
        if gained + lost <= count:
            chance = law.pmf((gained, lost, count - gained - lost))
            missed += chance * misses(paired_interval(gained, lost, count, rate), gain - loss)
            rejected += chance * (paired_share(gained, lost, count).p_value <= rate)
    assert missed <= rate
    assert gain != loss or rejected <= rate


def test_mcnemars_p_by_hand() -> None:
    assert paired_share(10, 2, 100).p_value == pytest.approx(2 * (1 + 12 + 66) / 4096, rel=1e-12)
    assert paired_share(2, 10, 100).p_value == pytest.approx(0.03857421875, rel=1e-12)
    assert paired_share(0, 5, 9).p_value == pytest.approx(2 / 32, rel=1e-12)
    assert paired_share(3, 3, 9).p_value == paired_share(0, 0, 9).p_value == 1


def test_a_paired_share_has_the_mean_and_the_error_of_the_differences() -> None:
    apart = np.array([1.0] * 10 + [-1.0] * 2 + [0.0] * 88)
    found = paired_share(10, 2, 100)
    assert found.mean == pytest.approx(apart.mean(), rel=1e-12)
    assert found.error == pytest.approx(apart.std(ddof=1) / 10, rel=1e-12)


@pytest.mark.parametrize("turned", [(123, 80, 10_000), (3, 5, 445), (2, 55, 445), (0, 0, 100), (40, 0, 40)])
def test_the_paired_interval_is_little_wider_than_that_of_normal_errors(turned: tuple[int, int, int]) -> None:
    """And narrower than that of two shares, each at half of the rate, wherever images turn both ways."""
    gained, lost, count = turned
    found = paired_share(gained, lost, count)
    low, high = found.interval(0.05)
    reach = 1.96 * found.error
    assert low <= found.mean - reach <= found.mean + reach <= high or high == 1
    assert low <= found.mean <= high
    wide = Change(found.mean, found.error, count, gained=float(gained), lost=float(lost)).interval(0.05)
    assert not (gained and lost) or wide[0] < low < high < wide[1]
    assert found.p_value == pytest.approx(binomtest(gained, max(gained + lost, 1)).pvalue if gained + lost else 1)
    mirrored = paired_share(lost, gained, count).interval(0.05)
    assert mirrored == pytest.approx((-high, -low), abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.97, 1.0])
def test_exact_intervals_of_shares_miss_at_most_at_their_rate(share: float) -> None:
    found = [misses(clopper_pearson(float(hits), 60, RATE), share) for hits in range(61)]
    assert binom.pmf(np.arange(61), 60, share) @ found <= RATE


@pytest.mark.parametrize("together", [1, 5])
@pytest.mark.parametrize("count", [4, 16, 60])
def test_intervals_over_mini_batches_miss_at_most_at_their_rate(count: int, together: int) -> None:
    """Of five eigenvalues of a mini-batch all are negative or none, or each is for itself."""
    numbers = np.arange(count * together + 1)
    found = [misses(Bounded(hits / numbers[-1], 0.0, count).interval(RATE), 0.1) for hits in numbers.tolist()]
    assert binom.pmf(numbers, numbers[-1], 0.1) @ found <= RATE


def test_certainty_without_spread_was_the_fault() -> None:
    """With five negative ones or none, two thirds of all runs of 4 mini-batches have no spread, and no negative one."""
    assert binom.pmf(0, 4, 0.1) == pytest.approx(0.6561)
    assert above(Bounded(0.0, 0.0, 4), 0.1, RATE) is Verdict.UNDECIDED


@pytest.mark.parametrize("turned", [(0, 0), (3, 5), (40, 0), (0, 1), (20, 20)])
def test_gained_and_lost_are_found_again(turned: tuple[int, int]) -> None:
    mean, error = of_changes([turned], 40)
    found = change_of(Estimate(float(mean[0]), float(error[0]), 40))
    assert isinstance(found, Change)
    assert (found.gained, found.lost) == turned


@pytest.mark.parametrize("values", [(0.5, 0.0, 0.0), (0.3, -0.3, 0.0), (1.0, 0.5, -1.0)])
def test_numbers_that_are_no_changes_are_bounded(values: tuple[float, ...]) -> None:
    mean, error = mean_of(np.tile(values, 20))
    found = change_of(Estimate(float(mean), float(error), 60))
    assert isinstance(found, Bounded)
    assert (found.least, found.most) == (-1.0, 1.0)


def test_a_contrast_is_as_sure_as_all_its_parts() -> None:
    one, other = (Change(0.0, 0.0, 100, gained=0.0, lost=lost) for lost in (0.0, 30.0))
    low, high = contrast([one, other], [one]).interval(0.03)
    (a, b), (c, d) = (part.interval(0.01) for part in (one, other))
    assert (low, high) == pytest.approx(((a + c) / 2 - b, (b + d) / 2 - a))
    assert contrast([other]).interval(0.03) == pytest.approx(other.interval(0.03))


@pytest.mark.parametrize("count", [10, 20, 50, 200])
@pytest.mark.parametrize("law", ["even", "skewed"])
def test_means_of_numbers_as_skewed_as_the_exponential_law_keep_the_rate(law: str, count: int) -> None:
    draws = 20_000
    means, spreads = mean_of(per_image(np.random.default_rng(1), law, draws, count))
    found = zip(means.tolist(), spreads.tolist(), strict=True)
    assert sum(misses(OverImages(mean, error, count).interval(RATE), 0.0) for mean, error in found) <= most(draws)


def test_every_finding_that_is_a_test_is_simulated() -> None:
    assert set(CASES) == {finding.name for finding in findings() if finding.is_test}


@pytest.mark.parametrize("name", CASES)
def test_no_finding_errs_more_often_than_it_says(name: str) -> None:
    draws = 30 if name not in COUNTS else 60
    for draw in CASES[name].values():
        found = errors(name, draw, COUNTS.get(name, (20,))[0], draws, RATE)
        assert found[Verdict.HOLDS] + found[Verdict.FAILS] <= most(draws)


def thresholds(random: np.random.Generator, power: float, shares: np.ndarray, trials: int, spread: dict) -> np.ndarray:
    """Logarithms to base 2 of the samples that every trial needs, by share and number of samples tried."""
    x = np.log2(1 / shares)
    common = spread["seed"] * random.normal(size=trials)
    return 5 + power * (x - x.mean())[:, None, None] + common + spread["cell"] * random.normal(size=(len(x), 8, trials))


@pytest.mark.parametrize(
    ("shares", "trials", "spread"),
    [
        ((0.1, 0.15, 0.2, 0.3, 0.45), 8, {"seed": 0.0, "cell": 0.7}),  # the lab's own sizes
        ((0.1, 0.15, 0.2, 0.3, 0.45), 8, {"seed": 1.0, "cell": 0.5}),  # a seed's cells go together
        ((0.1, 0.15, 0.2, 0.3, 0.45), 8, {"seed": 0.0, "cell": 0.2}),  # the grid is coarser than the trials spread
        ((0.1, 0.2), 4, {"seed": 0.0, "cell": 0.7}),
    ],
)
def test_exponents_of_needed_samples_keep_the_rate(
    shares: tuple[float, ...], trials: int, spread: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vitscope.labs.shallow.needed, "RESAMPLED", 60)
    random, draws, sizes = np.random.default_rng(2), 120, 2 ** np.arange(2, 10)
    alpha, wrong = np.array(shares), 0
    for _ in range(draws):
        reached = np.log2(sizes)[:, None] >= thresholds(random, 2.0, alpha, trials, spread)
        slope = vitscope.labs.shallow.needed.samples_needed_at(sizes.tolist(), reached).power(1 / alpha).slope
        wrong += misses(Estimate(slope.value, slope.error, trials).interval(RATE), 2.0)
    assert wrong <= most(draws)


def test_gains_in_success_keep_the_rate_of_nine_claims_at_eight_trials() -> None:
    random, draws, rate = np.random.default_rng(3), 1500, 0.05 / 9
    alpha, wrong = np.array([0.2]), 0
    spread = {"seed": 1.0, "cell": 0.7}
    for _ in range(draws):
        rates = [(np.arange(2, 10)[:, None] >= thresholds(random, 1.0, alpha, 8, spread)[0]).mean(0) for _ in range(2)]
        found = over_trials(QUANTITY, [], rates[1] - rates[0], 1 / 8)
        wrong += misses(read_mean(found, "gain").interval(rate), 0.0)
    assert wrong <= most(draws, rate)
