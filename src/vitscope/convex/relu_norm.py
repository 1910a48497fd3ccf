r"""The dual norm of a ReLU problem: the largest :math:`\lVert T_u^*(R)^T u \rVert` over unit left weights ``u``.

The gates are those of ``u`` itself, so this is not a spectral norm. If the patterns of gates can be listed, it is found
cone by cone; otherwise it is searched for by climbing from many starts. It is the dual of the cone-constrained nuclear
norm of Sahiner et al. (2022), section 3.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import normalize

from vitscope.convex.arrangements import Arrangements, arrangements, lifted_data, lifted_entries
from vitscope.convex.cone import largest_projection, peaks, spectral_bound
from vitscope.convex.heads import Heads
from vitscope.convex.problem import Problem
from vitscope.numerics.singular import Singular

ENTRIES = 2**20
"""A lifted data matrix is formed, to list its patterns, if it has at most this many entries (8 MiB).

It trades memory for certainty: the certificate of a larger one is heuristic, and says so.
"""
SAME = 1e-6
"""Unit vectors whose inner product is above 1 minus this (an angle of 1.4e-3) count as one local maximum.

It only decides which heads are added together; the bound is taken over all of them.
"""


@dataclass(frozen=True, eq=False)
class ReluNorm:
    """The dual norm of one term of a problem, prepared for any number of residuals."""

    problem: Problem
    term: int
    listed: Arrangements | None
    """All patterns of gates; None if there are too many."""
    data: Float64[Tensor, "rows rank"]
    """The lifted data matrix in the basis of ``listed``."""
    starts: Float[Tensor, "heads left"]
    """Left weights to climb from."""

    def largest(
        self,
        residual: Float[Tensor, "images rows outputs"],
        known: Float[Tensor, "heads left"],
        count: int,
    ) -> Singular:
        """The ``count`` highest local maxima found, and a bound of all.

        ``known`` are further left weights to climb from. If patterns are listed the bound is certain: its
        ``probability`` of failing is 0. Otherwise it is only the highest maximum found, with a probability of 1.
        """
        if self.listed is None:
            lefts = climb(self.problem, residual, self.term, torch.cat((known, self.starts)))
            return self._rank(residual, lefts, count, None)
        weights = self._weights(residual)
        if self.listed.faces:
            found = peaks(self.listed.faces, self.listed.rows, lambda vectors: self._maps(vectors, weights))
            lefts = found.vectors[: 4 * count] @ self.listed.basis.T  # some are the same on several faces
            return self._rank(residual, lefts.to(known), count, float(found.values[:1].sum()))
        maps = self._maps(self.listed.vectors, weights)
        # Climb from the 32 steepest cones too: it only decides which heads are found, not the bound.
        steepest = (maps @ self.listed.vectors[:, :, None]).norm(dim=(1, 2)).topk(min(32, len(maps))).indices
        starts = torch.cat((known, self.starts, (self.listed.vectors[steepest] @ self.listed.basis.T).to(known)))
        lefts = climb(self.problem, residual, self.term, starts)
        if maps.shape[1] > 1:
            return self._rank(residual, lefts, count, spectral_bound(maps))
        found = largest_projection(maps, self.listed.rows, self.listed.positive)
        lefts = torch.cat(((found.vectors @ self.listed.basis.T).to(lefts), lefts))
        return self._rank(residual, lefts, count, float(found.values[0]))

    def planes(self, lefts: Float[Tensor, "heads left"], near: float = 1e-6) -> Float[Tensor, "heads left rank"]:
        """For each head an orthonormal basis, padded with zeros, of the rows of lifted data on which its activity is 0.

        It counts as 0 up to ``near`` times both lengths. Empty if patterns are not listed. ``near`` only decides along
        which faces training moves; neither the norm nor the search for new heads uses it.
        """
        if self.listed is None:
            return torch.zeros(*lefts.shape, 0).to(lefts)
        rows, units = self.listed.rows, normalize(lefts.double().cpu(), dim=1) @ self.listed.basis
        met = ((units @ rows.T).abs() <= near).double()
        values, vectors = torch.linalg.eigh(torch.einsum("hn,nk,nl->hkl", met, rows, rows))
        spanned = values > 1e-10  # of unit rows: far above the rounding of their Gram matrix
        return (self.listed.basis @ (vectors * spanned[:, None])).to(lefts)

    def _maps(self, vectors: Tensor, weights: Tensor) -> Tensor:
        """The map from left weights, in the basis, to right ones, under the gates of each vector."""
        return ((vectors @ self.data.T >= 0).double() @ weights).unflatten(1, (-1, self.data.shape[1]))

    def _weights(self, residual: Tensor) -> Tensor:
        """What each row of the lifted data adds to such a map if it passes: ``(rows, inner outputs rank)``."""
        problem, term = self.problem, self.problem.terms[self.term]
        _, inner, outputs = problem.shape(term)
        basis = torch.eye(inner * outputs, dtype=torch.float64).unflatten(1, (inner, outputs))
        rows = torch.einsum("bro,hio->bhri", residual[:, :, term.outputs].double().cpu(), basis)
        tokens = torch.as_tensor(problem.tokens[:])[:, :, term.entries].to("cpu", torch.float64)
        back = problem.block.outward_adjoint(tokens, rows, problem.pooled).transpose(0, 1).flatten(1)
        return (back.T[:, :, None] * self.data[:, None]).flatten(1)

    def _rank(self, residual: Tensor, lefts: Tensor, count: int, sure: float | None) -> Singular:
        rights = self.problem.pull_right(residual, self.term, lefts).flatten(1)
        values, order = rights.norm(dim=1).sort(descending=True)
        lefts, kept = lefts[order], list[int]()
        for at in range(len(lefts)):
            if len(kept) < count and not bool((lefts[kept] @ lefts[at] > 1 - SAME).any()):
                kept.append(at)
        found = normalize(rights[order][kept], dim=1)
        top = max(float(values[:1].sum()), sure or 0.0)
        return Singular(values[kept].double().cpu(), lefts[kept], found, top, 1.0 if sure is None else 0.0)


def relu_norms(problem: Problem, limit: int = 2**14, samples: int = 64, seed: int = 0) -> tuple[ReluNorm, ...]:
    """The dual norm of every term. Patterns are listed if at most ``limit``; ``seed`` draws ``samples`` random starts.

    Both are free choices: ``limit`` trades time for certainty, ``samples`` time for what a search finds. A certificate
    from a search alone is called heuristic.
    """
    found: list[ReluNorm] = []
    generator = torch.Generator().manual_seed(seed)
    for index, term in enumerate(problem.terms):
        size = problem.shape(term)[0]
        starts = normalize(torch.randn(samples, size, generator=generator, dtype=torch.float64), dim=1)
        listed, data = None, torch.zeros(0, 0, dtype=torch.float64)
        if lifted_entries(problem, index) <= ENTRIES:
            data = lifted_data(problem, index)
            listed = arrangements(data, limit, samples, seed)
            data = data @ listed.basis
            if not listed.complete or not len(listed.rows):
                starts, listed = listed.vectors @ listed.basis.T, None
        found.append(ReluNorm(problem, index, listed, data, starts.to(problem.device, problem.dtype)))
    return tuple(found)


def climb(
    problem: Problem,
    residual: Float[Tensor, "images rows outputs"],
    term: int,
    lefts: Float[Tensor, "heads left"],
    steps: int = 60,
) -> Float[Tensor, "heads left"]:
    """Unit left weights, each moved uphill to a local maximum: the power method, shortened if gates change.

    A step is taken only if it gains: the next is then twice as long, up to the power method's, otherwise a quarter as
    long. It ends when no start gains 1e-10 and all steps are below 1e-6 (ten in vain), or after ``steps``. All of these
    only decide what a search finds: a bound from listed patterns does not depend on them. Cost: two passes a step.
    """
    lefts = normalize(lefts, dim=1)
    rights = problem.pull_right(residual, term, lefts)
    lengths, share = rights.flatten(1).norm(dim=1), torch.ones(len(lefts), 1).to(lefts)
    for _ in range(steps):
        slopes = normalize(problem.pull_left(residual, term, rights, lefts), dim=1)
        tried = normalize((1 - share) * lefts + share * slopes, dim=1)
        found = problem.pull_right(residual, term, tried)
        reached = found.flatten(1).norm(dim=1)
        better = reached > lengths
        gain = float(((reached - lengths) / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)).max())
        lefts = torch.where(better[:, None], tried, lefts)
        rights = torch.where(better[:, None, None], found, rights)
        lengths = torch.where(better, reached, lengths)
        share = torch.where(better[:, None], (2 * share).clamp(max=1), share / 4)
        if gain < 1e-10 and float(share.max()) < 1e-6:
            break
    return lefts


def relu_bound(
    problem: Problem, residual: Float[Tensor, "images rows outputs"], heads: Heads
) -> tuple[float, Literal["exact", "bound", "heuristic"]]:
    """The dual norm over all terms, and how certain it is: attained, an upper bound, or only what a search found."""
    norms = relu_norms(problem)
    tops = [norm.largest(residual, part.left, 1) for norm, part in zip(norms, heads.terms, strict=True)]
    above, reached = max(top.bound for top in tops), max(float(top.values[0]) for top in tops)
    if any(top.probability > 0 for top in tops):
        return above, "heuristic"
    return above, "exact" if above <= reached * (1 + 1e-9) else "bound"  # up to cone.ROUNDING
