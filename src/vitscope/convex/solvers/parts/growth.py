"""Growth: the heads that would lower the objective fastest, at the size that lowers it most."""

from collections.abc import Sequence
from functools import cache

from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor

from vitscope.convex.heads import Factors, Heads
from vitscope.convex.problem import Problem
from vitscope.numerics.singular import Singular


def fresh(problem: Problem, tops: Sequence[Singular]) -> Heads:
    """Heads along the singular vectors whose value is above beta; each side's square is the relative excess."""
    new: list[Factors] = []
    for term, top in zip(problem.terms, tops, strict=True):
        excess = (top.values / problem.beta - 1).clamp(min=0)
        chosen = excess > 0
        roots = excess[chosen].sqrt().to(top.left)[:, None]
        right = (-roots * top.right[chosen]).unflatten(1, problem.shape(term)[1:])
        new.append(Factors(roots * top.left[chosen], right))
    return Heads(tuple(new))


def scale_heads(
    problem: Problem,
    new: Heads,
    step: Float[Tensor, "images rows outputs"],
    outputs: Float[Tensor, "images rows outputs"],
) -> Heads:
    """New heads, whose outputs are ``step``, scaled to lower the objective most while all others stay.

    Doubling or halving brackets the best scale between half and twice ``high``; it is then found to ``high / 20``, at
    most a tenth of itself, which on a parabola loses at most a hundredth of the decrease
    (checked in tests/laws/test_convex_growth_laws.py). Training goes on from there, so this only affects speed.
    """
    price, index = problem.beta * new.half_squares, slice(0, len(outputs))

    @cache
    def value(scale: float) -> float:
        return float(problem.loss.value(outputs + scale * step, index)) + scale * price

    high, factor = 1.0, 2.0 if value(2.0) < value(1.0) else 0.5
    moves = bool(step.isfinite().all() and step.any())
    while moves and value(factor * high) < value(high):
        high *= factor
    best = float(minimize_scalar(value, bounds=(0.0, 2 * high), method="bounded", options={"xatol": high / 20}).x)
    return Heads(tuple(Factors(best**0.5 * factors.left, best**0.5 * factors.right) for factors in new.terms))


def grow_heads(
    problem: Problem, heads: Heads, outputs: Float[Tensor, "images rows outputs"], tops: Sequence[Singular]
) -> Heads:
    """These heads and the new ones. Cost: half a pass of the new ones."""
    new = fresh(problem, tops)
    return heads.join(scale_heads(problem, new, problem.outputs(new), outputs).terms) if new.count else heads
