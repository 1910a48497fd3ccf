"""Means with standard errors, and the tests that findings and labs make of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from vitscope.measurement.claim import Verdict

FALSE_ALARMS = 0.01
"""Two-sided false-alarm rate of a test."""


@dataclass(frozen=True)
class Estimate:
    """A mean over ``count`` images, or independent trials, with its standard error."""

    mean: float
    error: float
    count: int

    def interval(self, rate: float) -> tuple[float, float]:
        """The interval of Student's t that misses the mean at this two-sided rate; all numbers for a single one."""
        if self.count < 2 or math.isnan(self.error):
            return (-math.inf, math.inf)
        reach = float(stdtrit(self.count - 1, 1 - rate / 2)) * self.error
        return (self.mean - reach, self.mean + reach)

    @property
    def text(self) -> str:
        """Mean and standard error, to the error's second digit."""
        if not math.isfinite(self.error) or self.count < 2:
            return f"{self.mean:.3g} (no standard error)"
        digits = 1 - math.floor(math.log10(self.error)) if self.error > 0 else 3
        digits = min(max(digits, 0), 6)
        return f"{self.mean:.{digits}f} ± {self.error:.{digits}f}"


def above(estimate: Estimate, threshold: float, rate: float = FALSE_ALARMS) -> Verdict:
    """Whether the mean lies above a threshold: its interval must not reach the threshold for a verdict."""
    low, high = estimate.interval(rate)
    return Verdict.HOLDS if low > threshold else Verdict.FAILS if high < threshold else Verdict.UNDECIDED


def below(estimate: Estimate, threshold: float, rate: float = FALSE_ALARMS) -> Verdict:
    """Whether the mean lies below a threshold."""
    return above(Estimate(-estimate.mean, estimate.error, estimate.count), -threshold, rate)


def between(estimate: Estimate, low: float, high: float, rate: float = FALSE_ALARMS) -> Verdict:
    """Whether the mean lies between two numbers; the rate is that on either side."""
    return together(above(estimate, low, rate), below(estimate, high, rate))


def together(*verdicts: Verdict) -> Verdict:
    """Of a statement that needs all of them."""
    if Verdict.FAILS in verdicts:
        return Verdict.FAILS
    return Verdict.HOLDS if set(verdicts) == {Verdict.HOLDS} else Verdict.UNDECIDED


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of means over the same images.

    How they go together from image to image is not stored, so the mean of their standard errors is taken, which is
    the most that the standard error can be under any correlation (Minkowski).
    """
    count = len(estimates)
    mean = sum(estimate.mean for estimate in estimates) / count
    error = sum(estimate.error for estimate in estimates) / count
    return Estimate(mean, error, min(estimate.count for estimate in estimates))


def difference(after: Estimate, before: Estimate) -> Estimate:
    """``after - before`` over the same images, with the sum of their standard errors, which bounds its own."""
    return Estimate(after.mean - before.mean, after.error + before.error, min(after.count, before.count))


def of_shares(estimate: Estimate) -> Estimate:
    """The mean of numbers that are 0 or 1, or differences of such, its error at least one image's.

    Where no image changed the estimated error is 0, and yet one in some hundreds may change.
    """
    return Estimate(estimate.mean, max(estimate.error, 1 / max(estimate.count, 1)), estimate.count)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """The mean times a factor that is known exactly."""
    return Estimate(factor * estimate.mean, abs(factor) * estimate.error, estimate.count)


def logarithm(estimate: Estimate) -> Estimate:
    """The logarithm of a positive mean, its error to first order."""
    return Estimate(math.log(estimate.mean), estimate.error / estimate.mean, estimate.count)


def wilson(share: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval of a share of ``count`` images, of 95 % by default."""
    centre, reach = share + z**2 / (2 * count), z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return ((centre - reach) / (1 + z**2 / count), (centre + reach) / (1 + z**2 / count))


def z_text(estimate: Estimate) -> str:
    """How many standard errors the mean is from 0."""
    return f"z = {estimate.mean / estimate.error:.1f}" if estimate.error > 0 else "no spread between images"
