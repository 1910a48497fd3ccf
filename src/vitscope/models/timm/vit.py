"""timm's plain vision transformers: ViT, DeiT, DeiT3, DINOv2, registers, LayerScale, any pooling."""

from collections.abc import Callable, Iterator
from typing import Any, cast, final

import timm
from timm.layers.attention import Attention as TimmAttention
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import Composition
from vitscope.models.timm.attention import PlainHeads
from vitscope.models.unit import AbstractUnit, Place, Residual, ResidualAttention, UnitKind


def block_units(block: nn.Module, name: str, stage: int, index: int) -> Iterator[AbstractUnit]:
    """The attention and MLP units of one of timm's transformer blocks, pre-norm or post-norm."""
    if not isinstance(block, Block | ResPostBlock) or not isinstance(block.attn, TimmAttention):
        found = f"{type(block).__name__} with {type(getattr(block, 'attn', None)).__name__}"
        raise UserError(f"{name} is a {found}; the blocks that can be read are Block and ResPostBlock with Attention.")
    before, after, before_mlp, after_mlp = _norms(block)
    attention = Place(UnitKind.ATTENTION, f"{name}.attn", stage, index)
    yield ResidualAttention(attention, before, PlainHeads(block.attn), after)
    yield Residual(Place(UnitKind.MLP, f"{name}.mlp", stage, index), (*before_mlp, block.mlp, *after_mlp))


Layers = tuple[Callable[[Tensor], Tensor], ...]


def _norms(block: Block | ResPostBlock) -> tuple[Layers, Layers, Layers, Layers]:
    if isinstance(block, Block):
        return (block.norm1,), (block.ls1, block.drop_path1), (block.norm2,), (block.ls2, block.drop_path2)
    return (), (block.norm1, block.drop_path1), (), (block.norm2, block.drop_path2)


@ADAPTERS.add("timm/vit")
@final
class VitAdapter(AbstractAdapter):
    """``timm.models.VisionTransformer`` with plain pre-norm or post-norm blocks."""

    name = "timm/vit"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a timm ``VisionTransformer``."""
        return isinstance(module, VisionTransformer)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Patch embedding and prefix tokens; attention and MLP of every block; norm, pooling and head."""
        model = cast(VisionTransformer, module)

        def stem(images: Tensor) -> Stream:
            values = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))  # pyright: ignore[reportPrivateUsage]
            grid = model.patch_embed.dynamic_feat_size((images.shape[2], images.shape[3]))
            return token_stream(values, grid, model.num_prefix_tokens, model.cls_token is not None)

        def tail(stream: Stream) -> Tensor:
            return model.forward_head(model.norm(stream.values))

        units = tuple(unit for i, block in enumerate(model.blocks) for unit in block_units(block, f"blocks.{i}", 0, i))
        return Composition(stem, units, tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Class token, average pooling with LayerScale (DeiT3), registers, query-key norm, distillation."""
        small: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}

        def build(name: str, more: dict[str, Any]) -> nn.Module:
            arguments: dict[str, Any] = {**small, "num_classes": 7, **more}
            return timm.create_model(name, **arguments)

        shape = (3, 32, 32)
        return (
            Example("vit class token", lambda: build("vit_tiny_patch16_224", {}), shape),
            Example("vit average pooling", lambda: build("vit_base_patch16_rpn_224", {"global_pool": "avg"}), shape),
            Example("deit3 LayerScale", lambda: build("deit3_small_patch16_224", {"init_values": 0.3}), shape),
            Example("dinov2 registers", lambda: build("vit_small_patch14_reg4_dinov2", {"init_values": 0.3}), shape),
            Example("query-key norm", lambda: build("vit_tiny_patch16_224", {"qk_norm": True}), shape),
            Example("deit distilled", lambda: build("deit_tiny_distilled_patch16_224", {}), shape),
            Example("wide image", lambda: build("vit_tiny_patch16_224", {"img_size": (32, 48)}), (3, 32, 48)),
        )
