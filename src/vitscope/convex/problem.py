"""A convex head's training problem: loss x operator x penalty, by passes over the images in chunks."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitscope.convex.block import AbstractBlock, AbstractJoint, AbstractLens, GatedLens, Sizes, Term
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.loss import AbstractLoss
from vitscope.convex.tokens import Tokens, images_at_once


@dataclass(frozen=True, eq=False)
class Problem:
    r"""The training of a head: :math:`\min_Z \frac1n \sum_i \ell(f_Z(X_i), y_i) + \beta \sum_t \lVert Z_t \rVert_*`.

    ``f`` is linear in every lifted variable ``Z_t`` (one for each gate and group, ``terms``), and the mean over tokens
    if ``pooled``. With heads ``Z = sum_h u_h vec(V_h)^T`` the penalty is half the sum of their squared weights: once
    there are as many heads as the optimum's rank, training them is equivalent (Sahiner et al. 2022, theorem 3.1). With
    ``relu`` there is one term for each group, every head is under the gate of its own left weights, and the norm is the
    cone-constrained one.

    ``tokens`` may be a memory map: they are read chunk by chunk and converted to ``dtype`` and ``device``. What a block
    prepares for a chunk is kept if all of it takes at most ``memory`` bytes. Operators are applied, as are their
    adjoints; their matrices are never formed.
    """

    tokens: NDArray[np.floating] | Float[Tensor, "images tokens dim"] | Tokens
    loss: AbstractLoss
    block: AbstractBlock
    terms: tuple[Term, ...]
    beta: float
    pooled: bool = True
    relu: bool = False
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    chunk: int | None = None
    memory: int = 2**30
    kept: dict[tuple[int, int], AbstractLens] = field(default_factory=dict[tuple[int, int], AbstractLens], repr=False)

    @property
    def sizes(self) -> Sizes:
        """Tokens an image, entries a token, outputs."""
        return Sizes(self.tokens.shape[1], self.tokens.shape[2], self.loss.outputs)

    @property
    def rows(self) -> int:
        """Rows of an image's outputs."""
        return 1 if self.pooled else self.sizes.tokens

    @property
    def chunks(self) -> tuple[slice, ...]:
        """The images of each chunk: ``chunk`` of them, or as many as stay in cache."""
        size = self.chunk or images_at_once(self.sizes.tokens, self.sizes.dim)
        starts = range(0, len(self.tokens), size)
        return tuple(slice(start, min(start + size, len(self.tokens))) for start in starts)

    def with_beta(self, beta: float) -> "Problem":
        """The problem with another beta; prepared chunks are shared."""
        return replace(self, beta=beta)

    def to(self, dtype: torch.dtype) -> "Problem":
        """The problem in another precision."""
        return self if dtype == self.dtype else replace(self, dtype=dtype, kept={})

    def average_tokens(self) -> "Problem":
        """The problem on mean tokens, in float64, if the block sees only those: tokens are then read only once."""
        if not (self.pooled and self.block.of_mean) or self.tokens.shape[1] == 1:
            return self
        images, tokens, dim = self.tokens.shape
        wide = torch.empty(max(2**19 // (tokens * dim), 1), tokens, dim, dtype=torch.float64)  # kept in cache
        means = torch.empty(images, 1, dim, dtype=torch.float64)
        for start in range(0, images, len(wide)):
            read = self._read(slice(start, min(start + len(wide), images)))
            means[start : start + len(read)] = wide[: len(read)].copy_(read).mean(1, keepdim=True)
        return replace(self, tokens=means, kept={})

    def shape(self, term: Term) -> tuple[int, int, int]:
        """Left, inner and output size of a term's heads."""
        entries, outputs = term.entries.stop - term.entries.start, term.outputs.stop - term.outputs.start
        sizes = Sizes(self.sizes.tokens, entries, outputs)
        return self.block.left_size(sizes), self.block.inner_size(sizes), outputs

    def no_heads(self) -> Heads:
        """The zero solution."""
        found: list[Factors] = []
        for term in self.terms:
            left, inner, outputs = self.shape(term)
            found.append(Factors(self._zeros(0, left), self._zeros(0, inner, outputs)))
        return Heads(tuple(found))

    def outputs(self, heads: Heads) -> Float[Tensor, "images rows outputs"]:
        """The outputs of all images. Cost: one pass."""
        return torch.cat([self._outputs(at, heads, self._lenses(at, heads)) for at in range(len(self.chunks))])

    def data_loss(self, outputs: Float[Tensor, "images rows outputs"]) -> float:
        """The mean loss at these outputs."""
        return float(self.loss.value(outputs.double(), slice(0, len(outputs))))

    def gradient(self, outputs: Float[Tensor, "images rows outputs"]) -> Float[Tensor, "images rows outputs"]:
        """The loss's gradient in the outputs."""
        return self.loss.gradient(outputs, slice(0, len(outputs)))

    def value(self, heads: Heads) -> float:
        """The objective at the lifted variables of these heads. Cost: one pass."""
        norm = heads.half_squares if self.relu else heads.nuclear_norm
        return self.data_loss(self.outputs(heads)) + self.beta * norm

    def value_and_gradient(self, heads: Heads) -> tuple[float, Heads]:
        """The objective with half the squared weights as penalty, and its gradient in the heads. Cost: one pass."""
        value = self.beta * heads.half_squares
        lefts = [self.beta * factors.left for factors in heads.terms]
        rights = [self.beta * factors.right for factors in heads.terms]
        for at, index in enumerate(self.chunks):
            lenses = self._lenses(at, heads)
            rows = self._rows(lenses, heads)
            outputs = self._read_out(rows, heads, index)
            loss, residual = self.loss.value_and_gradient(outputs, index)
            value += float(loss)
            for t in _present(heads):
                part = residual[:, :, self.terms[t].outputs]
                rights[t] = rights[t] + _right(rows[t], part)
                lefts[t] = lefts[t] + lenses[t].adjoint(_spread(part, heads.terms[t].right))
        return value, Heads(tuple(map(Factors, lefts, rights)))

    def pull_left(
        self,
        residual: Float[Tensor, "images rows outputs"],
        term: int,
        rights: Float[Tensor, "heads inner part"],
        own: Float[Tensor, "heads left"] | None = None,
    ) -> Float[Tensor, "heads left"]:
        """``T*(R) V``: the adjoint image of a residual times right weights. Cost: one pass.

        Right weights have the ``part`` of the outputs that the term writes. With ``relu``, ``own`` are the left
        weights whose gates apply.
        """
        part = self.terms[term].outputs
        total = self._zeros(len(rights), self.shape(self.terms[term])[0])
        for at, index in enumerate(self.chunks if len(rights) else ()):
            total += self.lens(at, term, own).adjoint(_spread(residual[index][:, :, part], rights))
        return total

    def pull_right(
        self, residual: Float[Tensor, "images rows outputs"], term: int, lefts: Float[Tensor, "heads left"]
    ) -> Float[Tensor, "heads inner part"]:
        """``T*(R)^T U``: the adjoint image, transposed, times left weights. Cost: one pass."""
        _, inner, outputs = self.shape(self.terms[term])
        total = self._zeros(len(lefts), inner, outputs)
        for at, index in enumerate(self.chunks if len(lefts) else ()):
            rows = self.lens(at, term, lefts if self.relu else None).rows(lefts)
            total += _right(rows, residual[index][:, :, self.terms[term].outputs])
        return total

    def image(self, residual: Float[Tensor, "images rows outputs"], term: int) -> Float[Tensor, "left inner_outputs"]:
        """``T*(R)`` as a matrix."""
        seen, image = self.visible_basis(term), self.visible_image(residual, term)
        return image if seen is None else seen.T @ image

    def visible_image(
        self, residual: Float[Tensor, "images rows outputs"], term: int
    ) -> Float[Tensor, "seen inner_outputs"]:
        """``T*(R)`` in the coordinates of :meth:`seen`. Cost: see :meth:`AbstractLens.image`."""
        left, inner, _ = self.shape(self.terms[term])
        part = self.terms[term].outputs
        lens = self.lens(0, term)
        total = lens.image(residual[self.chunks[0]][:, :, part], left, inner)
        for at, index in enumerate(self.chunks[1:], 1):
            lens = self.lens(at, term)
            total += lens.image(residual[index][:, :, part], left, inner)
        return lens.unfold(total, inner).flatten(0, 1).T

    def visible_basis(self, term: int) -> Float[Tensor, "seen left"] | None:
        """Orthonormal left weights; any others act as their projection on these. None if all act differently."""
        return None if self.relu else self.lens(0, term).visible_basis()

    def lens(self, at: int, term: int, own: Float[Tensor, "heads left"] | None = None) -> AbstractLens:
        """A term's map on the images of a chunk; with ``relu``, under the gates of the left weights ``own``."""
        if self.relu:
            if own is None:
                raise ValueError("A ReLU head's map depends on its own left weights.")
            tokens = self._tokens(at, term)
            return GatedLens(self.block, tokens, self.block.inward(tokens, own, self.pooled) >= 0, self.pooled)
        if (at, term) not in self.kept:
            gate = self.terms[term].vector
            lens = self.block.lens(self._tokens(at, term), None if gate is None else gate.to(self.device), self.pooled)
            if len(self.terms) * len(self.chunks) * _bytes(lens) > self.memory:
                return lens
            self.kept[at, term] = lens
        return self.kept[at, term]

    def joint(self) -> AbstractJoint | None:
        """The map of all terms at once, if the block has one and the images fit in memory."""
        gates = [term.vector for term in self.terms if term.vector is not None]
        entries = {(term.entries.start, term.entries.stop) for term in self.terms}
        size = len(self.tokens) * self.sizes.tokens * (self.sizes.dim + len(gates)) * self.dtype.itemsize
        if len(gates) < len(self.terms) or len(entries) > 1 or size > self.memory:
            return None
        tokens = torch.cat([self._tokens(at, 0) for at in range(len(self.chunks))])
        return self.block.joint(tokens, [gate.to(self.device) for gate in gates], self.pooled)

    def _lenses(self, at: int, heads: Heads) -> Sequence[AbstractLens]:
        return [self.lens(at, t, factors.left) for t, factors in enumerate(heads.terms)]

    def _tokens(self, at: int, term: int) -> Tensor:
        return self._read(self.chunks[at])[:, :, self.terms[term].entries].to(self.device, self.dtype)

    def _read(self, images: slice) -> Tensor:
        chunk = self.tokens[images]
        return torch.from_numpy(chunk.copy()) if isinstance(chunk, np.ndarray) else chunk  # a map may be read-only

    def _outputs(self, at: int, heads: Heads, lenses: Sequence[AbstractLens]) -> Tensor:
        return self._read_out(self._rows(lenses, heads), heads, self.chunks[at])

    def _rows(self, lenses: Sequence[AbstractLens], heads: Heads) -> dict[int, Tensor]:
        return {t: lenses[t].rows(heads.terms[t].left) for t in _present(heads)}

    def _read_out(self, rows: dict[int, Tensor], heads: Heads, index: slice) -> Tensor:
        outputs = self._zeros(index.stop - index.start, self.rows, self.sizes.outputs)
        for t, seen in rows.items():
            outputs[:, :, self.terms[t].outputs] += torch.einsum("bhri,hio->bro", seen, heads.terms[t].right)
        return outputs

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)


def _present(heads: Heads) -> list[int]:
    """Terms that have heads."""
    return [t for t, factors in enumerate(heads.terms) if len(factors)]


def _right(rows: Tensor, residual: Tensor) -> Tensor:
    return torch.einsum("bhri,bro->hio", rows, residual)


def _spread(residual: Tensor, rights: Tensor) -> Tensor:
    return torch.einsum("bro,hio->bhri", residual, rights)


def _bytes(lens: AbstractLens) -> int:
    return sum(value.nbytes for value in vars(lens).values() if isinstance(value, Tensor))
