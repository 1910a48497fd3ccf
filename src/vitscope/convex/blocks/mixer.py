"""The MLP-mixer head: any linear mixing of tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vitscope.convex.block import BLOCKS, AbstractBlock, AbstractLens, Sizes
from vitscope.convex.estimator import AbstractConvexClassifier, AbstractConvexRegressor
from vitscope.convex.layer import AbstractHeads


@final
class MixerHeads(AbstractHeads):
    r""":math:`\sum_h \sigma(W_{1h} X)\, W_{2h}`."""

    def activity(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """``W_1 X``: batch, heads, tokens, entries."""
        return weights @ tokens.unsqueeze(1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Batch, rows, outputs."""
        mixed = self.sigma(tokens)
        if self.pooled:
            mixed = mixed.mean(2, keepdim=True)
        return (mixed @ self.W_2).sum(1)


@BLOCKS.add("mixer")
@dataclass(frozen=True)
class Mixer(AbstractBlock):
    r"""Token mixing (MLP-mixer): any matrix over tokens, gates for each entry.

    .. math:: f(X) = \sum_h \sigma(U_h X) V_h

    Lifted, :math:`Z = \sum_h \mathrm{vec}(U_h) \mathrm{vec}(V_h)^T` is ``tokens^2 x dim outputs``. Source: Sahiner et
    al. 2022, section 3 (MLP-mixer).
    """

    name = "mixer"
    layer = MixerHeads
    weight = r"""The weight of a patch ``t`` is the mean over output tokens ``a`` (and, under gates, entries ``k``) of
    the mixing matrix:

    .. math:: \frac1{s d} \sum_{a, k} M_{ak} U_h[a, t]

    Without gates it is the same for every image."""

    @staticmethod
    def estimators() -> tuple[type[AbstractConvexClassifier], type[AbstractConvexRegressor]]:
        """The two classes below."""
        return ConvexMixerClassifier, ConvexMixerRegressor

    def first_shape(self, sizes: Sizes) -> tuple[int, ...]:
        """``tokens x tokens``: output tokens by input tokens."""
        return (sizes.tokens, sizes.tokens)

    def token_weights(
        self,
        tokens: Float64[Tensor, "images tokens dim"],
        left: Float64[Tensor, " left"],
        passing: Float64[Tensor, "images ..."],
    ) -> Float64[Tensor, "images tokens"]:
        """The mean column of the mixing matrix, of the entries that pass."""
        return torch.einsum("iad,at->it", passing, _square(left[None], tokens)[0]) / tokens[0].numel()

    def left_size(self, sizes: Sizes) -> int:
        """``tokens^2``: the mixing matrix, row by row."""
        return sizes.tokens**2

    def inner_size(self, sizes: Sizes) -> int:
        """``dim``."""
        return sizes.dim

    def inward(
        self, tokens: Float[Tensor, "batch tokens dim"], left: Float[Tensor, "heads left"], pooled: bool
    ) -> Float[Tensor, "batch heads ..."]:
        """``U X``."""
        return torch.einsum("hat,btd->bhad", _square(left, tokens), tokens)

    def inward_adjoint(
        self, tokens: Float[Tensor, "batch tokens dim"], activity: Float[Tensor, "batch heads ..."], pooled: bool
    ) -> Float[Tensor, "heads left"]:
        """``A X^T``."""
        return torch.einsum("bhad,btd->hat", activity, tokens).flatten(1)

    def outward(
        self, tokens: Float[Tensor, "batch tokens dim"], activity: Float[Tensor, "batch heads ..."], pooled: bool
    ) -> Float[Tensor, "batch heads rows inner"]:
        """The activity itself, or its mean over tokens."""
        return activity.mean(2, keepdim=True) if pooled else activity

    def outward_adjoint(
        self, tokens: Float[Tensor, "batch tokens dim"], rows: Float[Tensor, "batch heads rows inner"], pooled: bool
    ) -> Float[Tensor, "batch heads ..."]:
        """The rows themselves, or an equal share for each token."""
        count = tokens.shape[1]
        return rows.expand(-1, -1, count, -1) / count if pooled else rows

    def lens(
        self, tokens: Float[Tensor, "batch tokens dim"], gate: Float[Tensor, " left"] | None, pooled: bool
    ) -> AbstractLens:
        """A cheaper map for pooled outputs: :class:`_MeanRow` without gates, :class:`_Products` under a gate."""
        if not pooled:
            return super().lens(tokens, gate, pooled)
        if gate is None:
            return _MeanRow(tokens)
        mask = self.passes(tokens, gate, pooled).to(tokens) / tokens.shape[1]
        return _Products(mask.transpose(1, 2).contiguous(), tokens.transpose(1, 2).contiguous())


