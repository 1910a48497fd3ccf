"""timm's pooling-based vision transformers (PiT), plain and distilled."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast, final

import timm
import torch
from timm.models.pit import Pooling, PoolingVisionTransformer, Transformer
from torch import Tensor, nn

from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import Composition
from vitscope.models.timm.vit import block_units
from vitscope.models.unit import AbstractUnit, Place, UnitKind, WholeUnit


def _enter_stage(stage: Transformer, patches: Tensor, prefix: Tensor) -> Stream:
    """The stream at the first block of ``stage``: prefix tokens before the patches of a feature map."""
    values = stage.norm(torch.cat((prefix, patches.flatten(2).transpose(1, 2)), dim=1))
    return token_stream(values, (patches.shape[2], patches.shape[3]), prefix.shape[1])


def _pooling(stage: Transformer, pool: Pooling) -> Callable[[Stream], Stream]:
    def pool_tokens(stream: Stream) -> Stream:
        patches, prefix = pool(stream.feature_map, stream.values[:, : stream.prefix])
        return replace(_enter_stage(stage, patches, prefix), carried=stream.carried)

    return pool_tokens


def _units(stages: tuple[Transformer, ...]) -> Iterator[AbstractUnit]:
    index = 0
    for number, stage in enumerate(stages):
        name = f"transformers.{number}"
        if stage.pool is not None:
            yield WholeUnit(Place(UnitKind.DOWNSAMPLING, f"{name}.pool", number, index), _pooling(stage, stage.pool))
        for inner, block in enumerate(stage.blocks):
            yield from block_units(block, f"{name}.blocks.{inner}", number, index)
            index += 1


@ADAPTERS.add("timm/pit")
@final
class PitAdapter(AbstractAdapter):
    """``timm.models.PoolingVisionTransformer``."""

    name = "timm/pit"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a timm ``PoolingVisionTransformer``."""
        return isinstance(module, PoolingVisionTransformer)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Convolutional embedding; pooling and blocks of every stage; norm and head of the prefix tokens."""
        model = cast(PoolingVisionTransformer, module)
        stages = cast(tuple[Transformer, ...], tuple(model.transformers))

        def stem(images: Tensor) -> Stream:
            patches = model.pos_drop(model.patch_embed(images) + model.pos_embed)
            return _enter_stage(stages[0], patches, model.cls_token.expand(images.shape[0], -1, -1))

        def tail(stream: Stream) -> Tensor:
            return model.forward_head(model.norm(stream.values[:, : stream.prefix]))

        return Composition(stem, tuple(_units(stages)), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Class token; class and distillation token; odd and wide grids, overlapping patches."""

        def build(name: str, **more: object) -> nn.Module:
            small = {"img_size": 32, "patch_size": 8, "stride": 4, "base_dims": (6, 6), "depth": (1, 2)}
            settings: dict[str, Any] = {**small, "heads": (2, 4), "num_classes": 7, **more}
            return timm.create_model(name, **settings)

        shape = (3, 32, 32)
        return (
            Example("class token", lambda: build("pit_ti_224"), shape),
            Example("distilled", lambda: build("pit_ti_distilled_224"), shape),
            Example(
                "three stages", lambda: build("pit_s_224", base_dims=(6, 6, 6), depth=(1,) * 3, heads=(1, 2, 4)), shape
            ),
            Example("wide image", lambda: build("pit_ti_224", img_size=(32, 44)), (3, 32, 44)),
        )
