"""timm's EVA family: EVA, EVA-02, rotary ViTs (axial and mixed), Perception Encoder, DINOv3, Sapiens2."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast, final

import timm
import torch
from jaxtyping import Float
from timm.layers.attention import AttentionRope
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.attention import Attention, global_tokens, join_heads
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import Composition
from vitscope.models.timm.beit import layer_scale, query_value_bias
from vitscope.models.unit import AbstractAttentionHeads, AbstractUnit, Place, Residual, ResidualAttention, UnitKind

ROTARY = "rotary"

Layers = tuple[Callable[[Tensor], Tensor], ...]


@dataclass(frozen=True)
class RotaryHeads(AbstractAttentionHeads):
    """``EvaAttention`` or ``AttentionRope``: packed or separate projections, query-key norm, rotary positions, gate.

    ``layer`` is the row of the carried angles if every block has its own (mixed rotary positions); with fewer key than
    query heads (grouped queries) each key and value head is repeated for its group.
    """

    heeds_kept = True
    module: EvaAttention | AttentionRope
    layer: int | None

    def project(self, values: Float[Tensor, "batch tokens dim"], stream: Stream) -> Attention:
        """Queries and keys after rotation, and values, global over all tokens."""
        module = self.module
        queries, keys, value = self._projections(values)
        queries = self._rotate(module.q_norm(queries), value, stream)
        keys = self._rotate(module.k_norm(keys), value, stream)
        if keys.shape[2] < queries.shape[2]:
            group = queries.shape[2] // keys.shape[2]
            keys, value = keys.repeat_interleave(group, dim=2), value.repeat_interleave(group, dim=2)
        tokens = global_tokens(values.shape[1], values.device)
        return Attention(
            queries=queries,
            keys=keys,
            values=value,
            query_tokens=tokens,
            key_tokens=tokens,
            grid=stream.grid,
            prefix=stream.prefix,
            scale=module.scale,
            gate=None if module.gate is None else module.gate(values).sigmoid(),
        )

    def _projections(
        self, values: Float[Tensor, "batch tokens dim"]
    ) -> tuple[Float[Tensor, "batch 1 heads tokens width"], ...]:
        module = self.module
        if module.qkv is None:
            parts = tuple(cast(nn.Linear, layer)(values) for layer in (module.q_proj, module.k_proj, module.v_proj))
        elif isinstance(module, EvaAttention):
            parts = query_value_bias(module, values).chunk(3, dim=-1)
        else:
            parts = module.qkv(values).chunk(3, dim=-1)
        return tuple(part.unflatten(-1, (-1, module.head_dim)).transpose(1, 2).unsqueeze(1) for part in parts)

    def _rotate(self, heads: Tensor, like: Tensor, stream: Stream) -> Tensor:
        angles = stream.carried.get(ROTARY)
        if angles is None:
            return heads
        angles = angles if self.layer is None else angles[self.layer]
        if stream.kept is not None:
            at_patches = angles.movedim(-2, 0)[stream.kept]  # batch patches (heads) width
            angles = (at_patches[:, :, None] if angles.ndim == 2 else at_patches).transpose(1, 2).unsqueeze(1)
        prefix, patches = heads.tensor_split([stream.prefix], dim=3)
        rotated = apply_rot_embed_cat(patches, angles, half=self.module.rotate_half)
        return torch.cat([prefix, rotated], dim=3).type_as(like)

    def combine(self, attention: Attention, context: Float[Tensor, "batch 1 heads queries width"]) -> Tensor:
        """The module's output: heads joined, normed (sub-norm), gated, projected."""
        values = self.module.norm(join_heads(context))
        if attention.gate is not None:
            values = values * attention.gate
        return self.module.proj_drop(self.module.proj(values))


def _norms(block: EvaBlock | EvaBlockPostNorm) -> tuple[Layers, Layers, Layers, Layers]:
    if isinstance(block, EvaBlockPostNorm):
        return (), (block.norm1, block.drop_path1), (), (block.norm2, block.drop_path2)
    after, after_mlp = (*layer_scale(block.gamma_1), block.drop_path1), (*layer_scale(block.gamma_2), block.drop_path2)
    return (block.norm1,), after, (block.norm2,), after_mlp


