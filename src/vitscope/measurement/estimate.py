"""Means with standard errors, and the tests that findings and labs apply to them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from scipy.special import stdtrit

from vitscope.measurement.claim import Verdict

FALSE_ALARMS = 0.01
"""Two-sided false-alarm rate of one test, at most."""
TOGETHER = 0.05
"""Rate of any false alarm among all tests of a run, at most."""
SKEWNESS = 3.0
"""Skewness of the numbers per image that tests allow for; the exponential distribution has 2."""
MOST = 10_000_000
"""The largest number of samples ever suggested."""

Kept = TypeVar("Kept", bound="Estimate")


def rate_of(tests: int) -> float:
    """The false-alarm rate of each of several tests of a run: `FALSE_ALARMS`, or its share of `TOGETHER` if less.

    By Bonferroni's inequality the rate of any false alarm in a run is then at most `TOGETHER`, however the tests depend
    on one another.
    """
    return min(FALSE_ALARMS, TOGETHER / max(tests, 1))


@dataclass(frozen=True)
class Estimate:
    """A mean over ``count`` independent trials, with its standard error."""

    mean: float
    error: float
    count: int
    floor: float = 0.0
    """The part of the error that more trials do not reduce, such as that of the grid they were run on."""

    def interval(self, rate: float) -> tuple[float, float]:
        """The interval of Student's t that misses the mean at this two-sided rate.

        All numbers if there is one trial, or no spread: identical trials say nothing about others.
        """
        if self.count < 2 or not self.error > 0:
            return (-math.inf, math.inf)
        reach = float(stdtrit(self.count - 1, 1 - rate / 2)) * self.error
        return (self.mean - reach, self.mean + reach)

    def at(self: Kept, count: int) -> Kept:
        """The estimate over another number of trials with the same mean and spread."""
        spread = math.sqrt(max(self.error**2 - self.floor**2, 0.0) * self.count / count)
        return replace(self, error=math.hypot(spread, self.floor), count=count)

    @property
    def text(self) -> str:
        """Mean and standard error, to the error's second digit."""
        if not math.isfinite(self.error) or self.count < 2:
            return f"{self.mean:.3g} (no standard error)"
        digits = 1 - math.floor(math.log10(self.error)) if self.error > 0 else 3
        digits = min(max(digits, 0), 6)
        return f"{self.mean:.{digits}f} ± {self.error:.{digits}f}"


@dataclass(frozen=True)
class OverImages(Estimate):
    """A mean over images of a continuous number per image, which may be skewed.

    The studentised mean of a skewed distribution has a long tail: to first order its quantile is
    ``z + skewness (2 z^2 + 1) / (6 sqrt(n))`` (Johnson, JASA 1978). Student's quantile is lengthened by that, on both
    sides, at a skewness of `SKEWNESS`. In simulations, tests of numbers as skewed as the exponential distribution keep
    their rate from 10 images on.
    """

    span: float = math.inf
    """The width of the number's range, such as 1 for a share."""

    def interval(self, rate: float) -> tuple[float, float]:
        """The interval that misses the mean at this two-sided rate.

        If all images have the same number, a share of images that would go unseen at this rate may have any other
        number within the range.
        """
        if self.count < 2 or math.isnan(self.error):
            return (-math.inf, math.inf)
        if self.error == 0:
            unseen = -math.expm1(math.log(rate / 2) / self.count) * self.span
            return (self.mean - unseen, self.mean + unseen)
        z = float(stdtrit(self.count - 1, 1 - rate / 2))
        reach = (z + SKEWNESS * (2 * z * z + 1) / (6 * math.sqrt(self.count))) * self.error
        return (self.mean - reach, self.mean + reach)


def above(estimate: Estimate, threshold: float, rate: float) -> Verdict:
    """Whether the mean lies above a threshold; undecided if its interval reaches the threshold."""
    low, high = estimate.interval(rate)
    return Verdict.HOLDS if low > threshold else Verdict.FAILS if high < threshold else Verdict.UNDECIDED


def below(estimate: Estimate, threshold: float, rate: float) -> Verdict:
    """Whether the mean lies below a threshold."""
    return opposite(above(estimate, threshold, rate))


def between(estimate: Estimate, low: float, high: float, rate: float) -> Verdict:
    """Whether the mean lies between two numbers, by the interval at this rate."""
    return together(above(estimate, low, rate), below(estimate, high, rate))


def opposite(verdict: Verdict) -> Verdict:
    """The verdict of the contrary statement."""
    return {Verdict.HOLDS: Verdict.FAILS, Verdict.FAILS: Verdict.HOLDS}.get(verdict, verdict)


def together(*verdicts: Verdict) -> Verdict:
    """The verdict of a statement that needs all of these."""
    if Verdict.FAILS in verdicts:
        return Verdict.FAILS
    return Verdict.HOLDS if set(verdicts) == {Verdict.HOLDS} else Verdict.UNDECIDED


def samples_needed(judge: Callable[[int], Verdict], count: int) -> int | None:
    """How many samples would decide what ``count`` of them do not, rounded up to two digits; None beyond `MOST`.

    ``judge`` gives the verdict of that many samples with the means and spreads seen.
    """
    low, high = max(count, 1), 2 * max(count, 1)
    while judge(high) is Verdict.UNDECIDED:
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        low, high = (middle, high) if judge(middle) is Verdict.UNDECIDED else (low, middle)
    unit = 10 ** max(len(str(high)) - 2, 0)
    return -(-high // unit) * unit


def average(estimates: Sequence[Kept]) -> Kept:
    """The mean of means over the same images.

    Their correlation from image to image is not stored, so the error is the mean of their standard errors, the
    largest that it can be under any correlation (Minkowski).
    """
    count = len(estimates)
    mean = sum(estimate.mean for estimate in estimates) / count
    error = sum(estimate.error for estimate in estimates) / count
    return replace(estimates[0], mean=mean, error=error, count=min(estimate.count for estimate in estimates))


def difference(after: Kept, before: Estimate) -> Kept:
    """``after - before`` over the same images, with the sum of their standard errors, which bounds its own."""
    apart = (after.mean - before.mean, after.error + before.error, min(after.count, before.count))
    return replace(after, mean=apart[0], error=apart[1], count=apart[2])


def scale(estimate: Kept, factor: float) -> Kept:
    """The mean times a factor that is known exactly."""
    return replace(estimate, mean=factor * estimate.mean, error=abs(factor) * estimate.error)


def z_text(estimate: Estimate) -> str:
    """How many standard errors the mean is from 0."""
    return f"z = {estimate.mean / estimate.error:.1f}" if estimate.error > 0 else "no spread between images"
