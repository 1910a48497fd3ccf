"""timm's Swin transformers: shifted windows with a table of relative position biases."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast, final

import timm
from jaxtyping import Float
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, WindowAttention
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.attention import Attention, global_tokens, join_heads
from vitscope.models.feature_map import OnMap
from vitscope.models.stream import Stream, channels_last_stream
from vitscope.models.subject import Composition
from vitscope.models.unit import AbstractAttentionHeads, AbstractUnit, Place, Residual, UnitKind, WholeUnit
from vitscope.models.window import ResidualWindowAttention, Windows, shifted_windows


def swin_composition(
    model: SwinTransformer | SwinTransformerV2,
    block_units: Callable[[nn.Module, str, int, int], Iterator[AbstractUnit]],
) -> Composition:
    """Patch embedding; patch merging and blocks of every stage; norm, pooling and head. The stream is channels-last."""

    def stem(images: Tensor) -> Stream:
        return channels_last_stream(model.patch_embed(images))

    def tail(stream: Stream) -> Tensor:
        return model.forward_head(model.norm(stream.values))

    def units() -> Iterator[AbstractUnit]:
        index = 0
        for number, stage in enumerate(model.layers):
            name = f"layers.{number}"
            if not isinstance(stage.downsample, nn.Identity):
                place = Place(UnitKind.DOWNSAMPLING, f"{name}.downsample", number, index)
                yield WholeUnit(place, OnMap(cast(nn.Module, stage.downsample)))
            for inner, block in enumerate(cast(nn.Sequential, stage.blocks)):
                yield from block_units(block, f"{name}.blocks.{inner}", number, index)
                index += 1

    return Composition(stem, tuple(units()), tail)


def window_cut(block: SwinTransformerBlock | SwinTransformerV2Block) -> Callable[[Stream], Windows]:
    """How the block cuts a stream into windows."""

    def cut(stream: Stream) -> Windows:
        return shifted_windows(stream.grid, block.window_size, block.shift_size, stream.values.device)  # pyright: ignore[reportArgumentType]

    return cut


def window_mask(block: SwinTransformerBlock | SwinTransformerV2Block, stream: Stream) -> Tensor | None:
    """The mask between tokens that only the shift brought into one window: windows x queries x keys, 0 or -100."""
    if not block.dynamic_mask:
        return cast(Tensor | None, block.attn_mask)
    (height, width), size = stream.grid, block.window_size
    padded = stream.values.new_empty((1, height + -height % size[0], width + -width % size[1], 1))
    return block.get_attn_mask(padded)


def bias_and_mask(
    bias: Float[Tensor, "1 heads slots slots"], mask: Tensor | None
) -> Float[Tensor, "1 _ heads slots slots"]:
    """The sum of relative position bias and window mask: one for all windows, or one for each."""
    return bias[:, None] if mask is None else bias[:, None] + mask[None, :, None]


@dataclass(frozen=True)
class SwinHeads(AbstractAttentionHeads):
    """``timm.models.swin_transformer.WindowAttention`` of a block."""

    module: WindowAttention
    block: SwinTransformerBlock

    def project(self, values: Float[Tensor, "images slots dim"], stream: Stream) -> Attention:
        """Queries, keys and values within one window."""
        module = self.module
        packed = module.qkv(values).unflatten(2, (3, module.num_heads, -1)).unsqueeze(1)
        queries, keys, value = packed.permute(3, 0, 1, 4, 2, 5).unbind(0)
        tokens = global_tokens(values.shape[1], values.device)
        bias = bias_and_mask(module._get_rel_pos_bias(), window_mask(self.block, stream))  # pyright: ignore[reportPrivateUsage]
        return Attention(queries, keys, value, tokens, tokens, stream.grid, stream.prefix, module.scale, bias)

    def combine(self, attention: Attention, context: Float[Tensor, "images 1 heads slots width"]) -> Tensor:
        """The module's output: heads joined and projected."""
        del attention
        return self.module.proj_drop(self.module.proj(join_heads(context)))


def _block_units(block: nn.Module, name: str, stage: int, index: int) -> Iterator[AbstractUnit]:
    attention = block.get_submodule("attn")
    if not isinstance(block, SwinTransformerBlock) or not isinstance(attention, WindowAttention):
        found = f"{type(block).__name__} with {type(attention).__name__}"
        raise UserError(f"{name} is a {found}; only a SwinTransformerBlock with WindowAttention can be read.")
    place = Place(UnitKind.ATTENTION, f"{name}.attn", stage, index)
    heads = SwinHeads(attention, block)
    yield ResidualWindowAttention(place, (block.norm1,), heads, (block.drop_path1,), window_cut(block))
    yield Residual(Place(UnitKind.MLP, f"{name}.mlp", stage, index), (block.norm2, block.mlp, block.drop_path2))


@ADAPTERS.add("timm/swin")
@final
class SwinAdapter(AbstractAdapter):
    """``timm.models.SwinTransformer``."""

    name = "timm/swin"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a timm ``SwinTransformer``."""
        return isinstance(module, SwinTransformer)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """:func:`swin_composition` with pre-norm blocks."""
        return swin_composition(cast(SwinTransformer, module), _block_units)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Shifted windows; a grid that is not a multiple of the window; any image size; windows wider than a stage."""

        def build(**more: object) -> nn.Module:
            small = {"img_size": 32, "patch_size": 4, "embed_dim": 12, "depths": (2, 2), "num_heads": (2, 3)}
            settings: dict[str, Any] = {**small, "window_size": 4, "num_classes": 7, **more}
            return timm.create_model("swin_tiny_patch4_window7_224", **settings)

        return (
            Example("shifted windows", build, (3, 32, 32)),
            Example("padded windows", lambda: build(img_size=(36, 44), window_size=3), (3, 36, 44)),
            Example("dynamic size", lambda: build(strict_img_size=False, window_size=3), (3, 40, 28)),
            Example("always partitioned", lambda: build(always_partition=True, window_size=(6, 5)), (3, 32, 32)),
        )
