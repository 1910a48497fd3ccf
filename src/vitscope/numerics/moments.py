"""Mean and spread of many numbers at once, as a fold that can be split and merged."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitscope.numerics.precision import to_float64


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
        count, mean, delta, weight = _pool(self.count, self.mean, other.count, other.mean)
        return Moments(count, mean, self.squares + other.squares + delta.square() * weight)

    @property
    def standard_error(self) -> Float[Tensor, " size"]:
        """Standard error of the mean, sqrt(M / (n - 1) / n); NaN below two samples."""
        count = to_float64(self.count)
        return torch.where(self.count > 1, (self.squares / (count - 1) / count).sqrt(), torch.nan)

    @property
    def observed_mean(self) -> Float[Tensor, " size"]:
        """The mean, NaN where nothing was observed."""
        return torch.where(self.count > 0, self.mean, torch.nan)


@dataclass(frozen=True, eq=False)
class Scatter:
    r"""Count, mean and scatter :math:`S = \sum_i (x_i - \bar x)(x_i - \bar x)^T` of rows, in float64.

    The moments of ``dim`` quantities with their products; ``dim x dim`` entries are stored for any number of rows.
    """

    count: Int[Tensor, ""]
    mean: Float[Tensor, " dim"]
    products: Float[Tensor, "dim dim"]

    def merge(self, other: "Scatter") -> "Scatter":
        """The scatter of both sets of rows together."""
        count, mean, delta, weight = _pool(self.count, self.mean, other.count, other.mean)
        return Scatter(count, mean, self.products + other.products + torch.outer(delta, delta) * weight)


def _pool(
    count: Int[Tensor, "*n"], mean: Float[Tensor, " size"], more: Int[Tensor, "*n"], other: Float[Tensor, " size"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Count and mean of two sets together, the difference of their means, and its square's weight in ``squares``."""
    total = count + more
    share = to_float64(more) / total.clamp(min=1)
    delta = torch.where((count > 0) & (more > 0), other - mean, 0.0)
    finite = torch.where(count > 0, mean, other) + delta * share
    pooled = torch.where(delta.isfinite(), finite, mean + other)  # infinite, or NaN of both infinities
    return total, pooled, delta, count * share


def scatter(rows: Float[Tensor, "rows dim"]) -> Scatter:
    """The scatter of these rows, none of which may be NaN. Cost: one product of ``rows x dim x dim``."""
    values = to_float64(rows)
    mean = values.mean(0)
    centred = values - mean
    return Scatter(torch.tensor(len(values), device=rows.device), mean, centred.T @ centred)


def moments(samples: Float[Tensor, "samples size"]) -> Moments:
    """The moments of ``samples`` over their first axis; NaN entries are left out."""
    values = to_float64(samples)
    seen = ~values.isnan()
    count = seen.sum(0)
    mean = torch.where(seen, values, 0.0).sum(0) / count.clamp(min=1)
    deviation = torch.where(seen, values - mean, 0.0)
    return Moments(count, mean, deviation.square().sum(0))
