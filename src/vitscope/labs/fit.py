"""Straight lines through means over trials, with bootstrap errors."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from vitscope.labs.dataset import Numbers, laid
from vitscope.measurement.quantity import Quantity

RESAMPLED = 1000
"""Bootstrap samples of the trials."""


@dataclass(frozen=True)
class Coefficient:
    """A coefficient of a line, its bootstrap error, its 95 % interval, and how many points the line has."""

    value: float
    error: float
    low: float
    high: float
    points: int

    def dataset(self, quantity: Quantity) -> xr.Dataset:
        """As a labelled number; its count is that of the points."""
        return laid(quantity, [], np.array(self.value), np.array(self.error), np.array(self.points), "points")


@dataclass(frozen=True)
class Line:
    """Least squares of means over trials."""

    slope: Coefficient
    offset: Coefficient

    @classmethod
    def unknown(cls) -> "Line":
        """Where there is nothing to fit."""
        nothing = Coefficient(np.nan, np.nan, np.nan, np.nan, 0)
        return cls(nothing, nothing)


def bootstrap_line(x: Numbers, values: Numbers, logarithmic: bool, seed: int = 0) -> Line:
    """The line through the means of ``values`` (points by trials) over ``x``, of logarithms where that is asked for.

    Errors and intervals are those of `RESAMPLED` bootstrap samples of the trials, drawn at each point by itself.
    """
    generator = np.random.default_rng(seed)
    points, trials = values.shape
    if points < 2:
        return Line.unknown()
    drawn = generator.integers(trials, size=(RESAMPLED, points, trials))
    means = np.take_along_axis(values[None], drawn, axis=2).mean(2)
    return line_of(x, values.mean(1), means, logarithmic)


def line_of(x: Numbers, middle: Numbers, resampled: Numbers, logarithmic: bool) -> Line:
    """The line through the points, its errors from those through each row of ``resampled``."""
    points = int(np.isfinite(middle).sum())
    if points < 2:
        return Line.unknown()
    across = np.log(x) if logarithmic else x
    lines = np.stack([_fitted(across, np.log(row) if logarithmic else row) for row in (middle, *resampled)])
    low, high = np.nanquantile(lines[1:], (0.025, 0.975), axis=0)
    spread = np.nanstd(lines[1:], axis=0, ddof=1)
    slope, offset = (
        Coefficient(float(lines[0, i]), float(spread[i]), float(low[i]), float(high[i]), points) for i in (0, 1)
    )
    return Line(slope, offset)


def _fitted(x: Numbers, y: Numbers) -> Numbers:
    """Slope and offset; NaN where fewer than two points are known."""
    known = np.isfinite(x) & np.isfinite(y)
    return np.polyfit(x[known], y[known], 1) if known.sum() > 1 else np.full(2, np.nan)
