"""Verdicts of labs: entries of their datasets as estimates, and tests of bootstrapped numbers."""

import math

import xarray as xr
from scipy.special import ndtri

from vitscope.measurement.claim import Verdict
from vitscope.measurement.estimate import FALSE_ALARMS, Estimate

MORE_TRIALS = "Run more trials (--trials): standard errors shrink with the square root of their number."
"""What to try where nothing could be decided."""


def read_mean(dataset: xr.Dataset, name: str, **at: object) -> Estimate:
    """One entry of a quantity."""
    mean, error, count = (float(dataset[f"{name}{part}"].sel(at).item()) for part in ("", "_error", "_count"))
    return Estimate(mean, error, int(count))


def normal_above(value: float, error: float, threshold: float) -> Verdict:
    """Whether a number lies above a threshold, by its normal interval at `FALSE_ALARMS`; for bootstrap errors."""
    if not (math.isfinite(value) and error > 0):
        return Verdict.UNDECIDED
    reach = float(ndtri(1 - FALSE_ALARMS / 2)) * error
    low, high = value - reach, value + reach
    return Verdict.HOLDS if low > threshold else Verdict.FAILS if high < threshold else Verdict.UNDECIDED
