"""A problem restricted to left weights in given spaces, in which passes cost hundreds of times less."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.convex.heads import Factors, Heads
from vitscope.convex.problem import Problem
from vitscope.numerics.singular import spectral_norm


@dataclass(frozen=True, eq=False)
class Iterate:
    """Heads in a space, and what one pass there computes: outputs, loss, gradient."""

    coordinates: Heads
    beta: float
    outputs: Float[Tensor, "images rows outputs"]
    loss: float
    residual: Float[Tensor, "images rows outputs"]
    """The loss's gradient ``R`` in the outputs."""
    images: Sequence[Float[Tensor, "_ _"]]
    """``B T*(R)`` of each term, ``basis inner_outputs``."""

    @cached_property
    def value(self) -> float:
        """The objective with half the squared weights as penalty: at least the one with the nuclear norm."""
        return self.loss + self.beta * self.coordinates.half_squares

    @property
    def gradient(self) -> Heads:
        """The gradient of :attr:`value` in the coordinates."""
        found: list[Factors] = []
        for factors, image in zip(self.coordinates.terms, self.images, strict=True):
            left = self.beta * factors.left + factors.right.flatten(1) @ image.T
            right = self.beta * factors.right + (factors.left @ image).view_as(factors.right)
            found.append(Factors(left, right))
        return Heads(tuple(found))

    def compress(self) -> "Iterate":
        """The same point with as few heads as its rank; its value then has the nuclear norm as penalty."""
        return replace(self, coordinates=self.coordinates.compress())

    @cached_property
    def norm(self) -> float:
        """The largest spectral norm of ``B T*(R)``. Cost: that of a small matrix for each term."""
        return max(map(spectral_norm, self.images))

    @property
    def bound(self) -> float:
        """About the lower bound that it gives, from above; an estimate of one if the space is not the whole.

        The dual value is concave in the scale ``s`` of the residual and so at most its tangent at 1, ``loss - s <R,
        f>``; and ``<R, f> = <T*(R), Z>``.
        """
        scale = self.beta / max(self.norm, self.beta)
        pairs = zip(self.coordinates.terms, self.images, strict=True)
        return self.loss - scale * sum(float((f.left @ image * f.right.flatten(1)).sum()) for f, image in pairs)


