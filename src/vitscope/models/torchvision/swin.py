"""torchvision's Swin and Swin V2."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.swin_transformer import (
    PatchMerging,
    PatchMergingV2,
    ShiftedWindowAttention,
    ShiftedWindowAttentionV2,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerBlockV2,
)

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.attention import Attention
from vitscope.models.feature_map import OnMap
from vitscope.models.stream import Stream, channels_last_stream
from vitscope.models.subject import Composition
from vitscope.models.unit import (
    AbstractAttentionHeads,
    AbstractUnit,
    Place,
    Residual,
    ResidualAttention,
    UnitKind,
    WholeUnit,
)
from vitscope.models.window import Windows

Pair = tuple[int, int]


def _cut(cells: Int[Tensor, "height width"], size: Pair) -> Int[Tensor, "windows slots"]:
    parts = cells.unflatten(1, (-1, size[1])).unflatten(0, (-1, size[0])).transpose(1, 2)
    return parts.flatten(2).flatten(0, 1)


@dataclass(frozen=True)
class ShiftedGrid:
    """A grid padded at its bottom and right to whole windows of ``size``, then rolled back by ``shift``."""

    grid: Pair
    size: Pair
    shift: Pair

    @property
    def padded_size(self) -> Pair:
        """Height and width with padding."""
        height, width = (-(-side // size) * size for side, size in zip(self.grid, self.size, strict=True))
        return height, width

    def windows(self, device: torch.device) -> Windows:
        """The grid's tokens, window by window."""
        (height, width), (whole_height, whole_width) = self.grid, self.padded_size
        cells = torch.arange(height * width, device=device).view(self.grid)
        cells = functional.pad(cells, (0, whole_width - width, 0, whole_height - height), value=-1)
        cells = cells.roll((-self.shift[0], -self.shift[1]), (0, 1))
        return Windows(_cut(cells, self.size), cells.numel() - height * width)

    def mask(self, like: Tensor) -> Float[Tensor, "windows 1 slots slots"] | None:
        """-100 between slots that only the roll brought together, else 0; None if nothing is rolled."""
        if self.shift == (0, 0):
            return None
        rows, columns = (
            torch.arange(whole, device=like.device) >= whole - shift
            for whole, shift in zip(self.padded_size, self.shift, strict=True)
        )
        slots = _cut(2 * rows.long()[:, None] + columns.long(), self.size)
        apart = slots[:, None, :, None] != slots[:, None, None, :]
        return torch.zeros_like(apart, dtype=like.dtype).masked_fill(apart, -100.0)


@dataclass(frozen=True)
class SwinHeads(AbstractAttentionHeads):
    """``ShiftedWindowAttention`` and its V2, whose cosine attention is read as scaled unit queries and unit keys.

    Padding takes part in its windows like any other token, as it does upstream.
    """

    module: ShiftedWindowAttention

    def project(self, values: Float[Tensor, "batch height width dim"], stream: Stream) -> Attention:
        """Queries, keys and values, window by window."""
        module = self.module
        place = self._place(stream.grid)
        windows = place.windows(values.device)
        packed = functional.linear(windows.split(values.flatten(1, 2)), module.qkv.weight, self._qkv_bias())
        packed = packed.unflatten(-1, (3, module.num_heads, -1))
        queries, keys, value = packed.permute(3, 0, 1, 4, 2, 5).unbind(0)
        scale = queries.shape[-1] ** -0.5
        if isinstance(module, ShiftedWindowAttentionV2):
            factor = module.logit_scale.clamp(max=math.log(100.0)).exp()
            queries, keys, scale = (
                functional.normalize(queries, dim=-1) * factor,
                functional.normalize(keys, dim=-1),
                1.0,
            )
        bias, mask = module.get_relative_position_bias()[:, None], place.mask(values)
        return Attention(
            queries=queries,
            keys=keys,
            values=value,
            query_tokens=windows.tokens,
            key_tokens=windows.tokens,
            grid=stream.grid,
            prefix=stream.prefix,
            scale=scale,
            bias=bias if mask is None else bias + mask,
        )

    def _place(self, grid: Pair) -> ShiftedGrid:
        """The grid cut into windows; a side that fits into one window is not shifted."""
        size = (self.module.window_size[0], self.module.window_size[1])
        rows, columns = (
            0 if size >= side else shift for side, size, shift in zip(grid, size, self.module.shift_size, strict=True)
        )
        return ShiftedGrid(grid, size, (rows, columns))

    def _qkv_bias(self) -> Tensor | None:
        """The bias of the projection; in V2 the part of the keys is zero, whatever the parameter holds."""
        bias = cast(Tensor | None, self.module.qkv.bias)
        if bias is None or not isinstance(self.module, ShiftedWindowAttentionV2):
            return bias
        queries, keys, values = bias.chunk(3)
        return torch.cat([queries, torch.zeros_like(keys), values])

    def combine(self, attention: Attention, context: Float[Tensor, "batch windows heads slots width"]) -> Tensor:
        """The module's output: heads joined and projected, windows put back in place."""
        tokens = attention.query_tokens
        windows = Windows(tokens, tokens.numel() - attention.grid[0] * attention.grid[1])
        out = self.module.proj(context.transpose(2, 3).flatten(3))
        return functional.dropout(windows.merge(out), self.module.dropout, self.module.training).unflatten(
            1, attention.grid
        )


