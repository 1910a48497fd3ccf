"""transformers' Swin, with shifted and padded windows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import SwinConfig, SwinForImageClassification, SwinModel
from transformers.models.swin.modeling_swin import SwinLayer, SwinStage, window_partition, window_reverse

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.attention import Attention
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import Composition
from vitscope.models.transformers.attention import split
from vitscope.models.transformers.block import expect
from vitscope.models.unit import AbstractAttentionUnit, AbstractUnit, Place, Residual, UnitKind, WholeUnit, identity


@dataclass(frozen=True)
class ShiftedWindowAttention(AbstractAttentionUnit):
    """The attention half of a ``SwinLayer``: norm, padding, cyclic shift, windows, and all of it back.

    Windows are not shifted if one side of the grid is a single window, as upstream. Padding is projected like any
    token and takes part as keys, as upstream; its slots are marked -1.
    """

    layer: SwinLayer

    @property
    def bypass(self) -> Callable[[Stream], Stream]:
        """The stream as it came in."""
        return identity

    def project(self, stream: Stream) -> Attention:
        """Queries, keys and values of every window, with relative position bias and the mask of the shift."""
        self._refuse_large_window(stream.grid)
        attention, heads = self.layer.attention, self.layer.attention.num_attention_heads
        normed = self.layer.layernorm_before(stream.values)
        windows = self._partition(normed.unflatten(1, stream.grid))
        shape = (normed.shape[0], -1)
        tokens = self._tokens(stream.grid, normed.device)
        return Attention(
            queries=split(attention.q_proj(windows), heads).unflatten(0, shape),
            keys=split(attention.k_proj(windows), heads).unflatten(0, shape),
            values=split(attention.v_proj(windows), heads).unflatten(0, shape),
            query_tokens=tokens,
            key_tokens=tokens,
            grid=stream.grid,
            prefix=0,
            scale=attention.scaling,
            bias=self._bias(stream),
        )

    def branch(self, attention: Attention, context: Float[Tensor, "batch windows heads queries width"]) -> Tensor:
        """The module's output, ``batch x windows`` in its first axis."""
        del attention
        return self.layer.attention.o_proj(context.transpose(2, 3).flatten(3).flatten(0, 1))

    def finish(self, stream: Stream, branch: Tensor) -> Stream:
        """The residual sum, after windows are merged, shifted back and cut free of padding."""
        layer, (height, width) = self.layer, stream.grid
        windows = layer.dropout(branch).unflatten(1, (self._window, self._window))
        padded = cast(Tensor, window_reverse(windows, self._window, *self._padded_size(stream.grid)))
        whole = layer.cyclic_shift(padded, reverse=True) if self._shifts(stream.grid) else padded
        cut = whole[:, :height, :width].flatten(1, 2)
        return stream.with_values(stream.values + layer.drop_path(cut))

    @property
    def _window(self) -> int:
        return cast(int, self.layer.window_size)

    def _refuse_large_window(self, grid: tuple[int, int]) -> None:
        if min(self._window, *grid) ** 2 != self.layer.attention.relative_position_bias.window_area:
            raise UserError(
                f"{self.place.name} meets a grid of {grid[0]} x {grid[1]} tokens, smaller than its window; "
                "transformers' Swin cannot attend there, give it larger images."
            )

    def _shifts(self, grid: tuple[int, int]) -> bool:
        return min(grid) > self._window

    def _padded_size(self, grid: tuple[int, int]) -> tuple[int, int]:
        return -(-grid[0] // self._window) * self._window, -(-grid[1] // self._window) * self._window

    def _partition(self, values: Tensor) -> Tensor:
        height, width = values.shape[1:3]
        padded, _ = self.layer.maybe_pad(values, height, width)
        shifted = self.layer.cyclic_shift(padded) if self._shifts((height, width)) else padded
        return cast(Tensor, window_partition(shifted, self._window)).flatten(1, 2)

    def _tokens(self, grid: tuple[int, int], device: torch.device) -> Int[Tensor, "windows queries"]:
        numbers = torch.arange(1, grid[0] * grid[1] + 1, device=device).reshape(1, *grid, 1)
        return self._partition(numbers)[..., 0] - 1  # padding is 0, hence -1

    def _bias(self, stream: Stream) -> Float[Tensor, "1 windows heads queries keys"]:
        bias = self.layer.attention.relative_position_bias()[None]
        if not self._shifts(stream.grid):
            return bias
        values, (height, width) = stream.values, self._padded_size(stream.grid)
        mask = self.layer.get_attn_mask(height, width, dtype=values.dtype, device=values.device)
        return bias if mask is None else bias + mask[None, :, None]


@ADAPTERS.add("transformers/swin")
@final
class SwinAdapter(AbstractAdapter):
    """``SwinModel`` (gives its pooled features) and ``SwinForImageClassification``."""

    name = "transformers/swin"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a transformers Swin with or without classifier."""
        return isinstance(module, SwinModel | SwinForImageClassification)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Embeddings; attention and MLP of every block, patch merging between stages; norm, pooling, classifier."""
        classifier = module.classifier if isinstance(module, SwinForImageClassification) else nn.Identity()
        body = module.swin if isinstance(module, SwinForImageClassification) else cast(SwinModel, module)
        pooler = body.pooler
        if pooler is None:
            raise UserError(
                "This SwinModel has no pooling layer and so no features of a whole image; build it with one."
            )

        def stem(images: Tensor) -> Stream:
            values, grid = body.embeddings(images)
            return token_stream(values, cast(tuple[int, int], grid))

        def tail(stream: Stream) -> Tensor:
            return classifier(pooler(body.layernorm(stream.values).transpose(1, 2)).flatten(1))

        path = "encoder.layers" if module is body else "swin.encoder.layers"
        return Composition(stem, tuple(_units(body, path)), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Shifted windows, a grid that is not a multiple of the window, odd merging, absolute positions, bare."""

        def config(image_size: int, window: int, depths: tuple[int, ...], absolute: bool) -> SwinConfig:
            return SwinConfig(
                image_size=image_size,
                patch_size=4,
                embed_dim=8,
                depths=list(depths),
                num_heads=[2, 4][: len(depths)],
                window_size=window,
                mlp_ratio=2.0,
                use_absolute_embeddings=absolute,
                drop_path_rate=0.1,
                num_labels=7,  # pyright: ignore[reportCallIssue]
            )

        return (
            Example("swin", lambda: SwinForImageClassification(config(32, 4, (2, 2), False)), (3, 32, 32)),
            Example("swin padded", lambda: SwinForImageClassification(config(40, 4, (2, 2), False)), (3, 40, 40)),
            Example("swin odd merging", lambda: SwinForImageClassification(config(36, 3, (2, 2), True)), (3, 36, 36)),
            Example("swin wide image", lambda: SwinForImageClassification(config(32, 4, (2,), False)), (3, 30, 50)),
            Example("swin one window", lambda: SwinForImageClassification(config(32, 8, (2,), False)), (3, 32, 48)),
            Example("swin bare", lambda: SwinModel(config(32, 4, (2, 2), False)), (3, 32, 32)),
        )


def _units(body: SwinModel, path: str) -> Iterator[AbstractUnit]:
    block = 0
    for stage, stage_module in enumerate(body.encoder.layers):
        name = f"{path}.{stage}"
        blocks = expect(stage_module, (SwinStage,), name)
        for i, layer in enumerate(blocks.blocks):
            yield from _block_units(
                expect(layer, (SwinLayer,), f"{name}.blocks.{i}"), f"{name}.blocks.{i}", stage, block
            )
            block += 1
        if blocks.downsample is not None:
            place = Place(UnitKind.DOWNSAMPLING, f"{name}.downsample", stage + 1, block)
            yield WholeUnit(place, _merging(cast(nn.Module, blocks.downsample)))


def _block_units(layer: SwinLayer, name: str, stage: int, block: int) -> Iterator[AbstractUnit]:
    yield ShiftedWindowAttention(Place(UnitKind.ATTENTION, f"{name}.attention", stage, block), layer)
    mlp = Place(UnitKind.MLP, f"{name}.mlp", stage, block)
    yield Residual(mlp, (layer.layernorm_after, layer.mlp, layer.dropout))


def _merging(merge: nn.Module) -> Callable[[Stream], Stream]:
    def merge_patches(stream: Stream) -> Stream:
        height, width = stream.grid
        return token_stream(merge(stream.values, stream.grid), ((height + 1) // 2, (width + 1) // 2))

    return merge_patches
