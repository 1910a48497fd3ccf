"""transformers' ViTMAE, examined on whole images."""

from typing import cast, final

import torch
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import Composition
from vitscope.models.transformers.block import block_units, patch_grid


def natural_order(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """The ``noise`` that leaves patches in their order: upstream sorts it to shuffle them."""
    count = grid[0] * grid[1]
    return torch.arange(count, device=images.device, dtype=images.dtype).expand(images.shape[0], count)


@ADAPTERS.add("transformers/vit-mae")
@final
class VitMaeAdapter(AbstractAdapter):
    """``ViTMAEModel`` (gives its class token) and ``ViTMAEForPreTraining`` (gives its reconstructed patches).

    No patch is hidden and none is moved. The units are the encoder's; the decoder is part of the tail.
    """

    name = "transformers/vit-mae"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a transformers ViTMAE with or without decoder."""
        return isinstance(module, ViTMAEModel | ViTMAEForPreTraining)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Embeddings; attention and MLP of every encoder block; norm, then the class token or the decoder."""
        decoder = module.decoder if isinstance(module, ViTMAEForPreTraining) else None
        path = "layers" if decoder is None else "vit.layers"
        body = cast(ViTMAEModel, module if decoder is None else module.vit)
        if body.embeddings.config.mask_ratio != 0:
            raise UserError(
                f"This ViTMAE hides a share of {body.embeddings.config.mask_ratio} of the patches; "
                "set config.mask_ratio = 0 on the module to examine it on whole images."
            )

        def stem(images: Tensor) -> Stream:
            grid = patch_grid(images, body.embeddings.patch_embeddings.patch_size)
            values, _, _ = body.embeddings(images, noise=natural_order(images, grid))
            return token_stream(values, grid, 1)

        def tail(stream: Stream) -> Tensor:
            tokens = body.layernorm(stream.values)
            if decoder is None:
                return tokens[:, 0]
            order = natural_order(tokens, stream.grid).long()
            if stream.kept is not None:  # the decoder puts its mask token where a patch was removed
                first = torch.arange(-stream.kept.shape[1], 0, device=tokens.device).expand_as(stream.kept)
                order = order.scatter(1, stream.kept, first).argsort(1).argsort(1)
            return cast(Tensor, decoder(tokens, order).logits)

        return Composition(stem, tuple(block_units(body.layers, path)), tail)

    @classmethod
    def call_arguments(cls, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """The noise that leaves the patches in their order."""
        body = cast(ViTMAEModel, module if isinstance(module, ViTMAEModel) else module.vit)
        return {"noise": natural_order(images, patch_grid(images, body.embeddings.patch_embeddings.patch_size))}

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """The encoder, the encoder with its decoder."""
        config = ViTMAEConfig(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=40,
            image_size=32,
            patch_size=8,
            decoder_hidden_size=16,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=24,
            mask_ratio=0.0,
        )
        shape = (3, 32, 32)
        return (
            Example("mae encoder", lambda: ViTMAEModel(config), shape),
            Example("mae with decoder", lambda: ViTMAEForPreTraining(config), shape),
        )
