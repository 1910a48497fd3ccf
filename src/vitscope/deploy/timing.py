"""Figures of timed rounds: medians and 90th percentiles with intervals, and ratios of contestants round by round."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float

from vitscope.measurement.exact import SHOWN
from vitscope.measurement.median import bootstrap_quantiles, median_interval, quantiles

_SHARES = (0.5, 0.9)


@final
@dataclass(frozen=True)
class Figure:
    """A number with its standard error, its 95 % interval, and the count of values it is from."""

    value: float
    error: float
    low: float
    high: float
    count: int


@final
@dataclass(frozen=True, eq=False)
class Timed:
    """The seconds of a contestant's passes at one batch size, one row per round; shorter rows end in NaN."""

    contestant: int
    batch: int
    seconds: Float[np.ndarray, "rounds passes"]
    seed: int

    @property
    def count(self) -> int:
        """How many passes were timed."""
        return int(np.isfinite(self.seconds).sum())

    @cached_property
    def by_round(self) -> Float[np.ndarray, " rounds"]:
        """The median of each round."""
        return quantiles(self.seconds, (0.5,))[:, 0]

    @property
    def median(self) -> Figure:
        """The median of all passes, in seconds."""
        return self._figures[0]

    @property
    def p90(self) -> Figure:
        """The 90th percentile of all passes, in seconds."""
        return self._figures[1]

    @property
    def throughput(self) -> Figure:
        """Images a second at the median."""
        found = self.median
        value = self.batch / found.value
        return Figure(value, value * found.error / found.value, self.batch / found.high, self.batch / found.low,
                      found.count)  # fmt: skip

    @cached_property
    def _figures(self) -> tuple[Figure, Figure]:
        found = quantiles(self.seconds.reshape(1, -1), _SHARES)[0]
        drawn = bootstrap_quantiles(self.seconds, _SHARES, self.seed)
        ends = np.quantile(drawn, (SHOWN / 2, 1 - SHOWN / 2), axis=0)
        errors = drawn.std(0, ddof=1) if len(self.seconds) > 1 else np.full(2, np.nan)
        median, p90 = (
            Figure(float(found[i]), float(errors[i]), float(ends[0, i]), float(ends[1, i]), self.count) for i in (0, 1)
        )
        return median, p90


@final
@dataclass(frozen=True, eq=False)
class TimeRatio:
    """A contestant's time over another's, round by round: disturbances of a round affect both."""

    values: Float[np.ndarray, " rounds"]
    seed: int

    @property
    def median(self) -> float:
        """The median over rounds."""
        return float(np.median(self.values))

    def interval(self, rate: float) -> tuple[float, float]:
        """The exact interval of the median. It misses at most at this rate if rounds are alike and independent."""
        return median_interval(self.values, rate)

    @property
    def figure(self) -> Figure:
        """The median with its exact 95 % interval and the standard error of its bootstrap."""
        drawn = bootstrap_quantiles(self.values[:, None], (0.5,), self.seed)
        error = float(drawn.std(ddof=1)) if len(self.values) > 1 else float("nan")
        return Figure(self.median, error, *self.interval(SHOWN), len(self.values))


def ratio_of(one: Timed, other: Timed) -> TimeRatio:
    """The time of ``one`` over the time of ``other``, round by round."""
    return TimeRatio(one.by_round / other.by_round, one.seed)


def in_rows(rows: Sequence[Sequence[float]]) -> Float[np.ndarray, "rounds passes"]:
    """Rows of different lengths as one array, padded with NaN."""
    found = np.full((len(rows), max(map(len, rows))), np.nan)
    for row, values in zip(found, rows, strict=True):
        row[: len(values)] = values
    return found
