"""Differences between arms repeated over seeds and evaluated on the same images: two sources of error."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64
from scipy.special import stdtrit

from vitscope.measurement.estimate import Estimate


@final
@dataclass(frozen=True)
class Crossed(Estimate):
    r"""A mean difference over seeds and images, :math:`\bar d = \frac1{SN} \sum_{si} d_{si}`.

    ``over_images`` is the standard error over images of the differences averaged over seeds; ``over_seeds`` that over
    seeds of the differences averaged over images, NaN for one seed. With :math:`a` and :math:`b` their squares,
    ``error`` is :math:`\sqrt{a + b}`: at least as large as the standard error over new images and new seeds, since the
    interaction of image and seed counts in both. ``count`` is the number of images.
    """

    over_images: float = math.nan
    over_seeds: float = math.nan
    seeds: int = 1

    def interval(self, rate: float) -> tuple[float, float]:
        r"""The interval of Student's t that misses the difference at this two-sided rate at most.

        Its degrees of freedom are :math:`(a + b)^2 / (\frac{a^2}{N - 1} + \frac{b^2}{S - 1})` (Satterthwaite 1946).
        All numbers for one seed: nothing then distinguishes a lucky run from a better arm.
        """
        a, b = self.over_images**2, self.over_seeds**2
        if self.seeds < 2 or self.count < 2 or not a + b > 0:
            return (-math.inf, math.inf)
        freedom = (a + b) ** 2 / (a**2 / (self.count - 1) + b**2 / (self.seeds - 1))
        reach = float(stdtrit(freedom, 1 - rate / 2)) * self.error
        return (self.mean - reach, self.mean + reach)


def crossed_difference(
    after: Float64[np.ndarray, "seeds images"], before: Float64[np.ndarray, "seeds images"]
) -> Crossed:
    """The mean of ``after - before``; the same row is the same seed, the same column the same image."""
    apart = after - before
    seeds, images = apart.shape
    over_images = float(apart.mean(0).std(ddof=1) / math.sqrt(images)) if images > 1 else math.nan
    over_seeds = float(apart.mean(1).std(ddof=1) / math.sqrt(seeds)) if seeds > 1 else math.nan
    error = math.hypot(over_images, over_seeds if seeds > 1 else 0.0)
    return Crossed(float(apart.mean()), error, images, over_images=over_images, over_seeds=over_seeds, seeds=seeds)
