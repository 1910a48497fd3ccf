"""What flows through a vision model: tokens or a feature map, and what must travel with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Layout(Enum):
    """How a stream's tensor is laid out; the value is its shape."""

    TOKENS = "batch tokens dim"
    CHANNELS_FIRST = "batch channels height width"
    CHANNELS_LAST = "batch height width channels"


@dataclass(frozen=True, eq=False)
class Merged:
    """The record of merging: how many patches each patch token represents, and which token each patch went into.

    ``cells`` are the grid cells of the patches before any were merged; None if they filled the grid.
    """

    sizes: Float[Tensor, "batch patches"]
    members: Int[Tensor, "batch origins"]
    cells: Int[Tensor, "batch origins"] | None = None


@dataclass(frozen=True)
class Stream:
    """The activation between two units.

    ``values`` has the shape that ``layout`` names. In the ``TOKENS`` layout the first ``prefix`` tokens are not
    patches (class, distillation, register tokens) and the others are the cells of ``grid``, row by row.
    ``carried`` holds what else later units need (rotary angles, a saved shortcut), by the model's own names.
    ``class_token`` says whether the first prefix token is a class token; otherwise all of them are registers.
    After tokens were removed, ``kept`` is the grid cell of each patch that is left (for a merged token, of the patch
    it was merged into); after merging, ``merged`` says what the tokens represent. ``follows`` says whether only one
    unit lies between this stream and the one shown before.
    """

    values: Float[Tensor, "..."]
    layout: Layout
    grid: tuple[int, int]
    prefix: int = 0
    carried: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    class_token: bool = True
    kept: Int[Tensor, "batch patches"] | None = None
    merged: Merged | None = None
    follows: bool = True

    def with_values(self, values: Float[Tensor, "..."]) -> "Stream":
        """The same stream with other values of the same layout and grid."""
        return replace(self, values=values)

    @property
    def patches(self) -> Float[Tensor, "batch patches dim"]:
        """Patch tokens, row by row, prefix tokens dropped; a view if the layout allows."""
        if self.layout is Layout.TOKENS:
            return self.values[:, self.prefix :]
        if self.layout is Layout.CHANNELS_LAST:
            return self.values.flatten(1, 2)
        return self.values.flatten(2).transpose(1, 2)

    @property
    def tokens(self) -> Float[Tensor, "batch tokens dim"]:
        """All tokens, prefix first, then the patches row by row."""
        return self.values if self.layout is Layout.TOKENS else self.patches

    @property
    def positions(self) -> Int[Tensor, "batch tokens"] | None:
        """The index of each token before any was removed, prefix first; None if none was."""
        if self.kept is None:
            return None
        prefix = torch.arange(self.prefix, device=self.kept.device).expand(self.kept.shape[0], -1)
        return torch.cat((prefix, self.kept + self.prefix), dim=1)

    @property
    def feature_map(self) -> Float[Tensor, "batch channels height width"]:
        """The patches as a map, prefix tokens dropped; a view if the layout allows."""
        if self.layout is Layout.CHANNELS_FIRST:
            return self.values
        return self.patches.unflatten(1, self.grid).permute(0, 3, 1, 2)


def token_stream(
    values: Float[Tensor, "batch tokens dim"], grid: tuple[int, int], prefix: int = 0, class_token: bool = True
) -> Stream:
    """A stream of ``prefix`` tokens, the first of them a class token or not, then the patches of ``grid``."""
    return Stream(values, Layout.TOKENS, grid, prefix, class_token=class_token)


def map_stream(values: Float[Tensor, "batch channels height width"]) -> Stream:
    """A stream of a feature map, channels first."""
    return Stream(values, Layout.CHANNELS_FIRST, (values.shape[2], values.shape[3]))


def channels_last_stream(values: Float[Tensor, "batch height width channels"]) -> Stream:
    """A stream of a feature map, channels last."""
    return Stream(values, Layout.CHANNELS_LAST, (values.shape[1], values.shape[2]))
