"""Steps on a feature map, by modules that know nothing about streams."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from vitscope.models.stream import Layout, Stream


@dataclass(frozen=True)
class OnMap:
    """A module applied to a feature map in its current layout; the grid follows from the module's output."""

    module: Callable[[Tensor], Tensor]

    def __call__(self, stream: Stream) -> Stream:
        """The stream after the module."""
        values = self.module(stream.values)
        height, width = values.shape[2:] if stream.layout is Layout.CHANNELS_FIRST else values.shape[1:3]
        return replace(stream, values=values, grid=(height, width))
