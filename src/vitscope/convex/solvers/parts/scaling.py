"""Scaling: coordinates for the weights of heads in which the objective curves about alike in all directions."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vitscope.convex.heads import Factors, Heads
from vitscope.convex.solvers.parts.restricted import Restricted

SAMPLE = 1024
"""Moments are taken over about this many rows of images, evenly spaced.

A free choice, as is ``FEW``: moments and curvature only define the coordinates, any of which leave the minimum where it
is, so their errors only affect speed.
"""
FIRST = 0.2
"""Length of L-BFGS's first step in weights whose curvature is 1; in these coordinates the step has length 1.

A length of 1 was tried and overshot in every such direction. A free choice that only affects speed.
"""
FEW = 256
"""The loss's mean curvature, one number, is taken over about this many images, evenly spaced."""


@dataclass(frozen=True, eq=False)
class Scale:
    """One term's scaling: rotations of left weights and of a readout's inner side, and a width along each direction."""

    left: Float[Tensor, "basis basis"]
    inner: Float[Tensor, "inner inner"]
    lefts: Float[Tensor, "heads basis"]
    rights: Float[Tensor, "heads inner 1"]


@dataclass(frozen=True, eq=False)
class Scaling:
    """A linear change of the weights of heads, term by term."""

    scales: tuple[Scale, ...]

    def weights(self, scaled: Heads) -> Heads:
        """From scaled weights to weights."""
        return Heads(
            tuple(
                Factors((f.left * s.lefts) @ s.left.T, s.inner @ (f.right * s.rights))
                for f, s in zip(scaled.terms, self.scales, strict=True)
            )
        )

    def gradient(self, gradient: Heads) -> Heads:
        """The adjoint: the gradient in the scaled weights."""
        return Heads(
            tuple(
                Factors((f.left @ s.left) * s.lefts, (s.inner.T @ f.right) * s.rights)
                for f, s in zip(gradient.terms, self.scales, strict=True)
            )
        )

    def to_scaled(self, weights: Heads) -> Heads:
        """From weights to scaled weights."""
        return Heads(
            tuple(
                Factors((f.left @ s.left) / s.lefts, (s.inner.T @ f.right) / s.rights)
                for f, s in zip(weights.terms, self.scales, strict=True)
            )
        )


def scaling(
    space: Restricted, coordinates: Heads, outputs: Float[Tensor, "images rows outputs"], seed: int = 0
) -> Scaling:
    r"""The scaling at these heads, from second moments of the features along the basis and along the inner side.

    The curvature in a head's left weights is taken as :math:`c\, v_h S_{\mathrm{basis}} + \beta` and in its right ones
    as :math:`c\, w_h S_{\mathrm{inner}} + \beta` (a Kronecker factorisation, Martens and Grosse 2015), with ``v``,
    ``w`` the mean square that the other factor sees, and ``c`` the loss's mean curvature.
    """
    curvature = mean_curvature(space, outputs, seed)
    scales: list[Scale] = []
    for factors, features in zip(coordinates.terms, space.features, strict=True):
        flat = features.flatten(0, 1)
        flat = flat[:: max(len(flat) // SAMPLE, 1)]
        along = _moment(flat.transpose(0, 1)) / len(flat)
        inner = _moment(flat.permute(2, 0, 1)) / len(flat)
        total = float(inner.trace()) or 1.0
        left, right = factors.left.double(), factors.right.double()
        by_left = torch.einsum("hk,km,hm->h", left, along, left) / total
        by_right = torch.einsum("hio,ij,hjo->h", right, inner, right) / total
        lefts, left_axes = _widths(along, curvature * by_right, space.problem.beta)
        rights, inner_axes = _widths(inner, curvature * by_left, space.problem.beta)
        scales.append(Scale(*(part.to(flat) for part in (left_axes, inner_axes, lefts, rights.unsqueeze(-1)))))
    return Scaling(tuple(scales))


def _moment(rows: Float[Tensor, "n ..."]) -> Float64[Tensor, "n n"]:
    flat = rows.flatten(1)
    return (flat @ flat.T).double()


def mean_curvature(space: Restricted, outputs: Float[Tensor, "images rows outputs"], seed: int) -> float:
    """The mean second derivative of the loss, by its gradients' difference along random outputs of some images.

    The difference is over 1e-3 of a unit of outputs, in float64: its error is about 1e-3 by the third derivative and
    1e-13 by rounding, both far below what coordinates need.
    """
    some = slice(0, len(outputs), max(len(outputs) // FEW, 1))
    here, loss = outputs[some].double(), space.problem.loss
    generator = torch.Generator().manual_seed(seed)
    step = 1e-3 * torch.randn(here.shape, generator=generator, dtype=torch.float64).to(here)
    change = loss.gradient(here + step, some) - loss.gradient(here, some)
    return loss.images * outputs.shape[1] * float((change * step).sum() / step.square().sum())


def _widths(moment: Float64[Tensor, "n n"], weights: Float64[Tensor, " heads"], floor: float) -> tuple[Tensor, Tensor]:
    values, axes = torch.linalg.eigh(moment)
    return FIRST * (weights[:, None] * values.clamp(min=0) + floor).rsqrt(), axes
