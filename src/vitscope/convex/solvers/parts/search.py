"""The search for new heads: the largest singular vectors of the loss's gradient, term by term."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.convex.certificate import dual_value, relative_gap
from vitscope.convex.heads import Heads
from vitscope.convex.pulled import largest_pairs, pull_image
from vitscope.convex.solvers.parts.restricted import Iterate, Restricted, is_whole
from vitscope.numerics.singular import Singular, dense, largest

SPARE = 4
"""Singular vectors of a term's gradient that are followed besides one for each of its heads.

They are room for directions that no head has yet, at half a pass each a round. A free choice that only affects speed:
what they miss, the decomposition before a certificate finds.
"""
FAINT = 0.5
"""Times beta: singular vectors whose value is up to this are not added to the space.

A new head pays above 1; directions below may come to pay as training goes on. A free choice that only affects speed:
the bound does not depend on it.
"""


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found for one term: singular vectors, and the directions to add to its left space and to keep."""

    top: Singular
    directions: Float[Tensor, "new left"]
    kept: Float[Tensor, "rows basis"]
    """Coordinates in the space."""


@dataclass(frozen=True, eq=False)
class Search:
    """What a search found at some heads, for every term, and the lower bound of the optimum that follows."""

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


def follow_gradient(space: Restricted, here: Heads) -> Search:
    """A search from the gradient in the space, which the pass gives: one step of subspace iteration a round.

    The largest right singular vectors there, as many as the term has heads and a few more, are pulled through the data.
    What they do not touch stays unseen, unless the space is whole. Cost: half a pass of as many heads.
    """
    point = space.at(here)
    found = [
        _whole(space, term, image) if is_whole(space.bases[term]) else _follow_term(space, point, term)
        for term, image in enumerate(point.images)
    ]
    return _search(space, here, point.outputs, point.loss, found)


def decompose_gradient(space: Restricted, here: Heads, count: int) -> Search:
    """A search from the gradient ``T*(R)`` itself: its ``count`` largest singular vectors.

    Directions are those above half of beta and the gradient's products with the heads' right weights. Nothing is
    overlooked if the gradient can be written out. Cost: see :func:`~vitscope.convex.pulled.pulled`; possibly hundreds
    of passes of a head.
    """
    problem, outputs = space.problem, space.outputs(here)
    loss, residual = problem.loss.value_and_gradient(outputs, slice(0, len(outputs)))
    images = [pull_image(problem, residual, term) for term in range(len(problem.terms))]
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


def _follow_term(space: Restricted, point: Iterate, term: int) -> Found:
    factors, image = point.coordinates.terms[term], point.images[term]
    heads, inner = len(factors), factors.right.shape[1]
    inside = largest(dense(image), heads + SPARE, image[:, :0].T, torch.Generator())
    if len(image) == 0:
        return Found(replace(inside, left=space.bases[term], probability=1.0), space.bases[term], inside.left)
    seen = space.problem.pull_left(point.residual, term, inside.right.unflatten(1, (inner, -1)))
    turned, values, left = torch.linalg.svd(seen, full_matrices=False)
    top = Singular(values.double(), left, turned.T @ inside.right, float(values.max()), 1.0)
    return Found(top, left, inside.left[heads:])
