"""Verdicts on means over trials: a statement holds or fails where Student's interval leaves no doubt."""

import math
from dataclasses import dataclass

import xarray as xr
from scipy.special import ndtri, stdtrit

from vitscope.measurement.claim import Verdict

FALSE_ALARMS = 0.01
"""Two-sided false-alarm rate of a lab's test."""
MORE_TRIALS = "Run more trials (--trials): standard errors shrink with the square root of their number."
"""What to try where nothing could be decided."""


@dataclass(frozen=True)
class TrialMean:
    """A mean over independent trials, its standard error, and their number."""

    mean: float
    error: float
    count: int

    @property
    def interval(self) -> tuple[float, float]:
        """Student's interval at `FALSE_ALARMS`; everything where fewer than two trials have a value."""
        if self.count < 2 or not math.isfinite(self.error):
            return -math.inf, math.inf
        reach = float(stdtrit(self.count - 1, 1 - FALSE_ALARMS / 2)) * self.error
        return self.mean - reach, self.mean + reach

    @property
    def text(self) -> str:
        """Mean and standard error."""
        return f"{self.mean:.3g} ± {self.error:.2g}" if math.isfinite(self.error) else f"{self.mean:.3g}"

    def above(self, threshold: float) -> Verdict:
        """Whether the mean lies above a threshold."""
        low, high = self.interval
        return Verdict.HOLDS if low > threshold else Verdict.FAILS if high < threshold else Verdict.UNDECIDED

    def below(self, threshold: float) -> Verdict:
        """Whether the mean lies below a threshold."""
        return TrialMean(-self.mean, self.error, self.count).above(-threshold)

    def between(self, low: float, high: float) -> Verdict:
        """Whether the mean lies between two numbers."""
        return together(self.above(low), self.below(high))


def read_mean(dataset: xr.Dataset, name: str, **at: object) -> TrialMean:
    """One entry of a quantity."""
    mean, error, count = (float(dataset[f"{name}{part}"].sel(at).item()) for part in ("", "_error", "_count"))
    return TrialMean(mean, error, int(count))


def normal_above(value: float, error: float, threshold: float) -> Verdict:
    """Whether a number lies above a threshold, by its normal interval at `FALSE_ALARMS`; for bootstrap errors."""
    if not (math.isfinite(value) and error > 0):
        return Verdict.UNDECIDED
    reach = float(ndtri(1 - FALSE_ALARMS / 2)) * error
    low, high = value - reach, value + reach
    return Verdict.HOLDS if low > threshold else Verdict.FAILS if high < threshold else Verdict.UNDECIDED


def together(*verdicts: Verdict) -> Verdict:
    """Of a statement that needs all of them."""
    if Verdict.FAILS in verdicts:
        return Verdict.FAILS
    return Verdict.HOLDS if set(verdicts) == {Verdict.HOLDS} else Verdict.UNDECIDED
