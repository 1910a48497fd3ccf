"""timm's MaxViT, MaxxViT, CoAtNet and CoAtNeXt: convolutions, attention in windows, on grids and over the whole map."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast, final

import timm
from jaxtyping import Float
from timm.models.maxxvit import (
    Attention2d,
    AttentionCl,
    ConvNeXtBlock,
    Downsample2d,
    MaxxVit,
    MaxxVitBlock,
    MbConvBlock,
    PartitionAttention2d,
    PartitionAttentionCl,
    TransformerBlock2d,
)
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.attention import Attention, global_tokens, join_heads
from vitscope.models.stream import Stream, channels_last_stream, map_stream
from vitscope.models.subject import Composition
from vitscope.models.unit import AbstractAttentionHeads, AbstractUnit, Place, Residual, UnitKind, WholeUnit
from vitscope.models.window import ResidualWindowAttention, Windows, shifted_windows, strided_windows


@dataclass(frozen=True)
class MaxVitHeads(AbstractAttentionHeads):
    """``Attention2d`` or ``AttentionCl``; ``size`` is the window's; None means the whole map."""

    module: Attention2d | AttentionCl
    size: tuple[int, int] | None

    def project(self, values: Float[Tensor, "images slots dim"], stream: Stream) -> Attention:
        """Queries, keys and values within one window."""
        module = self.module
        if isinstance(module, Attention2d):
            packed = (
                module.qkv(values.transpose(1, 2).unflatten(2, self.size or stream.grid)).flatten(2).transpose(1, 2)
            )
        else:
            packed = module.qkv(values)
        if module.head_first:
            packed = packed.unflatten(2, (module.num_heads, 3, -1)).transpose(2, 3)
        else:
            packed = packed.unflatten(2, (3, module.num_heads, -1))
        queries, keys, value = packed.unsqueeze(1).permute(3, 0, 1, 4, 2, 5).unbind(0)
        tokens = global_tokens(values.shape[1], values.device)
        bias = None if module.rel_pos is None else module.rel_pos.get_bias()
        return Attention(queries, keys, value, tokens, tokens, stream.grid, stream.prefix, module.scale, bias)

    def combine(self, attention: Attention, context: Float[Tensor, "images 1 heads slots width"]) -> Tensor:
        """The module's output: heads joined and projected, in the shape of the window."""
        values, size = join_heads(context), self.size or attention.grid
        conv = isinstance(self.module, Attention2d)
        values = values.transpose(1, 2).unflatten(2, size) if conv else values.unflatten(1, size)
        return self.module.proj_drop(self.module.proj(values))


def _size(part: PartitionAttention2d | PartitionAttentionCl) -> tuple[int, int]:
    return cast(tuple[int, int], part.partition_size)


def _cut(part: PartitionAttention2d | PartitionAttentionCl) -> Callable[[Stream], Windows]:
    size = _size(part)
    if part.partition_block:
        return lambda stream: shifted_windows(stream.grid, size, (0, 0), stream.values.device)
    return lambda stream: strided_windows(stream.grid, size, stream.values.device)


def _whole(stream: Stream) -> Windows:
    return shifted_windows(stream.grid, stream.grid, (0, 0), stream.values.device)


def _transformer_units(
    part: PartitionAttention2d | PartitionAttentionCl | TransformerBlock2d, name: str, stage: int, index: int
) -> Iterator[AbstractUnit]:
    whole = isinstance(part, TransformerBlock2d)
    yield ResidualWindowAttention(
        Place(UnitKind.ATTENTION, f"{name}.attn", stage, index),
        (part.norm1,),
        MaxVitHeads(part.attn, None if whole else _size(part)),
        (part.ls1, part.drop_path1),
        _whole if whole else _cut(part),
        (part.shortcut,) if whole else (),
    )
    layers = (part.norm2, part.mlp, part.ls2, part.drop_path2)
    yield Residual(Place(UnitKind.MLP, f"{name}.mlp", stage, index), layers)


@dataclass(frozen=True)
class _Convolution:
    """A convolution block; the stream leaves in the layout that the next unit needs."""

    block: nn.Module
    channels_last: bool

    def __call__(self, stream: Stream) -> Stream:
        values = self.block(stream.feature_map)
        return channels_last_stream(values.permute(0, 2, 3, 1)) if self.channels_last else map_stream(values)


