"""timm's CaiT: talking-heads attention among patches, then class attention with LayerScale."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast, final

import timm
import torch
from jaxtyping import Float
from timm.layers.patch_embed import PatchEmbed
from timm.models.cait import Cait, ClassAttn, LayerScaleBlock, LayerScaleBlockClassAttn, TalkingHeadAttn
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.attention import Attention, global_tokens, join_heads
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import Composition
from vitscope.models.unit import (
    AbstractAttentionHeads,
    AbstractAttentionUnit,
    AbstractUnit,
    Place,
    Residual,
    ResidualAttention,
    Times,
    UnitKind,
    WholeUnit,
    identity,
)


@dataclass(frozen=True)
class TalkingHeads(AbstractAttentionHeads):
    """``timm.models.cait.TalkingHeadAttn``: heads mixed before and after the softmax."""

    heeds_kept = True
    module: TalkingHeadAttn

    def project(self, values: Float[Tensor, "batch tokens dim"], stream: Stream) -> Attention:
        """Queries, keys and values, global over all tokens."""
        module = self.module
        packed = module.qkv(values).unflatten(2, (3, module.num_heads, -1)).unsqueeze(1)
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
            scale=module.scale,
            mix_scores=(module.proj_l.weight, module.proj_l.bias),
            mix_weights=(module.proj_w.weight, module.proj_w.bias),
        )

    def combine(self, attention: Attention, context: Float[Tensor, "batch 1 heads queries width"]) -> Tensor:
        """The module's output: heads joined and projected."""
        del attention
        return self.module.proj_drop(self.module.proj(join_heads(context)))


@dataclass(frozen=True)
class ClassAttention(AbstractAttentionUnit):
    """The class token attends to itself and to the patches, and alone is updated."""

    block: LayerScaleBlockClassAttn
    module: ClassAttn

    @property
    def bypass(self) -> Callable[[Stream], Stream]:
        """The stream as it came in."""
        return identity

    def project(self, stream: Stream) -> Attention:
        """One query; keys and values of all tokens."""
        module, values = self.module, self.block.norm1(stream.values)
        width = (module.num_heads, -1)
        queries = module.q(values[:, :1]).unflatten(2, width)
        keys, value = (part(values).unflatten(2, width) for part in (module.k, module.v))
        tokens = global_tokens(values.shape[1], values.device)
        queries, keys, value = (tensor.transpose(1, 2).unsqueeze(1) for tensor in (queries, keys, value))
        return Attention(queries, keys, value, tokens[:, :1], tokens, stream.grid, stream.prefix, module.scale)

    def branch(self, attention: Attention, context: Float[Tensor, "batch 1 heads 1 width"]) -> Tensor:
        """The module's output: a new class token."""
        del attention
        return self.module.proj_drop(self.module.proj(join_heads(context)))

    def finish(self, stream: Stream, branch: Float[Tensor, "batch 1 dim"]) -> Stream:
        """The residual sum, on the class token."""
        return _on_class_token(stream, self.block.drop_path(self.block.gamma_1 * branch))


def _on_class_token(stream: Stream, change: Float[Tensor, "batch 1 dim"]) -> Stream:
    token, patches = stream.values[:, :1], stream.values[:, 1:]
    return stream.with_values(torch.cat((token + change, patches), dim=1))


@dataclass(frozen=True)
class _ClassMlp:
    block: LayerScaleBlockClassAttn

    def __call__(self, stream: Stream) -> Stream:
        block = self.block
        change = block.gamma_2 * block.mlp(block.norm2(stream.values[:, :1]))
        return _on_class_token(stream, block.drop_path(change))


def _units(model: Cait) -> Iterator[AbstractUnit]:
    for index, block in enumerate(model.blocks):
        name = f"blocks.{index}"
        if not isinstance(block, LayerScaleBlock) or not isinstance(block.attn, TalkingHeadAttn):
            raise _unreadable(name, block, "LayerScaleBlock with TalkingHeadAttn")
        before, after = (block.norm1,), (Times(block.gamma_1), block.drop_path)
        yield ResidualAttention(_place("attn", name, index), before, TalkingHeads(block.attn), after)
        layers = (block.norm2, block.mlp, Times(block.gamma_2), block.drop_path)
        yield Residual(_place("mlp", name, index), layers)
    if model.cls_token is None or model.blocks_token_only is None:
        raise UserError("This Cait has lost its class token (pruned to its features); give the whole model.")
    first = len(model.blocks)
    yield WholeUnit(Place(UnitKind.REARRANGEMENT, "cls_token", 0, first), _ClassToken(model.cls_token))
    for number, block in enumerate(model.blocks_token_only):
        name = f"blocks_token_only.{number}"
        if not isinstance(block, LayerScaleBlockClassAttn) or not isinstance(block.attn, ClassAttn):
            raise _unreadable(name, block, "LayerScaleBlockClassAttn with ClassAttn")
        yield ClassAttention(_place("attn", name, first + number), block, block.attn)
        yield WholeUnit(_place("mlp", name, first + number), _ClassMlp(block), identity)


def _place(part: str, name: str, index: int) -> Place:
    return Place(UnitKind.MLP if part == "mlp" else UnitKind.ATTENTION, f"{name}.{part}", 0, index)


def _unreadable(name: str, block: nn.Module, readable: str) -> UserError:
    found = f"{type(block).__name__} with {type(getattr(block, 'attn', None)).__name__}"
    return UserError(f"{name} is a {found}; only a {readable} can be read.")


@dataclass(frozen=True)
class _ClassToken:
    token: Float[Tensor, "1 1 dim"]

    def __call__(self, stream: Stream) -> Stream:
        values = torch.cat((self.token.expand(stream.values.shape[0], -1, -1), stream.values), dim=1)
        return replace(stream, values=values, prefix=1)


@ADAPTERS.add("timm/cait")
@final
class CaitAdapter(AbstractAdapter):
    """``timm.models.Cait``."""

    name = "timm/cait"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a timm ``Cait``."""
        return isinstance(module, Cait)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Patch embedding; blocks among patches; the class token joined; blocks of the class token; norm and head."""
        model = cast(Cait, module)
        embed = cast(PatchEmbed, model.patch_embed)

        def stem(images: Tensor) -> Stream:
            grid = embed.dynamic_feat_size((images.shape[2], images.shape[3]))
            return token_stream(model.pos_drop(embed(images) + model.pos_embed), grid)

        def tail(stream: Stream) -> Tensor:
            return model.forward_head(model.norm(stream.values))

        return Composition(stem, tuple(_units(model)), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Class token; average pooling; one class block; a wide image."""

        def build(**more: object) -> nn.Module:
            small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "init_values": 0.3}
            settings: dict[str, Any] = {**small, "num_classes": 7, **more}
            return timm.create_model("cait_xxs24_224", **settings)

        shape = (3, 32, 32)
        return (
            Example("class token", build, shape),
            Example("average pooling", lambda: build(global_pool="avg"), shape),
            Example("no projection bias", lambda: build(qkv_bias=False, depth_token_only=1), shape),
            Example("wide image", lambda: build(img_size=(32, 48)), (3, 32, 48)),
        )
