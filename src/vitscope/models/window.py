"""Windowed attention: how a grid of tokens is cut into windows, and the residual unit that attends within each."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from vitscope.models.attention import Attention
from vitscope.models.stream import Layout, Stream
from vitscope.models.unit import AbstractAttentionHeads, AbstractAttentionUnit, chain, identity


@dataclass(frozen=True)
class Windows:
    """A grid cut into windows: the token in each slot of each window, row by row over the grid; -1 is padding.

    Every token is in exactly one slot.
    """

    tokens: Int[Tensor, "windows slots"]
    padding: int

    def split(self, values: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch windows slots dim"]:
        """The tokens window by window, zeros where there is padding. Cost: one copy."""
        if self.padding:
            values = functional.pad(values, (0, 0, 0, 1))
        index = self.tokens.flatten() % values.shape[1]
        return values.index_select(1, index).unflatten(1, tuple(self.tokens.shape))

    def merge(self, windows: Float[Tensor, "batch windows slots dim"]) -> Float[Tensor, "batch tokens dim"]:
        """The inverse of :meth:`split`; padding is dropped. Cost: one copy."""
        order = self.tokens.flatten().argsort()[self.padding :]
        return windows.flatten(1, 2).index_select(1, order)


def _cells(grid: tuple[int, int], device: torch.device) -> Int[Tensor, "height width"]:
    return torch.arange(grid[0] * grid[1], device=device).view(grid)


def shifted_windows(
    grid: tuple[int, int], size: tuple[int, int], shift: tuple[int, int], device: torch.device
) -> Windows:
    """Neighbouring tokens together: rolled back by ``shift``, padded to a multiple of ``size``, cut (Swin)."""
    bottom, right = -grid[0] % size[0], -grid[1] % size[1]
    cells = _cells(grid, device).roll((-shift[0], -shift[1]), (0, 1))
    cells = functional.pad(cells, (0, right, 0, bottom), value=-1)
    windows = cells.unflatten(1, (-1, size[1])).unflatten(0, (-1, size[0])).transpose(1, 2)
    return Windows(windows.flatten(2).flatten(0, 1), cells.numel() - grid[0] * grid[1])


def strided_windows(grid: tuple[int, int], size: tuple[int, int], device: torch.device) -> Windows:
    """Distant tokens together: each window holds ``size`` tokens, spread evenly over the grid (MaxViT's grid)."""
    cells = _cells(grid, device).unflatten(1, (size[1], -1)).unflatten(0, (size[0], -1))
    return Windows(cells.permute(1, 3, 0, 2).flatten(2).flatten(0, 1), 0)


@dataclass(frozen=True)
class ResidualWindowAttention(AbstractAttentionUnit):
    """``shortcut(x) + after(merge(attention(split(before(x)))))`` on a stream laid out as a map.

    ``heads`` reads the attention module as if each window were an image of its own; ``cut`` gives the windows of a
    stream at the attention's input. ``shortcut`` is the identity unless the unit also downsamples.
    """

    before: tuple[Callable[[Tensor], Tensor], ...]
    heads: AbstractAttentionHeads
    after: tuple[Callable[[Tensor], Tensor], ...]
    cut: Callable[[Stream], Windows]
    shortcut: tuple[Callable[[Tensor], Tensor], ...] = ()

    @property
    def bypass(self) -> Callable[[Stream], Stream] | None:
        """The stream as it came in, if the shortcut is the identity."""
        return identity if all(isinstance(layer, nn.Identity) for layer in self.shortcut) else None

    def project(self, stream: Stream) -> Attention:
        """Queries, keys and values for this stream, window by window."""
        inner = _replace_values(stream, chain(self.before, stream.values))
        windows = self.cut(inner)
        values = windows.split(inner.patches)
        attention = self.heads.project(values.flatten(0, 1), inner)
        q, k, v = (
            tensor[:, 0].unflatten(0, values.shape[:2])
            for tensor in (attention.queries, attention.keys, attention.values)
        )
        tokens = windows.tokens
        return replace(attention, queries=q, keys=k, values=v, query_tokens=tokens, key_tokens=tokens)

    def branch(self, attention: Attention, context: Float[Tensor, "batch windows heads queries width"]) -> Tensor:
        """What the upstream attention module itself returns: the windows of all images, one after the other."""
        return self.heads.combine(attention, context.flatten(0, 1).unsqueeze(1))

    def finish(self, stream: Stream, branch: Tensor) -> Stream:
        """Windows put back in place, and the residual sum."""
        out = _replace_values(stream, chain(self.shortcut, stream.values))
        windows = self.cut(out)
        first = stream.layout is Layout.CHANNELS_FIRST
        slots = branch.flatten(2).transpose(1, 2) if first else branch.flatten(1, -2)
        tokens = windows.merge(slots.unflatten(0, (-1, windows.tokens.shape[0])))
        merged = tokens.transpose(1, 2).unflatten(2, out.grid) if first else tokens.unflatten(1, out.grid)
        return out.with_values(out.values + chain(self.after, merged))


def _replace_values(stream: Stream, values: Tensor) -> Stream:
    height, width = values.shape[2:] if stream.layout is Layout.CHANNELS_FIRST else values.shape[1:3]
    return replace(stream, values=values, grid=(height, width))
