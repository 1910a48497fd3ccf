"""A problem restricted to left weights in given spaces: what passes cost hundreds of times less."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from vitscope.convex.heads import Factors, Heads
from vitscope.convex.problem import Problem


@dataclass(frozen=True, eq=False)
class Restricted:
    r"""The problem on :math:`Z_t = B_t^T C_t`, with orthonormal rows ``B_t``.

    As :math:`\lVert Z_t \rVert_* = \lVert C_t \rVert_*`, it is a convex head again, whose left weights are coordinates
    in ``B_t``. ``features`` are the rows of the basis vectors on all images, computed once. A pass costs ``basis inner
    outputs`` multiply-adds a row of an image, however many heads there are.
    """

    problem: Problem
    bases: tuple[Float[Tensor, "_ _"], ...]
    """``basis left`` of each term."""
    features: tuple[Float[Tensor, "_ _ _ _"], ...]
    """``images rows basis inner`` of each term."""

    def coordinates(self, heads: Heads) -> Heads:
        """Heads in the spaces, by their coordinates."""
        return Heads(tuple(Factors(f.left @ b.T, f.right) for f, b in zip(heads.terms, self.bases, strict=True)))

    def heads(self, coordinates: Heads) -> Heads:
        """The other way round."""
        return Heads(tuple(Factors(f.left @ b, f.right) for f, b in zip(coordinates.terms, self.bases, strict=True)))

    def outputs(self, coordinates: Heads) -> Float[Tensor, "images rows outputs"]:
        """The outputs of all images."""
        return self._outputs(self._readouts(coordinates))

    def value_and_gradient(self, coordinates: Heads) -> tuple[float, Heads]:
        """As :meth:`Problem.value_and_gradient`."""
        problem = self.problem
        outputs = self._outputs(self._readouts(coordinates))
        value = problem.data_loss(outputs) + problem.beta * coordinates.half_squares
        residual = problem.gradient(outputs)
        found: list[Factors] = []
        for factors, term, features in zip(coordinates.terms, problem.terms, self.features, strict=True):
            total = residual[:, :, term.outputs].flatten(0, 1).T @ features.flatten(2).flatten(0, 1)
            image = (
                total.view(total.shape[0], factors.left.shape[1], factors.right.shape[1]).permute(1, 2, 0).flatten(1)
            )
            left = problem.beta * factors.left + factors.right.flatten(1) @ image.T
            right = problem.beta * factors.right + (factors.left @ image).view_as(factors.right)
            found.append(Factors(left, right))
        return value, Heads(tuple(found))

    def narrowed(self, coordinates: Heads, before: Heads) -> tuple["Restricted", Heads]:
        """Restricted to the span of these heads and of those before, and the coordinates there of the former."""
        turns = [_span(f.left, old.left) for f, old in zip(coordinates.terms, before.terms, strict=True)]
        features = [turn @ features for features, turn in zip(self.features, turns, strict=True)]
        bases = [turn @ basis for turn, basis in zip(turns, self.bases, strict=True)]
        turned = [Factors(f.left @ turn.T, f.right) for f, turn in zip(coordinates.terms, turns, strict=True)]
        return Restricted(self.problem, tuple(bases), tuple(features)), Heads(tuple(turned))

    def widened(self, directions: Sequence[Float[Tensor, "_ _"]]) -> "Restricted":
        """With further directions in the spaces. Cost: half a pass of as many heads."""
        new = [outside(some, basis) for some, basis in zip(directions, self.bases, strict=True)]
        seen = _features(self.problem, new)
        features = [torch.cat((old, more), 2) for old, more in zip(self.features, seen, strict=True)]
        bases = [torch.cat((basis, more)) for basis, more in zip(self.bases, new, strict=True)]
        return Restricted(self.problem, tuple(bases), tuple(features))

    def _readouts(self, coordinates: Heads) -> list[Tensor]:
        """``(outputs, basis * inner)`` of each term: so the products run along the memory."""
        lifted = [
            factors.lifted().view(factors.left.shape[1], *factors.right.shape[1:]) for factors in coordinates.terms
        ]
        return [each.permute(2, 0, 1).flatten(1).contiguous() for each in lifted]

    def _outputs(self, readouts: Sequence[Tensor]) -> Tensor:
        problem = self.problem
        outputs = self.features[0].new_zeros(len(problem.tokens), problem.rows, problem.sizes.outputs)
        for term, readout, features in zip(problem.terms, readouts, self.features, strict=True):
            product = readout @ features.flatten(2).flatten(0, 1).T
            outputs[:, :, term.outputs] += product.T.view(*outputs.shape[:2], -1)
        return outputs


def restricted(problem: Problem, heads: Heads) -> Restricted:
    """The problem restricted to the left spaces of these heads. Cost: half a pass."""
    none = [factors.left[:0] for factors in heads.terms]
    empty = Restricted(problem, tuple(none), tuple(_features(problem, none)))
    return empty.widened([factors.left for factors in heads.terms])


def feature_bytes(problem: Problem, counts: Sequence[int]) -> int:
    """What the features of so many basis vectors in each term's space take."""
    inner = sum(count * problem.shape(term)[1] for count, term in zip(counts, problem.terms, strict=True))
    return len(problem.tokens) * problem.rows * inner * problem.dtype.itemsize


def outside(
    directions: Float[Tensor, "new left"], basis: Float[Tensor, "basis left"], tolerance: float = 1e-4
) -> Float[Tensor, "more left"]:
    """An orthonormal basis of what directions add to a space, but for what is nearly in it."""
    precise = torch.nn.functional.normalize(directions.double(), dim=1)
    inside = basis.double()
    rest = precise - (precise @ inside.T) @ inside
    _, values, found = torch.linalg.svd(rest, full_matrices=False)
    found = found[values > tolerance]
    found = found - (found @ inside.T) @ inside
    return torch.linalg.qr(found.T).Q.T.to(basis)


def _span(left: Float[Tensor, "heads basis"], before: Float[Tensor, "old narrower"]) -> Float[Tensor, "span basis"]:
    """An orthonormal basis of coordinates, and of earlier ones from when the space was narrower."""
    own = torch.linalg.qr(left.double().T).Q.T.to(left)
    return torch.cat((own, outside(pad(before, (0, left.shape[1] - before.shape[1])), own)))


def _features(problem: Problem, bases: Sequence[Tensor]) -> list[Tensor]:
    found: list[Tensor] = []
    for term, basis in enumerate(bases):
        inner = problem.shape(problem.terms[term])[1]
        features = basis.new_empty(len(problem.tokens), problem.rows, len(basis), inner)
        if len(basis):
            for at, index in enumerate(problem.chunks):
                features[index] = problem.lens(at, term).rows(basis).transpose(1, 2)
        found.append(features)
    return found
