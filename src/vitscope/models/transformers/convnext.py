"""transformers' ConvNeXt and ConvNeXt V2."""

from collections.abc import Iterator
from functools import partial
from typing import cast, final

from torch import Tensor, nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextModel,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    ConvNextV2Model,
)
from transformers.models.convnext.modeling_convnext import ConvNextLayer, ConvNextStage
from transformers.models.convnextv2.modeling_convnextv2 import ConvNextV2Layer, ConvNextV2Stage

from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.stream import Stream, map_stream
from vitscope.models.subject import Composition
from vitscope.models.transformers.block import expect
from vitscope.models.unit import AbstractUnit, Place, UnitKind, WholeUnit, chain, identity

Bare = ConvNextModel | ConvNextV2Model
Classifying = ConvNextForImageClassification | ConvNextV2ForImageClassification


@ADAPTERS.add("transformers/convnext")
@final
class ConvNextAdapter(AbstractAdapter):
    """ConvNeXt and ConvNeXt V2: bare (gives pooled features) or with the classifier."""

    name = "transformers/convnext"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a transformers ConvNeXt with or without classifier."""
        return isinstance(module, Bare | Classifying)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Embeddings; every residual block, downsampling between stages; pooling, norm, classifier."""
        body, path = _body(module)
        classifier = module.classifier if isinstance(module, Classifying) else nn.Identity()

        def stem(images: Tensor) -> Stream:
            return map_stream(body.embeddings(images))

        def tail(stream: Stream) -> Tensor:
            return classifier(body.layernorm(stream.values.mean([-2, -1])))

        return Composition(stem, tuple(_units(body, path)), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """V1 with and without LayerScale and classifier, V2."""
        small = {"hidden_sizes": [8, 16, 24], "depths": [1, 2, 1], "num_stages": 3, "num_labels": 7}
        scaled = ConvNextConfig(**small, layer_scale_init_value=0.3)  # pyright: ignore[reportArgumentType]
        unscaled = ConvNextConfig(**small, layer_scale_init_value=0.0)  # pyright: ignore[reportArgumentType]
        second = ConvNextV2Config(**small)  # pyright: ignore[reportArgumentType]
        return (
            Example("convnext", lambda: ConvNextForImageClassification(scaled), (3, 32, 48)),
            Example("convnext bare", lambda: ConvNextModel(unscaled), (3, 32, 32)),
            Example("convnext v2", lambda: ConvNextV2ForImageClassification(second), (3, 32, 32)),
            Example("convnext v2 bare", lambda: ConvNextV2Model(second), (3, 32, 32)),
        )


def _body(module: nn.Module) -> tuple[Bare, str]:
    if isinstance(module, ConvNextForImageClassification):
        return module.convnext, "convnext."
    if isinstance(module, ConvNextV2ForImageClassification):
        return module.convnextv2, "convnextv2."
    return cast(Bare, module), ""


def _units(body: Bare, path: str) -> Iterator[AbstractUnit]:
    block = 0
    for index, stage_module in enumerate(body.encoder.stages):
        name = f"{path}encoder.stages.{index}"
        stage = expect(stage_module, (ConvNextStage, ConvNextV2Stage), name)
        if len(stage.downsampling_layer) > 0:
            place = Place(UnitKind.DOWNSAMPLING, f"{name}.downsampling_layer", index, block)
            yield WholeUnit(place, partial(_on_map, tuple(stage.downsampling_layer)))
        for i, layer in enumerate(stage.layers):
            block_name = f"{name}.layers.{i}"
            residual = expect(layer, (ConvNextLayer, ConvNextV2Layer), block_name)
            place = Place(UnitKind.CONVOLUTION, block_name, index, block)
            yield WholeUnit(place, partial(_on_map, (residual,)), identity)
            block += 1


def _on_map(layers: tuple[nn.Module, ...], stream: Stream) -> Stream:
    return map_stream(chain(layers, stream.values))
