"""The adjoint image of a residual: its norm certifies heads, and its singular vectors become the next heads."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.convex.heads import Heads
from vitscope.convex.problem import Problem
from vitscope.numerics.singular import Operator, Singular, dense, largest

SIDE, ENTRIES = 2048, 2**27
"""The image is written out if its smaller side and its number of entries are at most these.

They trade memory and the ``eigh`` of the smaller side (at most 1 GiB in float64, and 2048 x 2048) against certainty: an
image that is written out has an exact norm, any other a probable bound. Either certificate is valid.
"""


def pull_image(problem: Problem, residual: Float[Tensor, "images rows outputs"], term: int) -> Operator:
    """``T*(R)`` for one term: written out if it is small enough, else applied by passes over the images."""
    left, inner, outputs = problem.shape(problem.terms[term])
    right, seen = inner * outputs, problem.visible_basis(term)
    short = left if seen is None else len(seen)
    if min(short, right) <= SIDE and short * right <= ENTRIES:
        return dense(problem.visible_image(residual, term), seen)

    def apply(rows: Float[Tensor, "rows left"]) -> Float[Tensor, "rows right"]:
        return problem.pull_right(residual, term, rows).flatten(1)

    def adjoint(rows: Float[Tensor, "rows right"]) -> Float[Tensor, "rows left"]:
        return problem.pull_left(residual, term, rows.unflatten(1, (inner, outputs)))

    return Operator(left, right, apply, adjoint)


def largest_pairs(images: Sequence[Operator], heads: Heads, count: int) -> list[Singular]:
    """For each term, those of its singular values that are among the ``count`` largest of all terms; at least one."""
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