def _block_units(block: nn.Module, index: int, layer: int | None) -> Iterator[AbstractUnit]:
    name = f"blocks.{index}"
    attention = getattr(block, "attn", None)
    if not isinstance(block, EvaBlock | EvaBlockPostNorm) or not isinstance(attention, EvaAttention | AttentionRope):
        found = f"{type(block).__name__} with {type(attention).__name__}"
        raise UserError(
            f"{name} is a {found}; only EvaBlock and EvaBlockPostNorm with EvaAttention or AttentionRope can be read."
        )
    before, after, before_mlp, after_mlp = _norms(block)
    place = Place(UnitKind.ATTENTION, f"{name}.attn", 0, index)
    yield ResidualAttention(place, before, RotaryHeads(attention, layer), after)
    yield Residual(Place(UnitKind.MLP, f"{name}.mlp", 0, index), (*before_mlp, block.mlp, *after_mlp))


@ADAPTERS.add("timm/eva")
@final
class EvaAdapter(AbstractAdapter):
    """``timm.models.Eva``: EVA, EVA-02, rotary ViTs, Perception Encoder, DINOv3."""

    name = "timm/eva"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a timm ``Eva``."""
        return isinstance(module, Eva)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Patch embedding, prefix tokens and rotary angles; attention and MLP of every block; norm, pooling, head."""
        model = cast(Eva, module)

        def stem(images: Tensor) -> Stream:
            values, angles = model._pos_embed(model.patch_embed(images))  # pyright: ignore[reportPrivateUsage]
            grid = model.patch_embed.dynamic_feat_size((images.shape[2], images.shape[3]))
            stream = token_stream(model.norm_pre(values), grid, model.num_prefix_tokens, model.cls_token is not None)
            return stream if angles is None else replace(stream, carried={ROTARY: angles})

        def tail(stream: Stream) -> Tensor:
            return model.forward_head(model.norm(stream.values))

        units = tuple(
            unit
            for i, block in enumerate(model.blocks)
            for unit in _block_units(block, i, i if model.rope_mixed else None)
        )
        return Composition(stem, units, tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """EVA, EVA-02 with sub-norms, rotary variants, attention pooling, post-norm, registers, grouped queries."""
        small: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
        build = partial(timm.create_model, num_classes=7, **small)

        def build_gated() -> nn.Module:
            model = cast(Eva, build(eva02))
            model.blocks[0] = EvaBlock(24, 3, gated_attn=True, num_prefix_tokens=1)
            return model

        shape, eva02 = (3, 32, 32), "eva02_tiny_patch14_224"
        separate: dict[str, Any] = {"qkv_fused": False, "scale_mlp": True, "scale_attn_inner": True}
        pool: dict[str, Any] = {"attn_pool_num_heads": 3}
        heads: dict[str, Any] = {"embed_dim": 32, "num_heads": 4, "num_kv_heads": 2}
        grouped = partial(build, "vit_small_patch16_dinov3", attn_type="rope", qkv_fused=False, qk_norm=True, **heads)
        return (
            Example("eva", partial(build, "eva_giant_patch14_224"), shape),
            Example("eva02", partial(build, eva02), shape),
            Example("eva02 sub-norm, separate projections", partial(build, eva02, **separate), shape),
            Example("gated attention", build_gated, shape),
            Example("eva02 post-norm", partial(build, "eva02_enormous_patch14_clip_224", mlp_ratio=2), shape),
            Example("rotary, one register", partial(build, "vit_medium_patch16_rope_reg1_gap_256"), shape),
            Example("mixed rotary", partial(build, "vit_small_patch16_rope_mixed_ape_224", init_values=0.3), shape),
            Example("perception encoder", partial(build, "vit_pe_core_tiny_patch16_384", **pool), shape),
            Example("dinov3, wide image", partial(build, "vit_small_patch16_dinov3", init_values=0.3), (3, 32, 48)),
            Example(
                "grouped queries",
                grouped,
                shape,
            ),
        )