@dataclass(frozen=True, eq=False)
class Restricted:
    r"""The problem on :math:`Z_t = B_t^T C_t`, with orthonormal rows ``B_t``.

    As :math:`\lVert Z_t \rVert_* = \lVert C_t \rVert_*`, it is a convex head again, whose left weights are coordinates
    in ``B_t``. ``features`` are the rows of the basis vectors on all images, computed once. A pass costs ``2 basis
    inner outputs`` multiply-adds a row of an image, however many heads there are.
    """

    problem: Problem
    bases: tuple[Float[Tensor, "_ _"], ...]
    """``basis left`` of each term."""
    features: tuple[Float[Tensor, "_ _ _ _"], ...]
    """``images rows basis inner`` of each term: views of ``joined``."""
    joined: tuple[Float[Tensor, "_ _"], ...]
    """``images*rows basis*inner`` of all terms that write the same outputs, side by side, so that they are read as one
    matrix."""

    @property
    def whole(self) -> bool:
        """Whether the spaces leave nothing out."""
        return all(map(is_whole, self.bases))

    def coordinates(self, heads: Heads) -> Heads:
        """The coordinates of heads that are in the spaces."""
        return Heads(tuple(Factors(f.left @ b.T, f.right) for f, b in zip(heads.terms, self.bases, strict=True)))

    def heads(self, coordinates: Heads) -> Heads:
        """The heads that have these coordinates."""
        return Heads(tuple(Factors(f.left @ b, f.right) for f, b in zip(coordinates.terms, self.bases, strict=True)))

    def outputs(self, coordinates: Heads) -> Float[Tensor, "images rows outputs"]:
        """The outputs of all images."""
        return self.outputs_of([factors.lift() for factors in coordinates.terms])

    def outputs_of(self, lifted: Sequence[Float[Tensor, "_ _"]]) -> Float[Tensor, "images rows outputs"]:
        """The outputs of all images, of lifted variables ``basis inner_outputs``."""
        problem, written = self.problem, list[Tensor]()
        for (_, terms), joined in zip(_writers(problem), self.joined, strict=True):
            parts = [lifted[t].unflatten(1, (self.features[t].shape[3], -1)).permute(2, 0, 1).flatten(1) for t in terms]
            written.append(torch.cat(parts, 1) @ joined.T)  # in the order of the memory
        outputs = written[0] if len(written) == 1 else torch.cat(written)
        return outputs.T.view(len(problem.tokens), problem.rows, -1)

    def at(self, coordinates: Heads) -> Iterate:
        """The point at these heads. Cost: one pass."""
        outputs = self.outputs(coordinates)
        loss, residual = self.problem.loss.value_and_gradient(outputs, slice(0, len(outputs)))
        return Iterate(coordinates, self.problem.beta, outputs, float(loss), residual, self.images(residual))

    def value_and_gradient(self, coordinates: Heads) -> tuple[float, Heads]:
        """As :meth:`Problem.value_and_gradient`, in coordinates."""
        point = self.at(coordinates)
        return point.value, point.gradient

    def images(self, residual: Float[Tensor, "images rows outputs"]) -> list[Float[Tensor, "_ _"]]:
        """``B T*(R)`` of each term, ``basis inner_outputs``. Cost: half a pass."""
        found: list[Tensor] = [residual] * len(self.bases)
        for (written, terms), joined in zip(_writers(self.problem), self.joined, strict=True):
            total = residual[:, :, written].flatten(0, 1).T @ joined
            sizes = [self.features[t].shape[2:].numel() for t in terms]
            for t, part in zip(terms, total.split(sizes, 1), strict=True):
                found[t] = part.unflatten(1, self.features[t].shape[2:]).permute(1, 2, 0).flatten(1)
        return found

    def narrow(
        self, coordinates: Heads, kept: Sequence[Float[Tensor, "_ _"]], small: int = 0
    ) -> tuple["Restricted", Heads]:
        """The restriction to the span of these heads and of ``kept``, and the heads' coordinates there.

        ``kept`` are rows of coordinates for each term. A term's space stays as it is if it is the whole, or if its
        features are at most ``small`` numbers a row of an image.
        """
        staying = [
            is_whole(basis) or features.shape[2:].numel() <= small
            for basis, features in zip(self.bases, self.features, strict=True)
        ]
        if all(staying):
            return self, coordinates
        turns = [
            torch.eye(len(basis)).to(basis) if stays else _span(f.left, rows)
            for f, rows, basis, stays in zip(coordinates.terms, kept, self.bases, staying, strict=True)
        ]
        bases = [turn @ basis for turn, basis in zip(turns, self.bases, strict=True)]
        turned = [Factors(f.left @ turn.T, f.right) for f, turn in zip(coordinates.terms, turns, strict=True)]

        def fill(term: int, features: Tensor) -> None:
            torch.matmul(turns[term], self.features[term], out=features)

        return _fill_features(self.problem, bases, fill), Heads(tuple(turned))

    def widen(self, directions: Sequence[Float[Tensor, "_ _"]]) -> "Restricted":
        """The restriction to the spaces with further directions. Cost: half a pass of as many heads."""
        new = [outside(some, basis) for some, basis in zip(directions, self.bases, strict=True)]
        if not any(map(len, new)):
            return self
        bases = [torch.cat((basis, more)) for basis, more in zip(self.bases, new, strict=True)]

        def fill(term: int, features: Tensor) -> None:
            features[:, :, : len(self.bases[term])] = self.features[term]
            _look(self.problem, term, new[term], features[:, :, len(self.bases[term]) :])

        return _fill_features(self.problem, bases, fill)


