"""transformers' DINOv2, with and without register tokens."""

from collections.abc import Iterator
from typing import cast, final

import torch
from torch import Tensor, nn
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    Dinov2WithRegistersModel,
)
from transformers.models.dinov2.modeling_dinov2 import Dinov2Layer
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import Dinov2WithRegistersLayer

from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import Composition
from vitscope.models.transformers.attention import global_heads
from vitscope.models.transformers.block import expect, patch_grid
from vitscope.models.unit import AbstractUnit, Place, Residual, ResidualAttention, UnitKind

Bare = Dinov2Model | Dinov2WithRegistersModel
Classifying = Dinov2ForImageClassification | Dinov2WithRegistersForImageClassification


@ADAPTERS.add("transformers/dinov2")
@final
class Dinov2Adapter(AbstractAdapter):
    """DINOv2 with or without registers: bare (gives its class token), or with the linear classifier."""

    name = "transformers/dinov2"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a transformers DINOv2 with or without registers and classifier."""
        return isinstance(module, Bare | Classifying)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Embeddings; attention and MLP of every block with their LayerScale; norm, class token or classifier."""
        body, path = _body(module)
        registers = body.config.num_register_tokens if isinstance(body, Dinov2WithRegistersModel) else 0

        def stem(images: Tensor) -> Stream:
            grid = patch_grid(images, body.embeddings.patch_embeddings.patch_size)
            return token_stream(body.embeddings(images), grid, 1 + registers)

        def tail(stream: Stream) -> Tensor:
            tokens = body.layernorm(stream.values)
            if not isinstance(module, Classifying):
                return tokens[:, 0]
            return module.classifier(torch.cat([tokens[:, 0], tokens[:, stream.prefix :].mean(dim=1)], dim=1))

        return Composition(stem, tuple(_units(body, path)), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Bare, classifier, SwiGLU with stochastic depth, registers, interpolated positions."""
        small = {
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "mlp_ratio": 2,
            "image_size": 28,
            "patch_size": 7,
            "num_labels": 7,
            "layerscale_value": 0.3,
        }
        plain = Dinov2Config(**small)  # pyright: ignore[reportArgumentType]
        gated = Dinov2Config(**small, use_swiglu_ffn=True, drop_path_rate=0.1)  # pyright: ignore[reportArgumentType]
        registers = Dinov2WithRegistersConfig(**small, num_register_tokens=3)  # pyright: ignore[reportArgumentType]
        shape = (3, 28, 28)
        return (
            Example("dinov2 bare", lambda: Dinov2Model(plain), shape),
            Example("dinov2 classifier", lambda: Dinov2ForImageClassification(plain), shape),
            Example("dinov2 SwiGLU", lambda: Dinov2ForImageClassification(gated), shape),
            Example("dinov2 registers", lambda: Dinov2WithRegistersForImageClassification(registers), shape),
            Example("dinov2 registers bare", lambda: Dinov2WithRegistersModel(registers), shape),
            Example("dinov2 wide image", lambda: Dinov2Model(plain), (3, 35, 49)),
        )


def _body(module: nn.Module) -> tuple[Bare, str]:
    if isinstance(module, Dinov2ForImageClassification):
        return module.dinov2, "dinov2."
    if isinstance(module, Dinov2WithRegistersForImageClassification):
        return module.dinov2_with_registers, "dinov2_with_registers."
    return cast(Bare, module), ""


def _units(body: Bare, path: str) -> Iterator[AbstractUnit]:
    for i, layer in enumerate(body.encoder.layer):
        name = f"{path}encoder.layer.{i}"
        block = expect(layer, (Dinov2Layer, Dinov2WithRegistersLayer), name)
        attention = Place(UnitKind.ATTENTION, f"{name}.attention", 0, i)
        heads = global_heads(block.attention, attention.name)
        yield ResidualAttention(attention, (block.norm1,), heads, (block.layer_scale1, block.drop_path))
        mlp = Place(UnitKind.MLP, f"{name}.mlp", 0, i)
        yield Residual(mlp, (block.norm2, block.mlp, block.layer_scale2, block.drop_path))
