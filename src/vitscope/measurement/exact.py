"""Intervals that keep their rate under any distribution: of shares, of their changes, of bounded numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast, final

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq
from scipy.special import bdtr, bdtrc, betaincinv, gammaln, rel_entr, xlog1py, xlogy

from vitscope.measurement.estimate import Estimate

SHOWN = 0.05
"""Miss rate of intervals that are only shown and decide nothing, at most."""
_ROUNDING = 0.01
"""Counts recovered from a mean and its error must be whole to within this."""


def clopper_pearson(hits: float, count: int, rate: float) -> tuple[float, float]:
    """The interval of a share, from ``hits`` of ``count``, that misses at this two-sided rate at most.

    Clopper and Pearson, Biometrika 1934. ``hits`` need not be whole.
    """
    low = float(betaincinv(hits, count - hits + 1, rate / 2)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - rate / 2)) if hits < count else 1.0
    return low, high


@final
@dataclass(frozen=True)
class Share(Estimate):
    """A share of images, or of trials."""

    def interval(self, rate: float) -> tuple[float, float]:
        """The exact interval of Clopper and Pearson."""
        return clopper_pearson(self.mean * self.count, self.count, rate)


@final
@dataclass(frozen=True)
class Change(Estimate):
    """The change of a share over the same images: each was gained (1), lost (-1), or stayed as it was (0)."""

    gained: float = 0.0
    lost: float = 0.0

    def interval(self, rate: float) -> tuple[float, float]:
        """The share gained less the share lost, by an exact interval of each at half of the rate."""
        gain, loss = (clopper_pearson(one, self.count, rate / 2) for one in (self.gained, self.lost))
        return gain[0] - loss[1], gain[1] - loss[0]

    def at(self, count: int) -> "Change":
        """The change over another number of images with the same shares gained and lost."""
        more = count / self.count
        return replace(super().at(count), gained=self.gained * more, lost=self.lost * more)

    @property
    def text(self) -> str:
        """The change, its error, and how many images were gained and lost, of how many."""
        turned = f"{self.gained:.0f} gained, {self.lost:.0f} lost" if self.gained or self.lost else "none changed"
        return f"{super().text} ({turned} of {self.count})"


@final
@dataclass(frozen=True)
class PairedShare(Estimate):
    """The difference of two subjects' shares over the same images: ``gained`` images count for the second alone.

    Only images that count for one of the two alone decide. Made by :func:`paired_share`.
    """

    gained: int = 0
    lost: int = 0

    @property
    def p_value(self) -> float:
        r"""McNemar's exact two-sided p (Psychometrika 1947): how often chance alone splits ``m`` at least so unevenly.

        .. math:: p = \min\Bigl(1, 2 \sum_{k \le \min(g, l)} \binom{m}{k} 2^{-m}\Bigr)

        10 gained and 2 lost make 2 (1 + 12 + 66) / 4096 = 0.0386. 1 if nothing was gained or lost.
        """
        return min(1.0, 2 * float(bdtr(min(self.gained, self.lost), self.gained + self.lost, 0.5)))

    def interval(self, rate: float) -> tuple[float, float]:
        """The values that no one-sided test of ``gained - lost`` rejects, whatever share of the images changes.

        That share is unknown, so a value is rejected only if it is rejected at every share within the exact interval
        (Clopper and Pearson), which spends a fiftieth of the rate; the tests have the rest (Berger and Boos, JASA
        1994). So it misses at this two-sided rate at most. Cost: some 10 ms to 0.3 s.
        """
        end = -_least_difference(self.lost, self.gained, self.count, rate)
        return _least_difference(self.gained, self.lost, self.count, rate), end


def paired_share(gained: int, lost: int, count: int) -> PairedShare:
    """The difference of two shares over ``count`` images, with its standard error over images."""
    mean = (gained - lost) / count
    spread = max(gained + lost - count * mean**2, 0.0)
    error = math.sqrt(spread / (count - 1) / count) if count > 1 else math.nan
    return PairedShare(mean, error, count, gained=gained, lost=lost)


def _least_difference(gained: int, lost: int, count: int, rate: float) -> float:
    """The lower end of a paired share's interval."""
    spent = rate / 50
    least, most = clopper_pearson(float(gained + lost), count, spent)
    seen, allowed = (gained - lost) / count, (rate - spent) / 2

    def excess(difference: float) -> float:
        """The largest tail probability at any share, less the allowed one."""
        shares = np.linspace(max(least, abs(difference)), most, 17)
        return max(_tail(gained - lost, count, difference, share) for share in shares.tolist()) - allowed

    if excess(-most) > 0:
        return -most
    return seen if excess(seen) < 0 else float(cast(float, brentq(excess, -most, seen, xtol=1e-7)))


