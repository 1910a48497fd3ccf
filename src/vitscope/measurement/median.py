"""Exact intervals of medians, and bootstraps of quantiles over blocks of dependent numbers."""

import math

import numpy as np
from jaxtyping import Float
from scipy.special import bdtr


def median_interval(values: Float[np.ndarray, " values"], rate: float) -> tuple[float, float]:
    r"""The interval of the median that misses it at most at this two-sided rate, for any distribution.

    .. math:: [x_{(k)}, x_{(n+1-k)}], \quad k = \max\{j : 2\,P(B \le j - 1) \le \text{rate}\}, \quad B \sim
        \mathrm{Bin}(n, 1/2)

    ``x_(k)`` is the k-th smallest of ``n`` independent values (Conover, Practical Nonparametric Statistics, 3.2). The
    interval is unbounded if there are fewer than :func:`values_needed`.
    """
    ordered = np.sort(values)
    count = len(ordered)
    beyond = 2 * bdtr(np.arange(count), count, 0.5) if count else np.empty(0)
    place = int(np.sum(beyond <= rate))
    if place == 0:
        return (-math.inf, math.inf)
    return float(ordered[place - 1]), float(ordered[count - place])


def values_needed(rate: float) -> int:
    """The smallest number of values for a bounded interval of the median at this two-sided rate."""
    return math.ceil(1 - math.log2(rate))


def quantiles(values: Float[np.ndarray, "rows values"], shares: tuple[float, ...]) -> Float[np.ndarray, "rows shares"]:
    """The quantiles of each row without its NaN, interpolated linearly (R's type 7). Each row needs a number."""
    ordered = np.sort(values, axis=1)  # NaN last
    last = np.sum(np.isfinite(ordered), axis=1, keepdims=True) - 1
    place = last * np.array(shares)
    below = np.floor(place).astype(np.int64)
    low, high = (np.take_along_axis(ordered, np.minimum(one, last), 1) for one in (below, below + 1))
    return low + (high - low) * (place - below)


def bootstrap_quantiles(
    blocks: Float[np.ndarray, "blocks values"], shares: tuple[float, ...], seed: int, draws: int = 2000
) -> Float[np.ndarray, "draws shares"]:
    """Quantiles of all numbers in each of ``draws`` bootstrap samples, which draw whole blocks with replacement.

    Numbers within a block may depend on each other (Künsch, Annals of Statistics 1989). Shorter blocks end in NaN, and
    none is empty. Cost: sorting all numbers ``draws`` times.
    """
    generator = np.random.default_rng(seed)
    count = len(blocks)
    chosen = generator.integers(count, size=(draws, count))
    each = max(1, 2_000_000 // blocks.size)  # samples at a time, so that memory stays small
    parts = [blocks[some].reshape(len(some), -1) for some in np.split(chosen, range(each, draws, each))]
    return np.concatenate([quantiles(part, shares) for part in parts])