def _convolution(block: nn.Module, channels_last: bool, name: str, stage: int, index: int) -> WholeUnit:
    if not isinstance(block, MbConvBlock | ConvNeXtBlock):
        raise _unreadable(name, block)
    strided = isinstance(block.shortcut, Downsample2d)
    kind = UnitKind.DOWNSAMPLING if strided else UnitKind.CONVOLUTION
    shortcut = _Convolution(block.shortcut, channels_last) if isinstance(block.shortcut, nn.Identity) else None
    return WholeUnit(Place(kind, name, stage, index), _Convolution(block, channels_last), shortcut)


def _block_units(block: nn.Module, name: str, stage: int, index: int) -> Iterator[AbstractUnit]:
    if isinstance(block, TransformerBlock2d):
        yield from _transformer_units(block, name, stage, index)
    elif isinstance(block, MaxxVitBlock):
        yield _convolution(block.conv, not block.nchw_attn, f"{name}.conv", stage, index)
        if block.attn_block is not None:
            yield from _transformer_units(block.attn_block, f"{name}.attn_block", stage, index)
        yield from _transformer_units(block.attn_grid, f"{name}.attn_grid", stage, index)
    else:
        yield _convolution(block, False, name, stage, index)


def _unreadable(name: str, block: nn.Module) -> UserError:
    return UserError(
        f"{name} is a {type(block).__name__}; the blocks that can be read are MbConvBlock, ConvNeXtBlock, "
        "TransformerBlock2d and MaxxVitBlock."
    )


def _units(model: MaxxVit) -> Iterator[AbstractUnit]:
    index = 0
    for stage, blocks in enumerate(model.stages):
        for number, block in enumerate(cast(nn.Sequential, blocks.blocks)):
            yield from _block_units(block, f"stages.{stage}.blocks.{number}", stage, index)
            index += 1


@ADAPTERS.add("timm/maxvit")
@final
class MaxVitAdapter(AbstractAdapter):
    """``timm.models.MaxxVit``: MaxViT, MaxxViT, CoAtNet, CoAtNeXt."""

    name = "timm/maxvit"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a timm ``MaxxVit``."""
        return isinstance(module, MaxxVit)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Stem; convolution, window attention and grid attention of every block; norm, pooling and head."""
        model = cast(MaxxVit, module)
        kinds = {type(part) for part in model.modules()}
        if {MaxxVitBlock, TransformerBlock2d} <= kinds:
            raise UserError("The model has both MaxxVitBlock and TransformerBlock2d; only one kind can be read.")

        def stem(images: Tensor) -> Stream:
            return map_stream(model.stem(images))

        def tail(stream: Stream) -> Tensor:
            return model.forward_head(model.norm(stream.feature_map))

        return Composition(stem, tuple(_units(model)), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """MaxViT as published and as retrained, channels first, grid attention alone, CoAtNet, ConvNeXt blocks."""

        def build(name: str, **more: object) -> nn.Module:
            small = {"img_size": 64, "embed_dim": (8, 16), "depths": (1, 2), "stem_width": 8, "num_classes": 7}
            settings: dict[str, Any] = {**small, "transformer_dim_head": 4, **more}
            return timm.create_model(name, **settings)

        def coat(name: str, **more: object) -> nn.Module:
            return build(name, block_type=("C", "T"), **more)

        def maxvit(name: str, **more: object) -> nn.Module:
            return build(name, block_type=("M", "M"), **more)

        shape = (3, 64, 64)
        return (
            Example("maxvit", lambda: maxvit("maxvit_tiny_tf_224", head_hidden_size=16), shape),
            Example("maxvit, wide image", lambda: maxvit("maxvit_tiny_tf_224", img_size=(64, 96)), (3, 64, 96)),
            Example("maxvit, position MLP", lambda: maxvit("maxvit_rmlp_pico_rw_256"), shape),
            Example(
                "maxvit, channels first", lambda: maxvit("maxvit_tiny_rw_224", transformer_use_nchw_attn=True), shape
            ),
            Example("maxxvit, grid alone", lambda: maxvit("maxxvitv2_nano_rw_256", transformer_init_values=0.3), shape),
            Example("coatnet", lambda: coat("coatnet_0_224", transformer_init_values=0.3), shape),
            Example("coatnet, expansion late", lambda: coat("coatnet_rmlp_nano_rw_224"), shape),
            Example("coatnext", lambda: coat("coatnext_nano_rw_224"), shape),
        )
