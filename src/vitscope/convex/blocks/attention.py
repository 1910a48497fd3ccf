"""The self-attention head, with an elementwise activation in place of the softmax."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Float64
from scipy.stats import spearmanr
from torch import Tensor

from vitscope.convex.block import BLOCKS, AbstractBlock, AbstractLens, Sizes, Term
from vitscope.convex.estimator import AbstractConvexClassifier, AbstractConvexRegressor
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.layer import AbstractHeads
from vitscope.convex.runs.group import GroupWords, exact, group, number
from vitscope.measurement.quantity import Quantity

GRAM_ENTRIES = 64
"""Entries of a token that the maps show."""

_CORRELATION = Quantity(
    "gram_correlation",
    "Rank correlation of Gram weight and block size",
    "1",
    "Spearman's correlation, over pairs of entries, of the mean Gram weight and the block's norm.",
    "Neither.",
)
_GRAM = Quantity(
    "gram_weight",
    "Mean Gram weight",
    "1",
    "How much a pair of entries weighs in an image's sum of linear models, whatever the head does with it.",
    "Neither.",
)
_BLOCK = Quantity(
    "block_norm",
    "Norm of the block",
    "1",
    "How large the head's linear model of that pair of entries is. A pair without weight is not forced to 0.",
    "Neither.",
)
_GRAM_WORDS = GroupWords(
    "Pairs of entries",
    "What does it look at?",
    r"""Lifted, an attention head is a sum of linear models, one for each pair of a key's entry ``k`` and a value's
    entry ``l``, weighted by the (gated) Gram matrix of the image: :math:`f(X) = \sum_{kl} G_{kl}\, X Z^{(kl)}`, with
    :math:`G_{kl} = \sum_t m_t\, x_{tk} x_{tl}` and ``m_t`` the share of queries whose gate key ``t`` passes. The Gram
    weight is the mean of :math:`|G_{kl}|` over at most 256 training images and over gates, the block's norm the
    Frobenius norm of :math:`Z^{(kl)}` over all gates. The nuclear norm makes ``Z`` low in rank, not sparse in blocks:
    a small block is an outcome, not a rule. Maps show the first 64 entries; the correlation is over all.""",
)


@final
class AttentionHeads(AbstractHeads):
    r""":math:`\sum_h \sigma(X W_{1h} X^T)\, X W_{2h}`."""

    def activity(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """``X W_1 X^T``: batch, heads, queries, keys."""
        return tokens.unsqueeze(1) @ weights @ tokens.unsqueeze(1).transpose(2, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """Batch, rows, outputs."""
        attention = self.sigma(tokens)
        if self.pooled:
            attention = attention.mean(2, keepdim=True)
        return (attention @ tokens.unsqueeze(1) @ self.W_2).sum(1)


@BLOCKS.add("attention")
@dataclass(frozen=True)
class AttentionBlock(AbstractBlock):
    r"""Self-attention, with an elementwise activation in place of the softmax.

    .. math:: f(X) = \sum_h \sigma(X U_h X^T)\, X V_h

    Queries and keys are merged into ``U``, values and output into ``V``. Lifted,
    :math:`Z = \sum_h \mathrm{vec}(U_h) \mathrm{vec}(V_h)^T` is ``dim^2 x dim outputs``, and an image is a sum of linear
    models of its tokens, weighted by the entries of its (gated) Gram matrix. Gates are matrices ``H``: the score of two
    tokens passes if :math:`x_a^T H x_t \ge 0`. The activation is elementwise; softmax attention has no such program.
    Source: Sahiner et al. 2022, theorem 3.1; Burer-Monteiro paper (2024), equations (9) and (10).

    Multiply-adds of a pooled head and image: ``dim^2 + 2 tokens dim``, with gates ``tokens dim (dim + 2)``.
    """

    name = "attention"
    layer = AttentionHeads
    weight = r"""The weight of a patch ``t`` is the mean over queries ``q`` of its score under head ``h``:

    .. math:: \frac1s \sum_q \sigma(x_q^T U_h x_t)

    with the gate's zeros if the activation is gated: the head's output is the sum of the patches with these weights,
    read out by ``V_h``."""

    @staticmethod
    def estimators() -> tuple[type[AbstractConvexClassifier], type[AbstractConvexRegressor]]:
        """The two classes below."""
        return ConvexAttentionClassifier, ConvexAttentionRegressor

    def first_shape(self, sizes: Sizes) -> tuple[int, ...]:
        """``dim x dim``: queries by keys."""
        return (sizes.dim, sizes.dim)

    def token_weights(
        self,
        tokens: Float64[Tensor, "images tokens dim"],
        left: Float64[Tensor, " left"],
        passing: Float64[Tensor, "images ..."],
    ) -> Float64[Tensor, "images tokens"]:
        """The mean over queries of each key's score that passes."""
        return (self.inward(tokens, left[None], True)[:, 0] * passing).mean(1)

    def readings(
        self, terms: Sequence[Term], heads: Heads, tokens: Float64[Tensor, "images tokens dim"]
    ) -> Mapping[str, xr.Dataset]:
        """Gram weights and block norms of pairs of entries."""
        return {"convex-gram": gram_group(self, terms, heads, tokens)}

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
        """For pooled outputs, the queries of each key are averaged once and never meet the head one by one."""
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

    def unfold(self, image: Float[Tensor, "pairs outputs query"], inner: int) -> Float[Tensor, "inner outputs left"]:
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
        """Write out every image's map, one entry of keys and some images at a time, to stay in cache.

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

    def unfold(self, image: Float[Tensor, "pairs outputs query"], inner: int) -> Float[Tensor, "inner outputs left"]:
        return _symmetric(image, inner)


def _symmetric(half: Float[Tensor, "pairs outputs query"], inner: int) -> Float[Tensor, "inner outputs left"]:
    """The full matrix over pairs of entries of keys, from its upper triangle."""
    first, second = torch.triu_indices(inner, inner, device=half.device)
    both = half.new_empty(inner, inner, *half.shape[1:])
    both[first, second] = half
    both[second, first] = half
    return both.permute(0, 2, 3, 1).flatten(2)


def _square(left: Tensor, tokens: Tensor) -> Tensor:
    return left.unflatten(1, (tokens.shape[2], tokens.shape[2]))


class ConvexAttentionClassifier(AbstractConvexClassifier):
    r"""Logits :math:`\frac1s \mathbf 1^T \sum_h \sigma(X U_h X^T) X V_h` of an image, by a convex program.

    >>> head = ConvexAttentionClassifier(beta=1e-3).fit(tokens, labels)  # tokens: (images, tokens, dim)
    >>> head.certificate_.relative_gap, head.to_module()

    Parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexClassifier`.
    """

    of = AttentionBlock


class ConvexAttentionRegressor(AbstractConvexRegressor):
    r"""Outputs :math:`\sum_h \sigma(X U_h X^T) X V_h` of every token, or their mean, by a convex program.

    Parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexRegressor`.
    """

    of = AttentionBlock


def gram_group(
    block: AttentionBlock, terms: Sequence[Term], heads: Heads, tokens: Float64[Tensor, "images tokens dim"]
) -> xr.Dataset:
    """The group of Gram weights, means over images and gates, and block norms, over all gates."""
    dim = tokens.shape[2]
    weight = torch.stack([mean_gram(block, term, tokens) for term in terms]).mean(0)
    norm = torch.stack([block_squares(factors, dim) for factors in heads.terms if len(factors)]).sum(0).sqrt()
    correlation = float(cast(Any, spearmanr(weight.flatten().numpy(), norm.flatten().numpy())).statistic)
    shown = min(GRAM_ENTRIES, dim)
    axes = ("key_entry", "value_entry")
    coords = {axis: (axis, np.arange(1, shown + 1), {"long_name": f"entry of the {axis[:-6]}"}) for axis in axes}
    parts = (
        number(_CORRELATION, correlation),
        exact(_GRAM, weight[:shown, :shown].numpy(), axes, coords),
        exact(_BLOCK, norm[:shown, :shown].numpy(), axes, coords),
    )
    return group(_GRAM_WORDS, parts)


def mean_gram(
    block: AttentionBlock, term: Term, tokens: Float64[Tensor, "images tokens dim"]
) -> Float64[Tensor, "dim dim"]:
    """The mean over images of the absolute Gram matrix under a gate."""
    shares = torch.ones(tokens.shape[:2], dtype=tokens.dtype)
    if term.vector is not None:
        shares = torch.cat([block.passes(one[None], term.vector, True).double().mean(1) for one in tokens])
    return torch.einsum("it,itk,itl->ikl", shares, tokens, tokens).abs().mean(0)


def block_squares(factors: Factors, dim: int) -> Float64[Tensor, "dim dim"]:
    """The squared Frobenius norm of every block ``Z^(k,l)`` of an attention head's lifted variable.

    ``Z`` is never formed: the sum over pairs of heads of the products of their columns ``U[:, k]`` and rows ``V[l]``.
    """
    left, right = factors.left.double().unflatten(1, (dim, dim)), factors.right.double()
    keys, values = torch.einsum("hdk,gdk->khg", left, left), torch.einsum("hlo,glo->lhg", right, right)
    return torch.einsum("khg,lhg->kl", keys, values).clamp(min=0)
