"""What flows through a vision model: tokens or a feature map, and what must travel with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from jaxtyping import Float
from torch import Tensor


class Layout(Enum):
    """How a stream's tensor is laid out; the value is its shape."""

    TOKENS = "batch tokens dim"
    CHANNELS_FIRST = "batch channels height width"
    CHANNELS_LAST = "batch height width channels"


@dataclass(frozen=True)
class Stream:
    """The activation between two units.

    ``values`` has the shape that ``layout`` names. In the ``TOKENS`` layout the first ``prefix`` tokens are not
    patches (class, distillation, register tokens) and the others are the cells of ``grid``, row by row.
    ``carried`` holds what later units need besides (rotary angles, a saved shortcut), by the model's own names.
    """

    values: Float[Tensor, "..."]
    layout: Layout
    grid: tuple[int, int]
    prefix: int = 0
    carried: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def with_values(self, values: Float[Tensor, "..."]) -> "Stream":
        """The same stream with other values of the same layout and grid."""
        return replace(self, values=values)

    @property
    def patches(self) -> Float[Tensor, "batch patches dim"]:
        """Patch tokens, row by row, prefix tokens dropped; a view where the layout allows."""
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
    def feature_map(self) -> Float[Tensor, "batch channels height width"]:
        """The patches as a map, prefix tokens dropped; a view where the layout allows."""
        if self.layout is Layout.CHANNELS_FIRST:
            return self.values
        return self.patches.unflatten(1, self.grid).permute(0, 3, 1, 2)


def token_stream(values: Float[Tensor, "batch tokens dim"], grid: tuple[int, int], prefix: int = 0) -> Stream:
    """A stream of tokens, ``prefix`` of them before the ``grid``'s patches."""
    return Stream(values, Layout.TOKENS, grid, prefix)


def map_stream(values: Float[Tensor, "batch channels height width"]) -> Stream:
    """A stream of a feature map, channels first."""
    return Stream(values, Layout.CHANNELS_FIRST, (values.shape[2], values.shape[3]))


def channels_last_stream(values: Float[Tensor, "batch height width channels"]) -> Stream:
    """A stream of a feature map, channels last."""
    return Stream(values, Layout.CHANNELS_LAST, (values.shape[1], values.shape[2]))
