"""timm's BEiT and BEiT v2: relative position bias per block or shared, query and value bias without a key bias."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast, final

import timm
import torch
from jaxtyping import Float, Int
from timm.models.beit import Attention as BeitAttention
from timm.models.beit import Beit, Block
from timm.models.eva import EvaAttention
from torch import Tensor, nn
from torch.nn import functional

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.attention import Attention, bias_among, global_tokens, join_heads
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import Composition
from vitscope.models.unit import (
    AbstractAttentionHeads,
    AbstractUnit,
    Place,
    Residual,
    ResidualAttention,
    Times,
    UnitKind,
)

SHARED_BIAS = "rel_pos_bias"


def query_value_bias(
    module: BeitAttention | EvaAttention, values: Float[Tensor, "batch tokens dim"]
) -> Float[Tensor, "batch tokens packed"]:
    """Packed queries, keys and values of a projection whose bias has parts for queries and values only."""
    qkv = cast(nn.Linear, module.qkv)
    if module.q_bias is None:
        return qkv(values)
    parts = (module.q_bias, cast(Tensor, module.k_bias), cast(Tensor, module.v_bias))
    return functional.linear(values, qkv.weight, torch.cat(parts))


def layer_scale(factor: Tensor | None) -> tuple[Callable[[Tensor], Tensor], ...]:
    """Multiplication by LayerScale's factor if there is one."""
    return () if factor is None else (Times(factor),)


@dataclass(frozen=True)
class BeitHeads(AbstractAttentionHeads):
    """``timm.models.beit.Attention``: packed projections, relative position bias of its own, shared, both or none."""

    heeds_kept = True
    module: BeitAttention

    def project(self, values: Float[Tensor, "batch tokens dim"], stream: Stream) -> Attention:
        """Queries, keys and values, global over all tokens."""
        packed = query_value_bias(self.module, values)
        packed = packed.reshape(values.shape[0], 1, values.shape[1], 3, self.module.num_heads, -1)
        queries, keys, value = packed.permute(3, 0, 1, 4, 2, 5).unbind(0)
        tokens = global_tokens(values.shape[1], values.device)
        return Attention(
            queries=queries,
            keys=keys,
            values=value,
            query_tokens=tokens,
            key_tokens=tokens,
            grid=stream.grid,
            prefix=stream.prefix,
            scale=self.module.scale,
            bias=self._bias(stream.carried.get(SHARED_BIAS), stream.positions),
        )

    def _bias(
        self, shared: Float[Tensor, "heads queries keys"] | None, positions: Int[Tensor, "batch tokens"] | None
    ) -> Float[Tensor, "..."] | None:
        if self.module.relative_position_bias_table is None:
            bias = shared
        else:
            own = self.module._get_rel_pos_bias()  # pyright: ignore[reportPrivateUsage]
            bias = own if shared is None else own + shared
        return bias if bias is None or positions is None else bias_among(bias, positions)

    def combine(self, attention: Attention, context: Float[Tensor, "batch 1 heads queries width"]) -> Tensor:
        """The module's output: heads joined and projected."""
        return self.module.proj_drop(self.module.proj(join_heads(context)))


def _block_units(block: nn.Module, index: int) -> Iterator[AbstractUnit]:
    name = f"blocks.{index}"
    if not isinstance(block, Block):
        raise UserError(f"{name} is a {type(block).__name__}; the block that can be read is timm.models.beit.Block.")
    yield ResidualAttention(
        Place(UnitKind.ATTENTION, f"{name}.attn", 0, index),
        (block.norm1,),
        BeitHeads(block.attn),
        (*layer_scale(block.gamma_1), block.drop_path1),
    )
    layers = (block.norm2, block.mlp, *layer_scale(block.gamma_2), block.drop_path2)
    yield Residual(Place(UnitKind.MLP, f"{name}.mlp", 0, index), layers)


@ADAPTERS.add("timm/beit")
@final
class BeitAdapter(AbstractAdapter):
    """``timm.models.Beit``: BEiT and BEiT v2."""

    name = "timm/beit"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a timm ``Beit``."""
        return isinstance(module, Beit)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Patch embedding and class token; attention and MLP of every block; norm, pooling and head."""
        model = cast(Beit, module)

        def stem(images: Tensor) -> Stream:
            patches = model.patch_embed(images)
            values = torch.cat((model.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)
            if model.pos_embed is not None:
                values = values + model.pos_embed
            grid = model.patch_embed.dynamic_feat_size((images.shape[2], images.shape[3]))
            stream = token_stream(model.pos_drop(values), grid, model.num_prefix_tokens)
            return (
                stream if model.rel_pos_bias is None else replace(stream, carried={SHARED_BIAS: model.rel_pos_bias()})
            )

        def tail(stream: Stream) -> Tensor:
            return model.forward_head(model.norm(stream.values))

        units = tuple(unit for i, block in enumerate(model.blocks) for unit in _block_units(block, i))
        return Composition(stem, units, tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Bias per block with LayerScale, shared bias, both, absolute positions without any, a wide image."""
        small: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
        build = partial(timm.create_model, num_classes=7, **small)
        beit, shape = "beit_base_patch16_224", (3, 32, 32)
        shared: dict[str, Any] = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "swiglu_mlp": True}
        plain: dict[str, Any] = {"use_rel_pos_bias": False, "qkv_bias": False, "init_values": None}
        both = partial(build, beit, use_shared_rel_pos_bias=True, img_size=(32, 48))
        absolute = partial(build, beit, use_abs_pos_emb=True, global_pool="token", **plain)
        return (
            Example("bias per block", partial(build, beit), shape),
            Example("beit v2", partial(build, "beitv2_base_patch16_224"), shape),
            Example("shared bias, SwiGLU", partial(build, beit, **shared), shape),
            Example("both biases, wide image", both, (3, 32, 48)),
            Example("absolute positions, class token", absolute, shape),
        )
