"""The adjoint image of a residual: its norm certifies heads, and its singular vectors are the next ones."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.convex.heads import Heads
from vitscope.convex.problem import Problem
from vitscope.numerics.singular import Operator, Singular, dense, largest

SIDE, ENTRIES = 2048, 2**27
"""Up to which smaller side, and up to how many entries, the image is written out."""


def pulled(problem: Problem, residual: Float[Tensor, "images rows outputs"], term: int) -> Operator:
    """``T*(R)`` for one term: written out where it is small enough, else known by passes."""
    left, inner, outputs = problem.shape(problem.terms[term])
    right, seen = inner * outputs, problem.seen(term)
    short = left if seen is None else len(seen)
    if min(short, right) <= SIDE and short * right <= ENTRIES:
        return dense(problem.seen_image(residual, term), seen)

    def apply(rows: Float[Tensor, "rows left"]) -> Float[Tensor, "rows right"]:
        return problem.pull_right(residual, term, rows).flatten(1)

    def adjoint(rows: Float[Tensor, "rows right"]) -> Float[Tensor, "rows left"]:
        return problem.pull_left(residual, term, rows.unflatten(1, (inner, outputs)))

    return Operator(left, right, apply, adjoint)


def largest_pairs(images: Sequence[Operator], heads: Heads, count: int) -> list[Singular]:
    """The ``count`` largest singular values over all terms, each with those that are its own, at least one."""
    found = [
        largest(image, count, factors.left, torch.Generator().manual_seed(term))
        for term, (image, factors) in enumerate(zip(images, heads.terms, strict=True))
    ]
    values = torch.cat([each.values for each in found]).sort(descending=True).values
    least = float(values[min(count, len(values)) - 1])
    kept = [max(int((each.values >= least).sum()), 1) for each in found]
    return [
        replace(each, values=each.values[:k], left=each.left[:k], right=each.right[:k])
        for each, k in zip(found, kept, strict=True)
    ]
