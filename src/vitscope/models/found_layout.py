"""The layout of an output of unknown layout: the one reading that the movement of its entries confirms."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from math import ceil
from typing import cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.models.bands import agreement, difference, displacement
from vitscope.models.stream import Layout, Stream, token_stream

_PREFIX = 16
"""The largest number of tokens besides the patches that is tried."""
_SURE = 0.5
"""Agreement with the movement that is enough; wrong orders reached up to 0.1 in random and trained models."""
_ALONE = (0.35, 0.1)
"""Agreement that is enough if that of every other order is at most the second number."""
_MARGIN = 0.01
"""By how much any other order must agree less; with a wide receptive field, patches without one row agree 0.02 less."""
_LONGEST = 4
"""The largest aspect ratio of the cells of a map."""
_CONTRARY = 0.25
"""Agreement of another order above which no layout is taken over from something of the same shape."""
_DIFFERENT = 0.3
"""Difference of movement that an order must explain; it is 0.6 after two blocks of random attention."""


@final
@dataclass(frozen=True)
class FoundLayout:
    """Where the feature map is in an output, and how it is laid out.

    ``part`` counts the output's tensors (of tuples, lists, mappings and dataclasses, in their order). ``axes`` permutes
    that tensor's axes into the order that ``layout`` names; ``shape`` is the permuted shape for one image.
    """

    part: int
    axes: tuple[int, ...]
    layout: Layout
    shape: tuple[int, ...]
    grid: tuple[int, int]
    prefix: int = 0

    @property
    def channels(self) -> int:
        """Number of channels of the map, or of each token."""
        return self.shape[0 if self.layout is Layout.CHANNELS_FIRST else -1]

    def is_like(self, other: "FoundLayout") -> bool:
        """Whether it matches the other: tokens of the same shape, or a map that is not much larger."""
        if (self.axes, self.layout, self.prefix) != (other.axes, other.layout, other.prefix):
            return False
        if self.layout is Layout.TOKENS:
            return (self.shape, self.grid) == (other.shape, other.grid)
        return self.grid[0] <= 2 * other.grid[0] and self.grid[1] <= 2 * other.grid[1]

    def stream(self, output: object) -> Stream | None:
        """The feature map in an output; None if the output does not have this layout."""
        tensors = tensors_of(output)
        if self.part >= len(tensors) or tensors[self.part].ndim != len(self.axes):
            return None
        values = tensors[self.part].permute(self.axes)
        shape = tuple(values.shape[1:])
        if self.layout is Layout.TOKENS:
            return token_stream(values, self.grid, self.prefix) if shape == self.shape else None
        first = self.layout is Layout.CHANNELS_FIRST
        if shape[0 if first else -1] != self.channels:
            return None
        height, width = shape[1:] if first else shape[:2]
        return Stream(values, self.layout, (height, width))


def tensors_of(output: object) -> list[Tensor]:
    """The tensors with two or more axes in an output, in its order."""
    if isinstance(output, Tensor):
        return [output] if output.ndim > 1 else []
    if isinstance(output, Mapping):
        inside = list(cast(Mapping[object, object], output).values())
    elif isinstance(output, tuple | list):
        inside = list(cast("tuple[object, ...]", output))
    elif is_dataclass(output) and not isinstance(output, type):
        inside = [getattr(output, field.name) for field in fields(output)]
    else:
        inside = []
    return [tensor for one in inside for tensor in tensors_of(one)]


@dataclass(frozen=True)
class _Order:
    """One way to read a tensor, how well it agrees with the movement, and how differently its positions move."""

    layout: FoundLayout | None
    agreement: float
    difference: float = 0.0

    @property
    def explains(self) -> bool:
        """Whether the positions move alike (nothing to explain), or as this order predicts."""
        return self.difference < _DIFFERENT or self.agreement >= _ALONE[0]


@dataclass(frozen=True)
class Evidence:
    """Observations of an output: the ways to read it, or why there is none."""

    shapes: tuple[tuple[int, ...], ...]
    orders: tuple[_Order, ...]
    reason: str = ""
    known: FoundLayout | None = None
    """The layout, if it is known from elsewhere."""

    @property
    def layout(self) -> FoundLayout | None:
        """The layout of the order that is sure and unrivalled; None if there is none."""
        if self.known is not None:
            return self.known
        best, *others = sorted(self.orders, key=lambda one: -one.agreement) or [_Order(None, 0.0)]
        rival = others[0].agreement if others else -1.0
        sure = best.agreement >= _SURE and rival <= best.agreement - _MARGIN
        alone = best.agreement >= _ALONE[0] and rival <= _ALONE[1]
        return best.layout if sure or alone else None

    def like(self, known: FoundLayout) -> FoundLayout | None:
        """A layout like ``known``, if exactly one tensor can have it and no other order agrees better.

        After attention, and in the last maps of small pictures, movement may be too little local to find a layout.
        Positions that move differently, and not as this layout predicts, point to an unknown order.
        """
        alike = [one for one in self.orders if one.layout and one.layout.is_like(known)]
        if len(alike) != 1 or not alike[0].explains:
            return None
        most = max(alike[0].agreement, _CONTRARY)
        return alike[0].layout if all(one.agreement <= most for one in self.orders) else None

    def with_layout(self, layout: FoundLayout | None) -> "Evidence":
        """These observations with the layout set to a known one."""
        return replace(self, known=layout)

    @property
    def why_not(self) -> str:
        """Why there is no layout."""
        if self.reason:
            return self.reason
        shown = " and ".join(" x ".join(map(str, shape)) for shape in self.shapes)
        several = len({one.layout.part for one in self.orders if one.layout and one.agreement >= _SURE}) > 1
        if several:
            return f"it returns several feature maps ({shown})"
        return f"where the entries of its output ({shown}) lie in the picture could not be determined"


def evidence_of(single: object, pictured: object, count: int, image: tuple[int, int]) -> Evidence:
    """Evidence on the layout, from the outputs for one picture and for ``count`` pictures that differ in one band."""
    one, many = tensors_of(single), tensors_of(pictured)
    shapes = tuple(tuple(tensor.shape) for tensor in many)
    if not many or len(one) != len(many):
        return Evidence(shapes, (), "it returns no tensor with positions")
    orders: list[_Order] = []
    folded, spoiled = False, False
    for part, (before, after) in enumerate(zip(one, many, strict=True)):
        axis = _batch_axis(tuple(before.shape), tuple(after.shape), count)
        if axis is not None and after.is_floating_point():
            spoiled |= not bool(after.isfinite().all())
            orders.extend(_orders(part, after.detach(), axis, image))
        folded |= axis is None and before.numel() * count == after.numel()
    if not orders and folded:
        return Evidence(shapes, (), "it folds several images, or parts of one, into one axis")
    if not orders:
        return Evidence(shapes, (), "it returns no tensor with positions")
    return Evidence(shapes, tuple(orders), "its numbers are not finite for pictures of noise" if spoiled else "")


def _batch_axis(single: tuple[int, ...], many: tuple[int, ...], count: int) -> int | None:
    """The axis of length 1 for one picture and ``count`` for ``count``; None unless all others are equal."""
    if len(single) != len(many):
        return None
    changed = [axis for axis, (one, other) in enumerate(zip(single, many, strict=True)) if one != other]
    return changed[0] if len(changed) == 1 and (single[changed[0]], many[changed[0]]) == (1, count) else None


def _orders(part: int, values: Tensor, batch: int, image: tuple[int, int]) -> Iterator[_Order]:
    """All ways to read a tensor; one with non-finite numbers counts as not moving, so it supports none of them."""
    others = tuple(axis for axis in range(values.ndim) if axis != batch)
    values = values if bool(values.isfinite().all()) else torch.zeros_like(values)
    first = values.permute(batch, *others)
    if first.ndim == len(Layout.CHANNELS_FIRST.value.split()):
        yield from _maps(part, first, (batch, *others), image)
    elif first.ndim == len(Layout.TOKENS.value.split()):
        for channel in (2, 1):
            axes = (batch, *others) if channel == 2 else (batch, others[1], others[0])
            yield from _tokens(part, values.permute(axes), axes, image)


def _maps(part: int, values: Tensor, axes: tuple[int, ...], image: tuple[int, int]) -> Iterator[_Order]:
    """Channels first and channels last, if their cells are not too elongated for the picture."""
    _, one, two, three = values.shape
    for layout, channel, grid in ((Layout.CHANNELS_FIRST, 1, (two, three)), (Layout.CHANNELS_LAST, 3, (one, two))):
        found = FoundLayout(part, axes, layout, (one, two, three), grid)
        long = grid[0] * image[1] / (grid[1] * image[0])
        if grid != (1, 1) and 1 / _LONGEST <= long <= _LONGEST:
            movement = displacement(values, channel)
            yield _Order(found, agreement(movement, *_raster(grid), grid), difference(movement, grid))
        elif grid == (1, 1) and values.shape[channel] > 1:  # a single cell: the only longer axis holds the channels
            yield _Order(found, 1.0)


def _tokens(part: int, values: Tensor, axes: tuple[int, ...], image: tuple[int, int]) -> Iterator[_Order]:
    """Patches row by row with some tokens before them, and rival orders (None), which are compared but never read.

    One rival is patches after a full row of tokens or more, which may be registers or the padding of a picture.
    """
    count, width = values.shape[1:]
    movement = displacement(values, 2)
    for extra in range(min(_PREFIX, count - 2) + 1):
        for grid in _grids(count - extra, image):
            rows, columns = _raster(grid)
            layout = FoundLayout(part, axes, Layout.TOKENS, (count, width), grid, extra)
            found = agreement(movement, _behind(extra, rows), _behind(extra, columns), grid)
            yield _Order(layout if extra < grid[1] else None, found, difference(movement[:, :, extra:], grid))
            if found < _ALONE[0]:
                continue
            down, across = _raster((grid[1], grid[0]))
            yield _Order(None, agreement(movement, _behind(extra, across), _behind(extra, down), grid))
            for ahead in (len(rows) // 2, len(rows)) if extra else ():  # extra tokens between the patches, or after
                order = (_behind(extra, rows, ahead), _behind(extra, columns, ahead))
                yield _Order(None, agreement(movement, *order, grid))


def _raster(grid: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of each cell, row by row."""
    cells = np.arange(grid[0] * grid[1])
    return cells // grid[1], cells % grid[1]


def _behind(extra: int, cells: NDArray[np.int64], ahead: int = 0) -> NDArray[np.int64]:
    """The cells with ``extra`` tokens without a cell (-1) inserted after the first ``ahead``."""
    return np.concatenate([cells[:ahead], np.full(extra, -1), cells[ahead:]])


def _grids(cells: int, image: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Grids of ``cells`` cells that are nearly square in the picture: within one column, or 34 % of the columns."""
    for height in range(2, cells // 2 + 1):
        width = cells // height
        if height * width != cells:
            continue
        side = image[0] / height
        if abs(width - image[1] / side) <= max(1.0, 0.34 * ceil(image[1] / side)):
            yield height, width
