"""torchvision's vision transformers."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.vision_transformer import ConvStemConfig, EncoderBlock, VisionTransformer

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.attention import Attention, global_tokens, join_heads
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import Composition
from vitscope.models.unit import AbstractAttentionHeads, AbstractUnit, Place, Residual, ResidualAttention, UnitKind


@dataclass(frozen=True)
class PackedHeads(AbstractAttentionHeads):
    """``torch.nn.MultiheadAttention`` used as self-attention, batch first, read from its packed weights."""

    heeds_kept = True
    module: nn.MultiheadAttention

    def project(self, values: Float[Tensor, "batch tokens dim"], stream: Stream) -> Attention:
        """Queries, keys and values, global over all tokens."""
        module = self.module
        packed = functional.linear(values, module.in_proj_weight, module.in_proj_bias)
        packed = packed.unflatten(-1, (3, module.num_heads, module.head_dim)).unsqueeze(1)
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
            scale=module.head_dim**-0.5,
        )

    def combine(self, attention: Attention, context: Float[Tensor, "batch 1 heads queries width"]) -> Tensor:
        """The module's output: heads joined and projected."""
        return self.module.out_proj(join_heads(context))


def _heads(block: nn.Module, name: str) -> PackedHeads:
    """The block's attention, if it is plain self-attention."""
    attention = getattr(block, "self_attention", None)
    if (
        not isinstance(attention, nn.MultiheadAttention)
        or not attention._qkv_same_embed_dim  # pyright: ignore[reportPrivateUsage]
        or not attention.batch_first
        or attention.bias_k is not None
        or attention.add_zero_attn
    ):
        raise UserError(
            f"{name} is a {type(block).__name__} with {attention}; only an EncoderBlock whose MultiheadAttention has "
            "packed weights, no added keys and the batch first can be read."
        )
    return PackedHeads(attention)


def _block_units(block: nn.Module, part: str, index: int) -> Iterator[AbstractUnit]:
    name = f"encoder.layers.{part}"
    heads, block = _heads(block, name), cast(EncoderBlock, block)
    place = Place(UnitKind.ATTENTION, f"{name}.self_attention", 0, index)
    yield ResidualAttention(place, (block.ln_1,), heads, (block.dropout,))
    yield Residual(Place(UnitKind.MLP, f"{name}.mlp", 0, index), (block.ln_2, block.mlp))


@ADAPTERS.add("torchvision/vit")
@final
class VitAdapter(AbstractAdapter):
    """``torchvision.models.VisionTransformer``, with patch or convolutional stem."""

    name = "torchvision/vit"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a torchvision ``VisionTransformer``."""
        return isinstance(module, VisionTransformer)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Patch embedding and class token; attention and MLP of every block; norm and heads on the class token."""
        model = cast(VisionTransformer, module)
        encoder = model.encoder

        def stem(images: Tensor) -> Stream:
            patches = model._process_input(images)  # pyright: ignore[reportPrivateUsage]
            values = torch.cat([model.class_token.expand(patches.shape[0], -1, -1), patches], dim=1)
            grid = (images.shape[2] // model.patch_size, images.shape[3] // model.patch_size)
            return token_stream(encoder.dropout(values + encoder.pos_embedding), grid, prefix=1)

        def tail(stream: Stream) -> Tensor:
            return model.heads(encoder.ln(stream.values)[:, 0])

        blocks = enumerate(encoder.layers.named_children())
        return Composition(
            stem, tuple(unit for i, (part, block) in blocks for unit in _block_units(block, part, i)), tail
        )

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Patch stem, and convolutional stem with a hidden layer in the head."""
        small = {"num_layers": 2, "num_heads": 3, "hidden_dim": 24, "mlp_dim": 32, "num_classes": 7}
        build = partial(VisionTransformer, 32, 8, **small)
        convolutions = [ConvStemConfig(out_channels, 3, 2) for out_channels in (8, 12, 16)]
        return (
            Example("patch stem", build, (3, 32, 32)),
            Example(
                "convolutional stem, hidden layer in the head",
                partial(build, conv_stem_configs=convolutions, representation_size=16),
                (3, 32, 32),
            ),
        )
