"""Mean and spread of many numbers at once, as a fold that can be split and merged."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitscope.numerics.precision import doubled


@dataclass(frozen=True)
class Moments:
    r"""Count, mean and sum of squared deviations of ``size`` quantities, in float64.

    Merging is the update of Chan, Golub and LeVeque (1979): with :math:`\delta = \bar x_b - \bar x_a`,

    .. math:: \bar x = \bar x_a + \delta n_b / n, \qquad M = M_a + M_b + \delta^2 n_a n_b / n .

    It is associative and commutative up to float64 rounding. A NaN sample counts as not observed; an infinite one makes
    the mean infinite, and its error NaN.
    """

    count: Int[Tensor, " size"]
    mean: Float[Tensor, " size"]
    squares: Float[Tensor, " size"]

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets of samples together."""
        count = self.count + other.count
        share = doubled(other.count) / count.clamp(min=1)
        delta = torch.where((self.count > 0) & (other.count > 0), other.mean - self.mean, 0.0)
        finite = torch.where(self.count > 0, self.mean, other.mean) + delta * share
        mean = torch.where(delta.isfinite(), finite, self.mean + other.mean)  # infinite, or NaN of both infinities
        return Moments(count, mean, self.squares + other.squares + delta.square() * self.count * share)

    @property
    def standard_error(self) -> Float[Tensor, " size"]:
        """Standard error of the mean, sqrt(M / (n - 1) / n); NaN below two samples."""
        count = doubled(self.count)
        return torch.where(self.count > 1, (self.squares / (count - 1) / count).sqrt(), torch.nan)

    @property
    def observed_mean(self) -> Float[Tensor, " size"]:
        """The mean, NaN where nothing was observed."""
        return torch.where(self.count > 0, self.mean, torch.nan)


def moments(samples: Float[Tensor, "samples size"]) -> Moments:
    """The moments of ``samples`` over their first axis; NaN entries are left out."""
    values = doubled(samples)
    seen = ~values.isnan()
    count = seen.sum(0)
    mean = torch.where(seen, values, 0.0).sum(0) / count.clamp(min=1)
    deviation = torch.where(seen, values - mean, 0.0)
    return Moments(count, mean, deviation.square().sum(0))
