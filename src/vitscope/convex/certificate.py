"""Certificates: at most how far heads are from the optimum of their problem, whatever trained them."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor

from vitscope.convex.heads import Heads
from vitscope.convex.problem import Problem
from vitscope.convex.pulled import pull_image
from vitscope.convex.relu_norm import relu_bound
from vitscope.numerics.singular import norm_bound

Kind = Literal["exact", "bound", "probable", "heuristic"]
"""How certain a certificate is.

``exact``: the dual norm was computed. ``bound``: an upper bound of it was. ``probable``: an upper bound that fails with
a probability of 1e-6 at most. ``heuristic``: the norm was only searched for, and the true gap may be larger.
"""


@dataclass(frozen=True)
class Certificate:
    r"""A point's objective and a lower bound of the optimum, from the same point.

    With ``R`` the loss's gradient in the outputs, ``a R`` is dual feasible for every scale with :math:`a \max_t \lVert
    T_t^*(R) \rVert_2 \le \beta`, and the best such scale gives ``dual``. At the optimum the scale is 1 and both values
    meet. Source: Sahiner et al. 2024 (Burer-Monteiro), theorem 3.4, by Fenchel's inequality.
    """

    primal: float
    """Mean loss plus beta times the nuclear norms."""
    dual: float
    """A lower bound of the optimum."""
    kind: Kind
    slack: float
    """The largest spectral norm of ``T^*(R)`` over beta: 1 at the optimum, at most 1 if the optimum has no heads."""
    heads: int
    stuck: bool = False
    """Whether the solver found no further way down in its precision."""

    @property
    def gap(self) -> float:
        """``primal - dual``: at least the distance to the optimum; not negative up to rounding."""
        return self.primal - self.dual

    @property
    def relative_gap(self) -> float:
        """``gap / dual``; infinity if the lower bound is not positive, 0 if both values are 0."""
        return relative_gap(self.primal, self.dual)

    @property
    def advice(self) -> str:
        """What the certificate says, and what to do if that is not enough."""
        said = {
            "exact": "",
            "bound": "",
            "probable": " (this fails with a probability of at most one in a million)",
            "heuristic": " as far as a search could tell",
        }[self.kind]
        share = "by an unknown share" if self.relative_gap == inf else f"by at most {100 * self.relative_gap:.3g} %"
        text = f"The objective is above the global optimum {share}{said}."
        if self.stuck:
            return f"{text} The solver found no further way down in this precision: solve in float64."
        if self.relative_gap > 1e-2 and self.slack > 1:  # a gap of 1 % needs no advice: accuracy does not see it
            text += (
                f" Another head would still lower it (slack {self.slack:.3g}): allow more passes or use a larger "
                "beta; if training has converged, this point is spurious, and more heads lead away from it."
            )
        return text


def relative_gap(primal: float, dual: float) -> float:
    """``(primal - dual) / dual``; infinity if the lower bound is not positive, 0 if it is reached."""
    if primal <= dual:
        return 0.0
    return (primal - dual) / dual if dual > 0 else inf


def certify(problem: Problem, heads: Heads) -> Certificate:
    """The certificate of any heads, in float64 whatever the problem's precision and whatever trained them.

    Cost: one pass for the heads, then the dual norm: see :func:`vitscope.convex.pulled.pulled` and, with ``relu``,
    :class:`vitscope.convex.relu_norm.ReluNorm`.
    """
    precise = problem.to(torch.float64)
    heads = heads.to(precise.dtype, precise.device)
    outputs = precise.outputs(heads)
    loss, residual = precise.loss.value_and_gradient(outputs, slice(0, len(outputs)))
    if precise.relu:
        norm, kind = relu_bound(precise, residual, heads)
        primal = float(loss) + precise.beta * heads.balanced_half_squares
        return Certificate(primal, dual_value(precise, outputs, norm), kind, norm / problem.beta, heads.count)
    primal = float(loss) + precise.beta * heads.nuclear_norm
    found = [
        norm_bound(pull_image(precise, residual, term), factors.left, torch.Generator().manual_seed(term))
        for term, factors in enumerate(heads.terms)
    ]
    norm = max(each.bound for each in found)
    kind: Kind = "probable" if any(each.probability > 0 for each in found) else "exact"
    return Certificate(primal, dual_value(precise, outputs, norm), kind, norm / problem.beta, heads.count)


def largest_beta(problem: Problem) -> float:
    r"""The least beta at which having no heads is optimal: :math:`\max_t \lVert T_t^*(\nabla \ell(0)) \rVert_2`.

    Cost: that of a certificate.
    """
    none = problem.no_heads()
    residual = problem.gradient(problem.outputs(none))
    if problem.relu:
        return relu_bound(problem, residual, none)[0]
    return max(
        norm_bound(pull_image(problem, residual, t), factors.left, torch.Generator().manual_seed(t)).bound
        for t, factors in enumerate(none.terms)
    )


def dual_value(problem: Problem, outputs: Float[Tensor, "images rows outputs"], norm: float) -> float:
    """The best dual value of the loss's gradient at these outputs; ``norm`` is the largest of its adjoint images."""
    feasible = problem.beta / norm if norm > 0 else inf
    curve = problem.loss.dual(outputs, slice(0, len(outputs)))
    return _greatest(curve, min(problem.loss.largest_scale, feasible))


def _greatest(value: Callable[[float], float], largest: float) -> float:
    """The maximum of a concave function from 0 to ``largest``, which may be infinite, or a value just below it.

    The function is 0 at 0. If it does not fall over the last ``d = 1e-4`` of the way to ``h``, its maximum is there and
    no higher than the chord from 0 through ``(1 - d) h``: at most ``d / (1 - d)`` of the value at ``h`` above that
    value, which is therefore returned. Any value is a lower bound of the problem's optimum.
    """
    high = min(1.0, largest)
    while high < largest and value(min(2 * high, largest)) > value(high):
        high = min(2 * high, largest)
    high = min(2 * high, largest)
    if value(high) >= value((1 - 1e-4) * high):
        return value(high)

    def below(scale: float) -> float:
        return -value(scale)

    inside = minimize_scalar(below, bounds=(0.0, high), method="bounded")
    return max(value(high), -float(inside.fun), value(0.0))
