"""The Fourier neural operator head: a global convolution over tokens, whole or in blocks of entries."""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.convex.block import BLOCKS, AbstractBlock, AbstractLens, FeatureLens, Sizes
from vitscope.measurement.errors import UserError
from vitscope.numerics.fourier import restored, transformed


class AbstractFourier(AbstractBlock):
    """Circular convolution over tokens by the fast Fourier transform; what is open is the grid and the groups."""

    grid: tuple[int, int] | None

    def left_size(self, sizes: Sizes) -> int:
        """``tokens dim``: the kernel, token by token."""
        self._check(sizes.tokens)
        return sizes.tokens * sizes.dim

    def inner_size(self, sizes: Sizes) -> int:
        """1."""
        return 1

    def inward(
        self, tokens: Float[Tensor, "batch tokens dim"], left: Float[Tensor, "heads left"], pooled: bool
    ) -> Float[Tensor, "batch heads ..."]:
        r""":math:`\mathrm{circ}(X) u`: at shift ``a``, :math:`\sum_t x_{t+a}^T u_t`."""
        kernels = self._spectrum(left.unflatten(1, tokens.shape[1:]))
        product = torch.einsum("b...d,h...d->bh...", self._spectrum(tokens), kernels.conj())
        return self._signal(product.unsqueeze(-1)).squeeze(-1)

    def inward_adjoint(
        self, tokens: Float[Tensor, "batch tokens dim"], activity: Float[Tensor, "batch heads ..."], pooled: bool
    ) -> Float[Tensor, "heads left"]:
        """The correlation of the tokens and the activity, summed over the batch."""
        weights = self._spectrum(activity.unsqueeze(-1)).squeeze(-1)
        product = torch.einsum("b...d,bh...->h...d", self._spectrum(tokens), weights.conj())
        return self._signal(product).flatten(1)

    def outward(
        self, tokens: Float[Tensor, "batch tokens dim"], activity: Float[Tensor, "batch heads ..."], pooled: bool
    ) -> Float[Tensor, "batch heads rows inner"]:
        """The activity at each shift, or its mean."""
        return (activity.mean(-1, keepdim=True) if pooled else activity).unsqueeze(-1)

    def outward_adjoint(
        self, tokens: Float[Tensor, "batch tokens dim"], rows: Float[Tensor, "batch heads rows inner"], pooled: bool
    ) -> Float[Tensor, "batch heads ..."]:
        """The rows themselves, or an equal share for each shift."""
        count = tokens.shape[1]
        return rows.squeeze(-1).expand(-1, -1, count) / count if pooled else rows.squeeze(-1)

    def lens(
        self, tokens: Float[Tensor, "batch tokens dim"], gate: Float[Tensor, " left"] | None, pooled: bool
    ) -> AbstractLens:
        """For pooled outputs the mean of the shifts that pass, once: ``tokens dim`` features an image."""
        if not pooled:
            return super().lens(tokens, gate, pooled)
        count = tokens.shape[1]
        if gate is None:
            return FeatureLens(tokens.mean(1, keepdim=True).repeat(1, 1, count))
        mask = self.passes(tokens, gate, pooled).to(tokens)
        product = self._spectrum(tokens) * self._spectrum(mask.unsqueeze(-1)).conj()
        return FeatureLens(self._signal(product).flatten(1).unsqueeze(1) / count)

    def _spectrum(self, signal: Tensor) -> Tensor:
        """``(..., tokens, dim)`` to ``(..., *grid, dim)``."""
        grid = self.grid or (signal.shape[-2],)
        axes = tuple(range(-1 - len(grid), -1))
        return transformed(signal.unflatten(-2, grid), axes)

    def _signal(self, spectrum: Tensor) -> Tensor:
        """Back to ``(..., tokens, dim)``; real, as every signal here is."""
        axes = tuple(range(-1 - len(self.grid or (0,)), -1))
        return restored(spectrum, axes).flatten(axes[0], -2)

    def _check(self, tokens: int) -> None:
        if self.grid is not None and prod(self.grid) != tokens:
            raise UserError(
                f"A grid of {self.grid[0]} x {self.grid[1]} was given for {tokens} tokens; give one that holds them "
                "all, or none to take them as one row."
            )


@BLOCKS.add("fno")
@dataclass(frozen=True)
class Fno(AbstractFourier):
    r"""A Fourier neural operator: a convolution over all tokens at once.

    .. math:: f(X) = \sum_h \sigma(\mathrm{circ}(X) u_h) v_h^T

    A circular convolution over all tokens: row ``a`` of ``circ(X)`` is the image with its tokens shifted cyclically by
    ``a``, along the row of tokens or, with ``grid``, along height and width. Computed by the fast Fourier transform.
    Lifted, ``Z`` is ``tokens dim x outputs``. Pooled and without gates all shifts are averaged, and the head equals a
    linear one at ``beta / sqrt(tokens)``. Source: Sahiner et al. 2022, section 3 (FNO).
    """

    grid: tuple[int, int] | None = None
    """Height and width of the tokens; None takes them as one row."""

    name = "fno"


@BLOCKS.add("block-fno")
@dataclass(frozen=True)
class BlockFno(AbstractFourier):
    r"""A block FNO (B-FNO): the entries of a token, and the outputs, split into groups that do not meet.

    .. math:: f(X) = [\,\ldots, \sum_h \sigma(\mathrm{circ}(X^{(b)}) u_{bh}) v_{bh}^T, \ldots\,]

    Each group's ``Z`` is ``tokens dim/B x outputs/B``; where a number does not divide, the first groups get one more.
    Source: Sahiner et al. 2022, section 3; Guibas et al. 2022 (adaptive Fourier neural operators).
    """

    blocks: int = 2
    """Number of groups."""
    grid: tuple[int, int] | None = None
    """Height and width of the tokens; None takes them as one row."""

    name = "block-fno"

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise UserError(f"{self.blocks} blocks of entries were asked for; give 1 or more.")

    def groups(self) -> int:
        """The number of blocks."""
        return self.blocks