def _tail(least: int, count: int, difference: float, share: float) -> float:
    """The probability of ``gained - lost >= least``, if this share of images changes and this is the true difference.

    The number of images that change is binomial, and so is the number gained among them.
    """
    if share <= 0:
        return float(least <= 0)
    middle, reach = share * count, 10 * math.sqrt(share * count) + 30
    turned = np.arange(max(0, int(middle - reach)), min(count, int(middle + reach)) + 1)
    wanted = np.ceil((turned + least) / 2)
    gain = min(max((1 + difference / share) / 2, 0.0), 1.0)
    enough = bdtrc(np.clip(wanted, 1, None) - 1, np.maximum(turned, 1), gain)
    return float(_binomial(turned, count, share) @ np.where(wanted <= 0, 1.0, np.where(wanted > turned, 0.0, enough)))


def _binomial(hits: Int[np.ndarray, " numbers"], count: int, share: float) -> Float[np.ndarray, " numbers"]:
    """The binomial probabilities of these numbers of hits."""
    ways = gammaln(count + 1) - gammaln(hits + 1) - gammaln(count - hits + 1)
    return np.exp(ways + xlogy(hits, share) + xlog1py(count - hits, -share))


@final
@dataclass(frozen=True)
class Bounded(Estimate):
    """A mean of numbers known only to lie between ``least`` and ``most``."""

    least: float = 0.0
    most: float = 1.0

    def interval(self, rate: float) -> tuple[float, float]:
        """The interval of Hoeffding's inequality (JASA 1963, theorem 1), for 0 and 1 Chernoff's; assumes no spread."""
        width = self.most - self.least
        share, bound = (self.mean - self.least) / width, math.log(2 / rate) / self.count

        def excess(other: float) -> float:
            return float(rel_entr(share, other) + rel_entr(1 - share, 1 - other)) - bound

        low, high = (
            float(cast(float, brentq(excess, end, share))) if end != share and excess(end) > 0 else end
            for end in (0.0, 1.0)
        )
        return self.least + width * low, self.least + width * high


@final
@dataclass(frozen=True)
class Contrast(Estimate):
    """The mean of some estimates less the mean of others."""

    first: tuple[Estimate, ...] = ()
    second: tuple[Estimate, ...] = ()

    def interval(self, rate: float) -> tuple[float, float]:
        """Combine the intervals of all parts, each at its share of the rate, however the parts depend on each other."""
        share = rate / len((*self.first, *self.second))
        (low, high), (least, most) = (_mean_interval(part, share) for part in (self.first, self.second))
        return low - most, high - least

    def at(self, count: int) -> "Contrast":
        """The contrast if all its parts were over another number of images."""
        parts = (tuple(one.at(count) for one in part) for part in (self.first, self.second))
        return contrast(*parts)


def change_of(estimate: Estimate) -> Change | Bounded:
    """The estimate as the change of a share, with the images gained and lost; else as a bounded mean.

    For numbers that are 1, -1 or 0 the mean gives ``gained - lost`` and, with the standard error, the sum of squares
    ``gained + lost``.
    """
    mean, count = estimate.mean, estimate.count
    squares = (count * (count - 1) * estimate.error**2 if count > 1 else 0.0) + count * mean**2
    found = [(squares + count * mean) / 2, (squares - count * mean) / 2]
    gained, lost = (float(round(one)) if math.isfinite(one) else -1.0 for one in found)
    whole = max(abs(gained - found[0]), abs(lost - found[1])) < _ROUNDING
    if whole and min(gained, lost) >= 0 and gained + lost <= count:
        return Change(mean, estimate.error, count, gained=gained, lost=lost)
    return Bounded(mean, estimate.error, count, least=-1.0, most=1.0)


def _mean_interval(part: Sequence[Estimate], rate: float) -> tuple[float, float]:
    ends = [one.interval(rate) for one in part] or [(0.0, 0.0)]
    return sum(low for low, _ in ends) / len(ends), sum(high for _, high in ends) / len(ends)


def contrast(first: Sequence[Estimate], second: Sequence[Estimate] = ()) -> Contrast:
    """The mean of the first estimates less the mean of the second, if any, with the sum of their standard errors."""
    parts = [part for part in (first, second) if part]
    means = [sum(one.mean for one in part) / len(part) for part in parts]
    error = sum(sum(one.error for one in part) / len(part) for part in parts)
    count = min(one.count for part in parts for one in part)
    return Contrast(means[0] - sum(means[1:]), error, count, first=tuple(first), second=tuple(second))