def _norms(block: SwinTransformerBlock) -> tuple[tuple[Callable[[Tensor], Tensor], ...], ...]:
    drop = block.stochastic_depth
    if isinstance(block, SwinTransformerBlockV2):
        return (), (block.norm1, drop), (), (block.norm2, drop)
    return (block.norm1,), (drop,), (block.norm2,), (drop,)


def _block_units(block: nn.Module, name: str, stage: int, index: int) -> Iterator[AbstractUnit]:
    if not isinstance(block, SwinTransformerBlock) or not isinstance(block.attn, ShiftedWindowAttention):
        found = f"{type(block).__name__} with {type(getattr(block, 'attn', None)).__name__}"
        raise UserError(f"{name} is a {found}; SwinTransformerBlock with ShiftedWindowAttention (or V2) can be read.")
    before, after, before_mlp, after_mlp = _norms(block)
    place = Place(UnitKind.ATTENTION, f"{name}.attn", stage, index)
    yield ResidualAttention(place, before, SwinHeads(block.attn), after)
    yield Residual(Place(UnitKind.MLP, f"{name}.mlp", stage, index), (*before_mlp, block.mlp, *after_mlp))


def _units(features: nn.Sequential) -> Iterator[AbstractUnit]:
    """``features`` is the stem, then stages of blocks with a patch merging between each two."""
    stage, index = 0, 0
    for position, part in enumerate(list(features)[1:], start=1):
        name = f"features.{position}"
        if isinstance(part, PatchMerging | PatchMergingV2):
            stage += 1
            yield WholeUnit(Place(UnitKind.DOWNSAMPLING, name, stage, index), OnMap(part))
            continue
        for i, block in enumerate(cast(nn.Sequential, part)):
            yield from _block_units(block, f"{name}.{i}", stage, index)
            index += 1


@ADAPTERS.add("torchvision/swin")
@final
class SwinAdapter(AbstractAdapter):
    """``torchvision.models.SwinTransformer``: Swin and Swin V2."""

    name = "torchvision/swin"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a torchvision ``SwinTransformer``."""
        return isinstance(module, SwinTransformer)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Patch embedding; attention and MLP of every block, patch merging; norm, pooling and head."""
        model = cast(SwinTransformer, module)

        def stem(images: Tensor) -> Stream:
            return channels_last_stream(model.features[0](images))

        def tail(stream: Stream) -> Tensor:
            return model.head(model.flatten(model.avgpool(model.permute(model.norm(stream.values)))))

        return Composition(stem, tuple(_units(model.features)), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Shifted windows on a grid that is, and that is not, a multiple of the window; a window as wide as the map."""
        build = partial(SwinTransformer, [4, 4], 8, [2, 2], [2, 4], num_classes=7)

        def v2(size: int, logit_scale: float) -> nn.Module:
            model = build(window_size=[size, size], block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2)
            for name, parameter in model.named_parameters():
                if name.endswith("logit_scale"):
                    nn.init.constant_(parameter, logit_scale)
            return model

        return (
            Example("whole windows", partial(build, window_size=[2, 2]), (3, 32, 32)),
            Example("padded windows", partial(build, window_size=[3, 3]), (3, 40, 32)),
            Example("one window across", partial(build, window_size=[4, 4]), (3, 64, 16)),
            Example("v2", lambda: v2(4, 2.0), (3, 32, 32)),
            Example("v2, padded windows, scale past its limit", lambda: v2(3, 5.0), (3, 40, 32)),
        )
