"""Straight lines through the results of trials, with errors over trials."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from vitscope.labs.verdict import FLOOR
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.trials import Numbers, label_axes


@dataclass(frozen=True)
class Coefficient:
    """A coefficient of a line through ``points``, with its standard error over ``trials``.

    ``floor`` is the part of the error that comes from the grid on which trials were run, not from their number.
    """

    value: float
    error: float
    floor: float
    trials: int
    points: int

    def dataset(self, quantity: Quantity) -> xr.Dataset:
        """The coefficient as a labelled number, with the number of points of its line."""
        found = label_axes(quantity, [], np.array(self.value), np.array(self.error), np.array(self.trials))
        found[quantity.name].attrs.update({"points": self.points, FLOOR: self.floor})
        return found


@dataclass(frozen=True)
class Line:
    """A line fitted by least squares."""

    slope: Coefficient
    offset: Coefficient

    @classmethod
    def unknown(cls) -> "Line":
        """The line through too few points to fit."""
        nothing = Coefficient(np.nan, np.nan, 0.0, 0, 0)
        return cls(nothing, nothing)


def line_of_trials(x: Numbers, values: Numbers, logarithmic: bool, grain: Numbers | float = 0.0) -> Line:
    """The mean of the lines through each trial's ``values`` (points by trials) over ``x``, or of their logarithms.

    The spread of the lines includes what a trial's values share, having one seed. ``grain`` is the standard deviation
    of the rounding of each point's values, which all trials share.
    """
    points, trials = values.shape
    if points < 2:
        return Line.unknown()
    across, lines = (np.log(x), np.log(values)) if logarithmic else (x, values)
    weights = _weights(across)
    found = weights @ lines
    spread = found.std(1, ddof=1) / np.sqrt(trials) if trials > 1 else np.full(2, np.nan)
    return _line(found.mean(1), spread, weights, np.broadcast_to(grain, points), trials)


def line_of_resamples(x: Numbers, middle: Numbers, resampled: Numbers, grain: Numbers, trials: int) -> Line:
    """The line through the points' logarithms, with errors from the lines through each row of ``resampled``.

    A row is made of all ``trials``, drawn with replacement, which spread less than the trials do by
    ``sqrt(1 - 1 / trials)``; the errors make up for that. ``grain`` is the standard deviation of the rounding of each
    point's logarithm.
    """
    known = np.isfinite(middle)
    if known.sum() < 2:
        return Line.unknown()
    weights = _weights(np.log(x[known]))
    lines = _fit_rows(np.log(x), np.log(resampled))
    few = np.sqrt(trials / (trials - 1)) if trials > 1 else np.nan
    spread = few * np.nanstd(lines, axis=0, ddof=1)
    return _line(weights @ np.log(middle[known]), spread, weights, grain[known], trials)


def _line(found: Numbers, spread: Numbers, weights: Numbers, grain: NDArray[np.float64], trials: int) -> Line:
    floor = np.sqrt((weights**2) @ (grain**2))
    error = np.hypot(spread, floor)
    slope, offset = (Coefficient(float(found[i]), float(error[i]), float(floor[i]), trials, len(grain)) for i in (0, 1))
    return Line(slope, offset)


def _weights(x: Numbers) -> Numbers:
    """The weights of each point's value in slope and offset."""
    return np.linalg.pinv(np.stack([x, np.ones(len(x))], axis=1)).astype(np.float64)


def _fit_rows(x: Numbers, rows: Numbers) -> Numbers:
    """Slope and offset of each row, through its known points; NaN if they are fewer than two."""
    known = np.isfinite(rows)
    count = np.maximum(known.sum(1, keepdims=True), 1)
    y = np.where(known, rows, 0.0)
    middle = (x * known).sum(1, keepdims=True) / count
    apart = np.where(known, x - middle, 0.0)
    squares = (apart**2).sum(1)
    slope = np.where(squares > 0, (apart * y).sum(1) / np.where(squares > 0, squares, 1.0), np.nan)
    return np.stack([slope, y.sum(1) / count[:, 0] - slope * middle[:, 0]], axis=1)
