"""The MLP-mixer head: any linear mixing of tokens."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.convex.block import BLOCKS, AbstractBlock, AbstractLens, Sizes


@BLOCKS.add("mixer")
@dataclass(frozen=True)
class Mixer(AbstractBlock):
    r"""Token mixing (MLP-mixer): any matrix over tokens, gates for each entry.

    .. math:: f(X) = \sum_h \sigma(U_h X) V_h

    Lifted, :math:`Z = \sum_h \mathrm{vec}(U_h) \mathrm{vec}(V_h)^T` is ``tokens^2 x dim outputs``. Source: Sahiner et
    al. 2022, section 3 (MLP-mixer).
    """

    name = "mixer"

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
        """Pooled and without gates, only the mean row of the mixing matrix is seen."""
        return _MeanRow(tokens) if pooled and gate is None else super().lens(tokens, gate, pooled)


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


def _square(left: Tensor, tokens: Tensor) -> Tensor:
    return left.unflatten(1, (tokens.shape[1], tokens.shape[1]))
