"""The self-attention head, with an elementwise activation in place of the softmax."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.convex.block import BLOCKS, AbstractBlock, AbstractLens, Sizes


@BLOCKS.add("attention")
@dataclass(frozen=True)
class Attention(AbstractBlock):
    r"""Self-attention, with an elementwise activation in place of the softmax.

    .. math:: f(X) = \sum_h \sigma(X U_h X^T)\, X V_h

    Queries and keys are merged into ``U``, values and output into ``V``. Lifted,
    :math:`Z = \sum_h \mathrm{vec}(U_h) \mathrm{vec}(V_h)^T` is ``dim^2 x dim outputs``, and an image is a sum of linear
    models of its tokens, weighted by the entries of its (gated) Gram matrix. Gates are matrices ``H``: the score of two
    tokens passes where :math:`x_a^T H x_t \ge 0`. The activation is elementwise; softmax attention has no such program.
    Source: Sahiner et al. 2022, theorem 3.1; Burer-Monteiro paper (2024), equations (9) and (10).

    Multiply-adds of a pooled head and image: ``dim^2 + 2 tokens dim`` without gates, ``tokens dim (dim + 2)`` with.
    """

    name = "attention"

    def left_size(self, sizes: Sizes) -> int:
        """``dim^2``: the matrix of queries and keys, row by row."""
        return sizes.dim**2

    def inner_size(self, sizes: Sizes) -> int:
        """``dim``."""
        return sizes.dim

    def inward(
        self, tokens: Float[Tensor, "batch tokens dim"], left: Float[Tensor, "heads left"], pooled: bool
    ) -> Float[Tensor, "batch heads ..."]:
        """Scores ``X U X^T``, of each query and key."""
        return torch.einsum("bqd,hde,bke->bhqk", tokens, _square(left, tokens), tokens)

    def inward_adjoint(
        self, tokens: Float[Tensor, "batch tokens dim"], activity: Float[Tensor, "batch heads ..."], pooled: bool
    ) -> Float[Tensor, "heads left"]:
        """``X^T A X``."""
        return torch.einsum("bqd,bhqk,bke->hde", tokens, activity, tokens).flatten(1)

    def outward(
        self, tokens: Float[Tensor, "batch tokens dim"], activity: Float[Tensor, "batch heads ..."], pooled: bool
    ) -> Float[Tensor, "batch heads rows inner"]:
        """``A X``, or its mean over queries."""
        return (activity.mean(2, keepdim=True) if pooled else activity) @ tokens.unsqueeze(1)

    def outward_adjoint(
        self, tokens: Float[Tensor, "batch tokens dim"], rows: Float[Tensor, "batch heads rows inner"], pooled: bool
    ) -> Float[Tensor, "batch heads ..."]:
        """``E X^T``, or an equal share of it for each query."""
        activity = rows @ tokens.unsqueeze(1).transpose(-1, -2)
        count = tokens.shape[1]
        return activity.expand(-1, -1, count, -1) / count if pooled else activity

    def lens(
        self, tokens: Float[Tensor, "batch tokens dim"], gate: Float[Tensor, " left"] | None, pooled: bool
    ) -> AbstractLens:
        """For pooled outputs the queries of each key are averaged once; they never meet the head one by one."""
        if not pooled:
            return super().lens(tokens, gate, pooled)
        if gate is None:
            return _MeanQuery(tokens.mean(1), tokens)
        mask = self.passes(tokens, gate, pooled)
        return _QueryOfKey(mask.to(tokens).transpose(1, 2) @ tokens / tokens.shape[1], tokens)


@dataclass(frozen=True, eq=False)
class _MeanQuery(AbstractLens):
    """Pooled attention without gates: every key meets the mean query."""

    query: Float[Tensor, "batch dim"]
    tokens: Float[Tensor, "batch tokens dim"]

    def rows(self, left: Float[Tensor, "heads left"]) -> Float[Tensor, "batch heads 1 dim"]:
        matrices = _square(left, self.tokens)
        asked = (self.query @ matrices.transpose(0, 1).flatten(1)).unflatten(1, (len(matrices), -1))
        return (asked @ self.tokens.transpose(1, 2) @ self.tokens).unsqueeze(2)

    def adjoint(self, rows: Float[Tensor, "batch heads 1 dim"]) -> Float[Tensor, "heads left"]:
        weighted = rows.squeeze(2) @ self.tokens.transpose(1, 2) @ self.tokens
        heads = (self.query.T @ weighted.flatten(1)).unflatten(1, weighted.shape[1:])
        return heads.transpose(0, 1).flatten(1)

    def image(
        self, residual: Float[Tensor, "batch 1 outputs"], left: int, inner: int
    ) -> Float[Tensor, "pairs outputs query"]:
        """Query times Gram matrix, once for an image: ``dim^2 (tokens + dim outputs / 2)`` multiply-adds."""
        first, second = torch.triu_indices(inner, inner, device=residual.device)
        grams = (self.tokens.transpose(1, 2) @ self.tokens)[:, first, second]
        asked = torch.einsum("bo,bk->okb", residual[:, 0], self.query).flatten(0, 1)
        return (asked @ grams).view(residual.shape[2], inner, -1).permute(2, 0, 1)

    def unfolded(self, image: Float[Tensor, "pairs outputs query"], inner: int) -> Float[Tensor, "inner outputs left"]:
        return _symmetric(image, inner)


@dataclass(frozen=True, eq=False)
class _QueryOfKey(AbstractLens):
    """Pooled attention under a gate: every key meets the mean of the queries whose gate it passes."""

    queries: Float[Tensor, "batch tokens dim"]
    tokens: Float[Tensor, "batch tokens dim"]

    def rows(self, left: Float[Tensor, "heads left"]) -> Float[Tensor, "batch heads 1 dim"]:
        scores = [((self.queries @ matrix) * self.tokens).sum(-1) for matrix in _square(left, self.tokens)]
        return (torch.stack(scores, 1) @ self.tokens).unsqueeze(2)

    def adjoint(self, rows: Float[Tensor, "batch heads 1 dim"]) -> Float[Tensor, "heads left"]:
        weights = rows.squeeze(2) @ self.tokens.transpose(1, 2)
        flat = self.tokens.flatten(0, 1)
        heads = [
            (self.queries * weights[:, head].unsqueeze(-1)).flatten(0, 1).T @ flat for head in range(weights.shape[1])
        ]
        return torch.stack(heads).flatten(1)

    def image(
        self, residual: Float[Tensor, "batch 1 outputs"], left: int, inner: int
    ) -> Float[Tensor, "pairs outputs query"]:
        """Every image's map is written out, by an entry of keys and some images at a time, to stay in cache.

        Cost: ``dim^3 (tokens + outputs) / 2`` multiply-adds an image.
        """
        total = residual.new_zeros(residual.shape[2], inner * (inner + 1) // 2, inner)
        for at in range(0, len(residual), 64):
            some = slice(at, at + 64)
            keys, weights = self.tokens[some].transpose(1, 2).contiguous(), residual[some, 0].T.contiguous()
            start = 0
            for entry in range(inner):
                maps = (keys[:, entry : entry + 1] * keys[:, entry:]) @ self.queries[some]
                total[:, start : start + inner - entry] += (weights @ maps.flatten(1)).unflatten(1, (-1, inner))
                start += inner - entry
        return total.transpose(0, 1)

    def unfolded(self, image: Float[Tensor, "pairs outputs query"], inner: int) -> Float[Tensor, "inner outputs left"]:
        return _symmetric(image, inner)


def _symmetric(half: Float[Tensor, "pairs outputs query"], inner: int) -> Float[Tensor, "inner outputs left"]:
    """Both triangles of keys, where the upper one is given."""
    first, second = torch.triu_indices(inner, inner, device=half.device)
    both = half.new_empty(inner, inner, *half.shape[1:])
    both[first, second] = half
    both[second, first] = half
    return both.permute(0, 2, 3, 1).flatten(2)


def _square(left: Tensor, tokens: Tensor) -> Tensor:
    return left.unflatten(1, (tokens.shape[2], tokens.shape[2]))
