"""The Fourier neural operator head: a global convolution over tokens."""

from dataclasses import dataclass
from math import prod
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vitscope.convex.block import BLOCKS, AbstractBlock, AbstractLens, FeatureLens, Sizes
from vitscope.convex.estimator import AbstractConvexClassifier, AbstractConvexRegressor
from vitscope.convex.layer import AbstractNeurons
from vitscope.measurement.errors import UserError
from vitscope.numerics.fourier import fourier_transform, inverse_fourier_transform


@final
class FourierHeads(AbstractNeurons):
    r""":math:`\sum_h \sigma(\mathrm{circ}(X)\, w_{1h})\, w_{2h}^T`, as a circular convolution over the grid of tokens.

    ``W_1`` is ``(heads, height, width, dim)``; the grid has one row if the tokens are one row. It uses no Fourier
    transform, which export formats lack: convolutions cost ``tokens^2 dim`` multiply-adds a head and image.
    """

    shift: Tensor
    """The token of the kernel that meets token ``t`` at shift ``a``: shifts, tokens."""

    def __init__(self, W_1: Tensor, W_2: Tensor, gate: Tensor | None, pooled: bool, relu: bool) -> None:
        super().__init__(W_1, W_2, gate, pooled, relu)
        height, width = W_1.shape[1:3]
        row, column = torch.arange(height * width) // width, torch.arange(height * width) % width
        rows, columns = (row - row[:, None]) % height, (column - column[:, None]) % width
        self.register_buffer("shift", rows * width + columns)

    def activity(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """``circ(X) w_1``: batch, heads, shifts."""
        height, width = weights.shape[1], weights.shape[2]
        grid = tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)
        around = torch.cat((grid, grid[:, :, : height - 1]), 2)
        around = torch.cat((around, around[:, :, :, : width - 1]), 3)
        return functional.conv2d(around, weights.permute(0, 3, 1, 2)).flatten(2)

    def gate_activity(self, tokens: Tensor, gate: Tensor) -> Tensor:
        """The gate's activity, by a matrix of all shifts: ONNX Runtime has no convolution in float64."""
        shifted = gate.flatten(0, 1)[self.shift].flatten(1)
        return (tokens.flatten(1) @ shifted.transpose(0, 1)).unsqueeze(1)


class AbstractFourier(AbstractBlock):
    """Circular convolution over tokens by the fast Fourier transform; subclasses set the grid and the groups."""

    grid: tuple[int, int] | None
    layer = FourierHeads

    def first_shape(self, sizes: Sizes) -> tuple[int, ...]:
        """``height x width x dim``; tokens in one row have the height 1."""
        return (*(self.grid or (1, sizes.tokens)), sizes.dim)

    def left_size(self, sizes: Sizes) -> int:
        """``tokens dim``: the kernel, token by token."""
        self._check(sizes.tokens)
        return sizes.tokens * sizes.dim

    def inner_size(self, sizes: Sizes) -> int:
        """1: a row is one number."""
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
        """For pooled outputs, the mean of the shifts that pass, computed once: ``tokens dim`` features an image."""
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
        return fourier_transform(signal.unflatten(-2, grid), axes)

    def _signal(self, spectrum: Tensor) -> Tensor:
        """Back to ``(..., tokens, dim)``; real, as every signal here is."""
        axes = tuple(range(-1 - len(self.grid or (0,)), -1))
        return inverse_fourier_transform(spectrum, axes).flatten(axes[0], -2)

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

    @staticmethod
    def estimators() -> tuple[type[AbstractConvexClassifier], type[AbstractConvexRegressor]]:
        """The two classes below."""
        return ConvexFnoClassifier, ConvexFnoRegressor


@dataclass(kw_only=True, eq=False, repr=False)
class ConvexFnoClassifier(AbstractConvexClassifier):
    r"""Logits :math:`\frac1s \mathbf 1^T \sum_h \sigma(\mathrm{circ}(X) u_h) v_h^T`, by a convex program.

    Other parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexClassifier`.
    """

    grid: tuple[int, int] | None = None
    """Height and width of the tokens; None takes them as one row."""

    of = Fno


@dataclass(kw_only=True, eq=False, repr=False)
class ConvexFnoRegressor(AbstractConvexRegressor):
    r"""Outputs :math:`\sum_h \sigma(\mathrm{circ}(X) u_h) v_h^T` of every token, or their mean, by a convex program.

    Other parameters and attributes are those of :class:`~vitscope.convex.estimator.AbstractConvexRegressor`.
    """

    grid: tuple[int, int] | None = None
    """Height and width of the tokens; None takes them as one row."""

    of = Fno