@dataclass(frozen=True, eq=False)
class _MeanRow(AbstractLens):
    """Pooled mixing without gates: the tokens weighted by the mean row of the matrix."""

    tokens: Float[Tensor, "batch tokens dim"]

    def rows(self, left: Float[Tensor, "heads left"]) -> Float[Tensor, "batch heads 1 dim"]:
        return (_square(left, self.tokens).mean(1) @ self.tokens).unsqueeze(2)

    def adjoint(self, rows: Float[Tensor, "batch heads 1 dim"]) -> Float[Tensor, "heads left"]:
        count = self.tokens.shape[1]
        row = torch.einsum("bhd,btd->ht", rows.squeeze(2), self.tokens) / count
        return row.repeat(1, count)

    def image(
        self, residual: Float[Tensor, "batch 1 outputs"], left: int, inner: int
    ) -> Float[Tensor, "inner outputs tokens"]:
        """The image in the mean row only: ``tokens dim outputs`` multiply-adds an image."""
        total = residual[:, 0].T @ self.tokens.flatten(1)
        return total.unflatten(1, self.tokens.shape[1:]).permute(2, 0, 1)

    def unfold(self, image: Float[Tensor, "inner outputs tokens"], inner: int) -> Float[Tensor, "inner outputs seen"]:
        return image / image.shape[2] ** 0.5

    def visible_basis(self) -> Float[Tensor, "tokens left"]:
        """Matrices whose rows are all equal."""
        count = self.tokens.shape[1]
        return torch.eye(count).to(self.tokens).repeat(1, count) / count**0.5


@dataclass(frozen=True, eq=False)
class _Products(AbstractLens):
    """Pooled mixing under a gate: a row's entry is a linear map of the products of its mask and its tokens.

    A head and image take ``tokens^2 dim`` multiply-adds, in one matrix product over some images at a time.
    """

    mask: Float[Tensor, "batch dim tokens"]
    entries: Float[Tensor, "batch dim tokens"]

    def rows(self, left: Float[Tensor, "heads left"]) -> Float[Tensor, "batch heads 1 dim"]:
        return torch.cat([products @ left.T for _, products in self._parts()]).transpose(1, 2).unsqueeze(2)

    def adjoint(self, rows: Float[Tensor, "batch heads 1 dim"]) -> Float[Tensor, "heads left"]:
        total = rows.new_zeros(rows.shape[1], self.mask.shape[2] ** 2)
        for index, products in self._parts():
            total += rows[index, :, 0].transpose(0, 1).flatten(1) @ products.flatten(0, 1)
        return total

    def image(
        self, residual: Float[Tensor, "batch 1 outputs"], left: int, inner: int
    ) -> Float[Tensor, "inner outputs left"]:
        """``tokens^2 dim outputs`` multiply-adds an image."""
        total = residual.new_zeros(residual.shape[2], inner * left)
        for index, products in self._parts():
            total += residual[index, 0].T @ products.flatten(1)
        return total.unflatten(1, (inner, left)).transpose(0, 1)

    def _parts(self) -> Iterator[tuple[slice, Float[Tensor, "some dim left"]]]:
        batch, dim, tokens = self.mask.shape
        size = max(2**20 // (dim * tokens**2), 1)
        for start in range(0, batch, size):
            index = slice(start, start + size)
            yield index, (self.mask[index].unsqueeze(3) * self.entries[index].unsqueeze(2)).flatten(2)


def _square(left: Tensor, tokens: Tensor) -> Tensor:
    return left.unflatten(1, (tokens.shape[1], tokens.shape[1]))


class ConvexMixerClassifier(AbstractConvexClassifier):
    r"""Logits :math:`\frac1s \mathbf 1^T \sum_h \sigma(U_h X) V_h` of an image, by a convex program.

    Parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexClassifier`.
    """

    of = Mixer


class ConvexMixerRegressor(AbstractConvexRegressor):
    r"""Outputs :math:`\sum_h \sigma(U_h X) V_h` of every token, or their mean, by a convex program.

    Parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexRegressor`.
    """

    of = Mixer
