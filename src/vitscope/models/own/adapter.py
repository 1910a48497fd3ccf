"""The adapter of the project's own vision transformer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast, final

from jaxtyping import Float
from torch import Tensor, nn

from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.attention import Attention, global_tokens, join_heads
from vitscope.models.own.vit import Block, Vit, VitConfig
from vitscope.models.own.vit import SelfAttention as OwnAttention
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import Composition
from vitscope.models.unit import AbstractAttentionHeads, AbstractUnit, Place, Residual, ResidualAttention, UnitKind


@dataclass(frozen=True)
class OwnHeads(AbstractAttentionHeads):
    """The attention module of :class:`~vitscope.models.own.vit.Vit`."""

    heeds_kept = True
    module: OwnAttention

    def project(self, values: Float[Tensor, "batch tokens dim"], stream: Stream) -> Attention:
        """Queries, keys and values, global over all tokens."""
        queries, keys, value = self.module.project(values).unsqueeze(2).unbind(0)
        tokens = global_tokens(values.shape[1], values.device)
        scale = queries.shape[-1] ** -0.5
        return Attention(queries, keys, value, tokens, tokens, stream.grid, stream.prefix, scale)

    def combine(self, attention: Attention, context: Float[Tensor, "batch 1 heads queries width"]) -> Tensor:
        """The module's output: heads joined and projected."""
        del attention
        return self.module.proj(join_heads(context))


@ADAPTERS.add("vitscope/vit")
@final
class OwnVitAdapter(AbstractAdapter):
    """:class:`~vitscope.models.own.vit.Vit`, the project's own vision transformer."""

    name = "vitscope/vit"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is the project's own."""
        return isinstance(module, Vit)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Patch embedding and prefix tokens; attention and MLP of every block; norm, pooling and head."""
        model = cast(Vit, module)
        side = model.config.image // model.config.patch

        def stem(images: Tensor) -> Stream:
            return token_stream(model.embed(images), (side, side), model.config.prefix, model.config.pool == "class")

        def tail(stream: Stream) -> Tensor:
            return model.classify(stream.values)

        blocks = cast("list[Block]", list(model.blocks))
        units = tuple(unit for index, block in enumerate(blocks) for unit in _units(block, index))
        return Composition(stem, units, tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Class token, average pooling, registers with either, grey images."""

        def example(name: str, config: VitConfig) -> Example:
            return Example(name, lambda: Vit(config), (config.channels, config.image, config.image))

        def small(**fields: object) -> VitConfig:
            return VitConfig(**{"image": 16, "dim": 24, "depth": 2, "heads": 3, "classes": 7, **fields})  # pyright: ignore[reportArgumentType]

        return (
            example("own class token", small()),
            example("own average pooling", small(pool="average", drop_path=0.1)),
            example("own registers", small(registers=2)),
            example("own registers, average pooling, grey", small(registers=3, pool="average", channels=1)),
        )


def _units(block: Block, index: int) -> Iterator[AbstractUnit]:
    name = f"blocks.{index}"
    yield ResidualAttention(
        Place(UnitKind.ATTENTION, f"{name}.attn", 0, index), (block.norm1,), OwnHeads(block.attn), (block.drop_path,)
    )
    yield Residual(Place(UnitKind.MLP, f"{name}.mlp", 0, index), (block.norm2, block.mlp, block.drop_path))
