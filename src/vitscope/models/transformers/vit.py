"""transformers' ViT."""

from typing import cast, final

from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import Composition
from vitscope.models.transformers.block import block_units, patch_grid


@ADAPTERS.add("transformers/vit")
@final
class VitAdapter(AbstractAdapter):
    """``ViTModel`` (gives its pooled class token) and ``ViTForImageClassification``."""

    name = "transformers/vit"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a transformers ViT with or without classifier."""
        return isinstance(module, ViTModel | ViTForImageClassification)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Embeddings; attention and MLP of every block; norm, then the classifier, the pooler or the class token."""
        classifier = module.classifier if isinstance(module, ViTForImageClassification) else None
        path = "layers" if classifier is None else "vit.layers"
        body = cast(ViTModel, module if classifier is None else module.vit)

        def stem(images: Tensor) -> Stream:
            grid = patch_grid(images, body.embeddings.patch_embeddings.patch_size)
            return token_stream(body.embeddings(images), grid, 1)

        def tail(stream: Stream) -> Tensor:
            tokens = body.layernorm(stream.values)
            if classifier is not None:
                return classifier(tokens[:, 0])
            return tokens[:, 0] if body.pooler is None else body.pooler(tokens)

        return Composition(stem, tuple(block_units(body.layers, path)), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Classifier, wide image, pooled features, class token alone."""

        def config(image_size: int | tuple[int, int] = 32) -> ViTConfig:
            return ViTConfig(
                hidden_size=24,
                num_hidden_layers=2,
                num_attention_heads=3,
                intermediate_size=40,
                image_size=image_size,  # pyright: ignore[reportArgumentType]
                patch_size=8,
                num_labels=7,  # pyright: ignore[reportCallIssue]
            )

        shape = (3, 32, 32)
        return (
            Example("vit classifier", lambda: ViTForImageClassification(config()), shape),
            Example("vit wide image", lambda: ViTForImageClassification(config((32, 48))), (3, 32, 48)),
            Example("vit pooled", lambda: ViTModel(config()), shape),
            Example("vit class token", lambda: ViTModel(config(), add_pooling_layer=False), shape),
        )
