"""The vision towers of transformers' CLIP."""

from collections.abc import Iterator
from typing import cast, final

from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import Composition
from vitscope.models.transformers.attention import global_heads
from vitscope.models.transformers.block import expect, patch_grid
from vitscope.models.unit import AbstractUnit, Place, Residual, ResidualAttention, UnitKind


@ADAPTERS.add("transformers/clip")
@final
class ClipAdapter(AbstractAdapter):
    """CLIP's vision tower: bare (gives its class token), with projection (its embedding), or with a classifier."""

    name = "transformers/clip"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a transformers CLIP that takes images."""
        towers = CLIPVisionModel | CLIPVisionModelWithProjection | CLIPForImageClassification
        return isinstance(module, towers | CLIPModel)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Embeddings and first norm; attention and MLP of every block; class token, projection or classifier."""
        if isinstance(module, CLIPModel):
            raise UserError(
                "CLIPModel takes images together with texts; examine its vision_model, "
                "or load the checkpoint as CLIPVisionModelWithProjection."
            )
        bare = isinstance(module, CLIPVisionModel)
        tower = module if bare else cast(CLIPVisionModelWithProjection, module).vision_model
        patch = cast(int, tower.embeddings.patch_size)

        def stem(images: Tensor) -> Stream:
            return token_stream(tower.pre_layrnorm(tower.embeddings(images)), patch_grid(images, (patch, patch)), 1)

        def tail(stream: Stream) -> Tensor:
            if isinstance(module, CLIPForImageClassification):
                return module.classifier(stream.patches.mean(dim=1))
            pooled = tower.post_layernorm(stream.values[:, 0])
            return module.visual_projection(pooled) if isinstance(module, CLIPVisionModelWithProjection) else pooled

        path = "encoder.layers" if bare else "vision_model.encoder.layers"
        return Composition(stem, tuple(_units(tower, path)), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """The bare tower, with projection, with a classifier."""
        config = CLIPVisionConfig(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=40,
            image_size=32,
            patch_size=8,
            projection_dim=10,
        )
        both = CLIPConfig(vision_config=config.to_dict(), num_labels=7)  # pyright: ignore[reportCallIssue]
        shape = (3, 32, 32)
        return (
            Example("clip bare", lambda: CLIPVisionModel(config), shape),
            Example("clip projection", lambda: CLIPVisionModelWithProjection(config), shape),
            Example("clip classifier", lambda: CLIPForImageClassification(both), shape),
        )


def _units(tower: CLIPVisionModel, path: str) -> Iterator[AbstractUnit]:
    for i, layer in enumerate(tower.encoder.layers):
        name = f"{path}.{i}"
        block = expect(layer, (CLIPEncoderLayer,), name)
        attention = Place(UnitKind.ATTENTION, f"{name}.self_attn", 0, i)
        yield ResidualAttention(attention, (block.layer_norm1,), global_heads(block.self_attn, attention.name), ())
        yield Residual(Place(UnitKind.MLP, f"{name}.mlp", 0, i), (block.layer_norm2, block.mlp))
