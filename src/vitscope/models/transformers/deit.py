"""transformers' DeiT, with its class and distillation tokens."""

from typing import cast, final

from torch import Tensor, nn
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    DeiTModel,
)

from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import Composition
from vitscope.models.transformers.block import block_units, patch_grid


@ADAPTERS.add("transformers/deit")
@final
class DeitAdapter(AbstractAdapter):
    """``DeiTModel`` (gives its pooled class token) and DeiT with one classifier or the mean of two."""

    name = "transformers/deit"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a transformers DeiT with or without classifier."""
        return isinstance(module, DeiTModel | DeiTForImageClassification | DeiTForImageClassificationWithTeacher)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Embeddings; attention and MLP of every block; norm and the module's head."""
        bare = isinstance(module, DeiTModel)
        body = module if bare else cast(DeiTForImageClassification, module).deit

        def stem(images: Tensor) -> Stream:
            grid = patch_grid(images, body.embeddings.patch_embeddings.patch_size)
            return token_stream(body.embeddings(images), grid, 2)

        def tail(stream: Stream) -> Tensor:
            return _head(module, body.layernorm(stream.values))

        return Composition(stem, tuple(block_units(body.layers, "layers" if bare else "deit.layers")), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """One classifier, two classifiers, pooled features."""
        config = DeiTConfig(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=40,
            image_size=32,
            patch_size=8,
            num_labels=7,  # pyright: ignore[reportCallIssue]
        )
        shape = (3, 32, 32)
        return (
            Example("deit classifier", lambda: DeiTForImageClassification(config), shape),
            Example("deit with teacher", lambda: DeiTForImageClassificationWithTeacher(config), shape),
            Example("deit pooled", lambda: DeiTModel(config), shape),
        )


def _head(module: nn.Module, tokens: Tensor) -> Tensor:
    if isinstance(module, DeiTForImageClassification):
        return module.classifier(tokens[:, 0])
    if isinstance(module, DeiTForImageClassificationWithTeacher):
        return (module.cls_classifier(tokens[:, 0]) + module.distillation_classifier(tokens[:, 1])) / 2
    pooler = cast(DeiTModel, module).pooler
    return tokens[:, 0] if pooler is None else pooler(tokens)
