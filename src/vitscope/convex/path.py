"""Paths: solutions under a falling penalty, each started from the one before."""

from collections.abc import Callable, Sequence

import torch

from vitscope.convex.problem import Problem
from vitscope.convex.pulled import pulled
from vitscope.convex.relu_norm import relu_bound
from vitscope.convex.solver import Solution, Step, solve
from vitscope.numerics.singular import norm_bound


def largest_beta(problem: Problem) -> float:
    r"""The least beta at which no heads are optimal: :math:`\max_t \lVert T_t^*(\nabla \ell(0)) \rVert_2`.

    Cost: that of a certificate.
    """
    none = problem.no_heads()
    residual = problem.gradient(problem.outputs(none))
    if problem.relu:
        return relu_bound(problem, residual, none)[0]
    return max(
        norm_bound(pulled(problem, residual, t), factors.left, torch.Generator().manual_seed(t)).bound
        for t, factors in enumerate(none.terms)
    )


def path(
    problem: Problem,
    betas: Sequence[float],
    *,
    tol: float = 1e-3,
    max_passes: int = 2000,
    solver: str = "auto",
    watch: Callable[[Step], None] | None = None,
    stop: Callable[[Solution], bool] | None = None,
) -> tuple[Solution, ...]:
    """The solutions at these betas, in the order given: largest first is the order that makes warm starts pay.

    It ends early after a solution of which ``stop`` says so, and after an interrupt. ``max_passes`` holds for each.
    """
    problem, start = problem.averaged(), None
    found: list[Solution] = []
    for beta in betas:
        found.append(solve(problem.with_beta(beta), start, solver=solver, tol=tol, max_passes=max_passes, watch=watch))
        start = found[-1].heads
        if found[-1].stopped == "interrupted" or (stop is not None and stop(found[-1])):
            break
    return tuple(found)