def restrict(problem: Problem, lefts: Sequence[Float[Tensor, "_ _"]]) -> Restricted:
    """The problem restricted to the span of these left weights of each term. Cost: half a pass."""
    bases = [left if is_whole(left) else outside(left, left[:0]) for left in lefts]
    return _fill_features(problem, bases, lambda term, features: _look(problem, term, bases[term], features))


def whole(problem: Problem) -> Restricted:
    """The whole problem, as a restriction to all left weights."""
    lefts = [problem.shape(term)[0] for term in problem.terms]
    return restrict(problem, [torch.eye(left, dtype=problem.dtype, device=problem.device) for left in lefts])


def feature_bytes(problem: Problem, counts: Sequence[int]) -> int:
    """The bytes that features take, for ``counts`` basis vectors in the terms' spaces."""
    inner = sum(count * problem.shape(term)[1] for count, term in zip(counts, problem.terms, strict=True))
    return len(problem.tokens) * problem.rows * inner * problem.dtype.itemsize


def outside(
    directions: Float[Tensor, "new left"], basis: Float[Tensor, "basis left"], tolerance: float = 1e-4
) -> Float[Tensor, "more left"]:
    """An orthonormal basis of what directions add to a space, without what is nearly in it.

    Nearly: what unit directions have outside has a singular value of at most ``tolerance``, a thousand times the
    rounding of float32, near which it would be noise. A singular vector at this angle to a space has a value that is
    larger than those in the space by at most ``tolerance^2 / 2`` of itself, 5e-9: leaving it out costs a gap no more.
    """
    if len(directions) == 0 or is_whole(basis):
        return directions[:0]
    precise = torch.nn.functional.normalize(directions.double(), dim=1)
    inside = basis.double()
    rest = precise - (precise @ inside.T) @ inside
    _, values, found = torch.linalg.svd(rest, full_matrices=False)
    found = found[values > tolerance]
    found = found - (found @ inside.T) @ inside
    return torch.linalg.qr(found.T).Q.T.to(basis)


def is_whole(basis: Float[Tensor, "basis left"]) -> bool:
    """Whether a basis spans the whole space."""
    return basis.shape[0] == basis.shape[1]


def _span(left: Float[Tensor, "heads basis"], more: Float[Tensor, "rows basis"]) -> Float[Tensor, "span basis"]:
    """An orthonormal basis of the span of heads' coordinates and further rows."""
    own = torch.linalg.qr(left.double().T).Q.T.to(left)
    return torch.cat((own, outside(more, own)))


def _writers(problem: Problem) -> list[tuple[slice, list[int]]]:
    """The terms grouped by the outputs that they write, in the order of the outputs."""
    found: dict[tuple[int, int], list[int]] = {}
    for at, term in enumerate(problem.terms):
        found.setdefault((term.outputs.start, term.outputs.stop), []).append(at)
    return [(slice(*written), terms) for written, terms in sorted(found.items())]


def _fill_features(problem: Problem, bases: Sequence[Tensor], fill: Callable[[int, Tensor], None]) -> Restricted:
    """The restriction to these bases; ``fill`` writes each term's features."""
    rows, joined = len(problem.tokens) * problem.rows, list[Tensor]()
    features: list[Tensor] = [bases[0]] * len(bases)
    for _, terms in _writers(problem):
        inner = [problem.shape(problem.terms[t])[1] for t in terms]
        sizes = [len(bases[t]) * entries for t, entries in zip(terms, inner, strict=True)]
        joined.append(bases[0].new_empty(rows, sum(sizes)))
        for t, entries, part in zip(terms, inner, joined[-1].split(sizes, 1), strict=True):
            features[t] = part.view(len(problem.tokens), problem.rows, len(bases[t]), entries)
            fill(t, features[t])
    return Restricted(problem, tuple(bases), tuple(features), tuple(joined))


def _look(problem: Problem, term: int, basis: Tensor, features: Tensor) -> None:
    """Write the rows of basis vectors on all images."""
    if len(basis):
        for at, index in enumerate(problem.chunks):
            features[index] = problem.lens(at, term).rows(basis).transpose(1, 2)
