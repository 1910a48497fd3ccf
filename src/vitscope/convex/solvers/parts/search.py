"""The search for new heads: the largest singular vectors of the loss's gradient, term by term."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.convex.certificate import dual_value, relative_gap
from vitscope.convex.heads import Heads
from vitscope.convex.pulled import largest_pairs, pulled
from vitscope.convex.solvers.parts.restricted import Point, Restricted, is_whole
from vitscope.numerics.singular import Singular, dense, largest

SPARE = 4
"""Singular vectors of a term's gradient that are followed beside those of its heads."""
FAINT = 0.5
"""Times beta: singular values up to this are not looked at."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found of one term: singular vectors, where its left space is to grow, and where it is to stay."""

    top: Singular
    directions: Float[Tensor, "new left"]
    kept: Float[Tensor, "rows basis"]
    """Coordinates in the space."""


@dataclass(frozen=True, eq=False)
class Search:
    """What was found at some heads: of every term, and the lower bound of the optimum that it gives."""

    outputs: Float[Tensor, "images rows outputs"]
    primal: float
    dual: float
    terms: Sequence[Found]

    @property
    def certain(self) -> bool:
        """Whether nothing was overlooked; otherwise ``dual`` is an estimate, from above."""
        return all(each.top.probability == 0 for each in self.terms)

    @property
    def gap(self) -> float:
        """The relative gap, certain or estimated."""
        return relative_gap(self.primal, self.dual)


def followed(space: Restricted, here: Heads) -> Search:
    """From the gradient in the space, which is known for nothing: a step of subspace iteration from round to round.

    The largest right singular vectors there, as many as the term has heads and a few more, are pulled through the data.
    What they do not touch is not seen, unless the space is whole. Cost: half a pass of so many heads.
    """
    point = space.at(here)
    found = [
        _whole(space, term, image) if is_whole(space.bases[term]) else _followed(space, point, term)
        for term, image in enumerate(point.images)
    ]
    return _search(space, here, point.outputs, point.loss, found)


def decomposed(space: Restricted, here: Heads, count: int) -> Search:
    """From the gradient ``T*(R)`` itself, of which the ``count`` largest singular vectors are looked at.

    Directions are those above half of beta and the gradient's products with the heads' right weights. Nothing is
    overlooked where it can be written out. Cost: see :func:`~vitscope.convex.pulled.pulled`; hundreds of passes of a
    head, possibly.
    """
    problem, outputs = space.problem, space.outputs(here)
    loss, residual = problem.loss.value_and_gradient(outputs, slice(0, len(outputs)))
    images = [pulled(problem, residual, term) for term in range(len(problem.terms))]
    found: list[Found] = []
    for factors, image, top in zip(here.terms, images, largest_pairs(images, space.heads(here), count), strict=True):
        steepest = top.left[top.values > FAINT * problem.beta]
        directions = torch.cat((steepest, image.adjoint(factors.right.flatten(1))))
        found.append(Found(top, directions, factors.left[:0]))
    return _search(space, here, outputs, float(loss), found)


def _search(space: Restricted, here: Heads, outputs: Tensor, loss: float, found: Sequence[Found]) -> Search:
    problem = space.problem
    primal = loss + problem.beta * here.nuclear_norm
    return Search(outputs, primal, dual_value(problem, outputs, max(each.top.bound for each in found)), found)


def _whole(space: Restricted, term: int, image: Tensor) -> Found:
    top = largest(dense(image), len(image), image[:, :0].T, torch.Generator())
    left = top.left @ space.bases[term]
    return Found(Singular(top.values, left, top.right, top.bound, 0.0), left[:0], top.left[:0])


def _followed(space: Restricted, point: Point, term: int) -> Found:
    factors, image = point.coordinates.terms[term], point.images[term]
    heads, inner = len(factors), factors.right.shape[1]
    inside = largest(dense(image), heads + SPARE, image[:, :0].T, torch.Generator())
    if len(image) == 0:
        return Found(replace(inside, left=space.bases[term], probability=1.0), space.bases[term], inside.left)
    seen = space.problem.pull_left(point.residual, term, inside.right.unflatten(1, (inner, -1)))
    turned, values, left = torch.linalg.svd(seen, full_matrices=False)
    top = Singular(values.double(), left, turned.T @ inside.right, float(values.max()), 1.0)
    return Found(top, left, inside.left[heads:])
