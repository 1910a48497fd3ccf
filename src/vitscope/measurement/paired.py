"""Differences between two subjects on the same images, image by image."""

import math

import numpy as np
from jaxtyping import Bool, Float

from vitscope.measurement.estimate import Estimate
from vitscope.measurement.exact import PairedShare, paired_share


def change_of_shares(before: Bool[np.ndarray, " images"], after: Bool[np.ndarray, " images"]) -> PairedShare:
    """The share of images after less the share before, with how many were gained and lost.

    ``before`` and ``after`` say which of the same images, in the same order, count.
    """
    return paired_share(int((after & ~before).sum()), int((before & ~after).sum()), len(before))


def change_of_means(before: Float[np.ndarray, " images"], after: Float[np.ndarray, " images"]) -> Estimate:
    """The mean of ``after - before`` and the standard error of these differences, over images that have both numbers.

    What is hard for both subjects cancels, so this error is usually far below that of independent samples. NaN if
    there is no such image; the interval is Student's.
    """
    apart = after.astype(np.float64) - before.astype(np.float64)
    apart = apart[np.isfinite(apart)]
    count = len(apart)
    if not count:
        return Estimate(math.nan, math.nan, 0)
    error = float(apart.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    return Estimate(float(apart.mean()), error, count)
