"""timm's Swin transformers V2: cosine attention, continuous position bias, residual post-norm."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast, final

import timm
import torch
from jaxtyping import Float
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block, WindowAttention
from torch import Tensor, nn
from torch.nn import functional

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.attention import Attention, global_tokens, join_heads
from vitscope.models.stream import Stream
from vitscope.models.subject import Composition
from vitscope.models.timm.swin import bias_and_mask, swin_composition, window_cut, window_mask
from vitscope.models.unit import AbstractAttentionHeads, AbstractUnit, Place, Residual, UnitKind
from vitscope.models.window import ResidualWindowAttention

_MOST_SCALE = math.log(100.0)


@dataclass(frozen=True)
class SwinV2Heads(AbstractAttentionHeads):
    """``timm.models.swin_transformer_v2.WindowAttention`` of a block; the logit scale is folded into the queries."""

    module: WindowAttention
    block: SwinTransformerV2Block

    def project(self, values: Float[Tensor, "images slots dim"], stream: Stream) -> Attention:
        """Unit queries times the logit scale, unit keys, and values within one window."""
        module = self.module
        packed = self._pack_projections(values).unflatten(2, (3, module.num_heads, -1)).unsqueeze(1)
        queries, keys, value = packed.permute(3, 0, 1, 4, 2, 5).unbind(0)
        queries = functional.normalize(queries, dim=-1) * module.logit_scale.clamp(max=_MOST_SCALE).exp()
        tokens = global_tokens(values.shape[1], values.device)
        return Attention(
            queries=queries,
            keys=functional.normalize(keys, dim=-1),
            values=value,
            query_tokens=tokens,
            key_tokens=tokens,
            grid=stream.grid,
            prefix=stream.prefix,
            scale=1.0,
            bias=bias_and_mask(self._bias(), window_mask(self.block, stream)),
        )

    def _pack_projections(self, values: Float[Tensor, "images slots dim"]) -> Float[Tensor, "images slots projected"]:
        module = self.module
        if module.q_bias is None or module.k_bias is None or module.v_bias is None:
            return module.qkv(values)
        bias = torch.cat((module.q_bias, cast(Tensor, module.k_bias), module.v_bias))
        return functional.linear(values, module.qkv.weight, bias)

    def _bias(self) -> Float[Tensor, "1 heads slots slots"]:
        module = self.module
        table = module.cpb_mlp(module.relative_coords_table).flatten(0, 2)
        index = cast(Tensor, module.relative_position_index)
        return 16 * table[index].permute(2, 0, 1).unsqueeze(0).sigmoid()

    def combine(self, attention: Attention, context: Float[Tensor, "images 1 heads slots width"]) -> Tensor:
        """The module's output: heads joined and projected."""
        del attention
        return self.module.proj_drop(self.module.proj(join_heads(context)))


def _block_units(block: nn.Module, name: str, stage: int, index: int) -> Iterator[AbstractUnit]:
    attention = block.get_submodule("attn")
    if not isinstance(block, SwinTransformerV2Block) or not isinstance(attention, WindowAttention):
        found = f"{type(block).__name__} with {type(attention).__name__}"
        raise UserError(f"{name} is a {found}; only a SwinTransformerV2Block with WindowAttention can be read.")
    place = Place(UnitKind.ATTENTION, f"{name}.attn", stage, index)
    heads = SwinV2Heads(attention, block)
    yield ResidualWindowAttention(place, (), heads, (block.norm1, block.drop_path1), window_cut(block))
    yield Residual(Place(UnitKind.MLP, f"{name}.mlp", stage, index), (block.mlp, block.norm2, block.drop_path2))


@ADAPTERS.add("timm/swin-v2")
@final
class SwinV2Adapter(AbstractAdapter):
    """``timm.models.SwinTransformerV2``."""

    name = "timm/swin-v2"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a timm ``SwinTransformerV2``."""
        return isinstance(module, SwinTransformerV2)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """:func:`~vitscope.models.timm.swin.swin_composition` with post-norm blocks."""
        return swin_composition(cast(SwinTransformerV2, module), _block_units)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Shifted windows; a grid that is not a multiple of the window; any image size; scale at its bound."""

        def build(**more: object) -> nn.Module:
            small = {"img_size": 32, "patch_size": 4, "embed_dim": 12, "depths": (2, 2), "num_heads": (2, 3)}
            fixed = {"window_size": 4, "num_classes": 7, "pretrained_window_sizes": (0, 0)}
            settings: dict[str, Any] = {**small, **fixed, **more}
            return timm.create_model("swinv2_tiny_window8_256", **settings)

        def sharp() -> nn.Module:
            model = build(pretrained_window_sizes=(3, 3))
            for part in model.modules():
                if isinstance(part, WindowAttention):
                    nn.init.constant_(part.logit_scale, 5.0)
            return model

        return (
            Example("shifted windows", build, (3, 32, 32)),
            Example("padded windows", lambda: build(img_size=(36, 44), window_size=3), (3, 36, 44)),
            Example("dynamic size", lambda: build(strict_img_size=False, qkv_bias=False), (3, 40, 28)),
            Example("pretrained windows, scale at its bound", sharp, (3, 32, 32)),
        )
