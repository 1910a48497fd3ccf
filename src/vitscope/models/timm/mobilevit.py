"""timm's MobileViT: inverted residuals, and transformers in which each pixel of a patch attends separately."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast, final

import timm
import torch
from timm.layers.attention import Attention as TimmAttention
from timm.models.byobnet import BottleneckBlock, ByobNet
from timm.models.mobilevit import MobileVitBlock, MobileVitV2Block
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.feature_map import OnMap
from vitscope.models.stream import Stream, channels_last_stream, map_stream
from vitscope.models.subject import Composition
from vitscope.models.timm.attention import PlainHeads
from vitscope.models.unit import AbstractUnit, Place, Residual, UnitKind, WholeUnit, chain, identity
from vitscope.models.window import ResidualWindowAttention, Windows, strided_windows

_SHORTCUT = "shortcut"


@dataclass(frozen=True)
class _Local:
    """Local representation: convolutions, resized to whole patches; the input is carried along."""

    layers: tuple[nn.Module, ...]
    patch_size: tuple[int, int]

    def __call__(self, stream: Stream) -> Stream:
        values = chain(self.layers, stream.values)
        height, width = (math.ceil(n / p) * p for n, p in zip(values.shape[2:], self.patch_size, strict=True))
        if (height, width) != values.shape[2:]:
            values = functional.interpolate(values, size=(height, width), mode="bilinear", align_corners=False)
        return replace(channels_last_stream(values.permute(0, 2, 3, 1)), carried={_SHORTCUT: stream.values})


@dataclass(frozen=True)
class _Fusion:
    """Normed, resized back, projected, and fused with the carried input."""

    norm: nn.Module
    project: nn.Module
    fuse: nn.Module | None

    def __call__(self, stream: Stream) -> Stream:
        shortcut = stream.carried[_SHORTCUT]
        values = self.norm(stream.values).permute(0, 3, 1, 2)
        if values.shape[2:] != shortcut.shape[2:]:
            values = functional.interpolate(values, size=shortcut.shape[2:], mode="bilinear", align_corners=False)
        values = self.project(values)
        if self.fuse is not None:
            values = self.fuse(torch.cat((shortcut, values), dim=1))
        return map_stream(values)


@dataclass(frozen=True)
class _SamePixel:
    """Windows of the tokens at the same place in their patches."""

    patch_size: tuple[int, int]

    def __call__(self, stream: Stream) -> Windows:
        (height, width), (rows, columns) = stream.grid, self.patch_size
        return strided_windows(stream.grid, (height // rows, width // columns), stream.values.device)


def _mobilevit_units(block: MobileVitBlock, name: str, stage: int, index: int) -> Iterator[AbstractUnit]:
    patch_size, part = cast(tuple[int, int], block.patch_size), block.get_submodule
    local = _Local((part("conv_kxk"), part("conv_1x1")), patch_size)
    yield WholeUnit(Place(UnitKind.CONVOLUTION, f"{name}.conv_1x1", stage, index), local)
    for number, layer in enumerate(_layers(block)):
        path = f"{name}.transformer.{number}"
        if not isinstance(layer, Block) or not isinstance(layer.attn, TimmAttention):
            found = f"{type(layer).__name__} with {type(getattr(layer, 'attn', None)).__name__}"
            raise UserError(f"{path} is a {found}; only a Block with Attention can be read.")
        before, after = (layer.norm1,), (layer.ls1, layer.drop_path1)
        place = Place(UnitKind.ATTENTION, f"{path}.attn", stage, index + number)
        yield ResidualWindowAttention(place, before, PlainHeads(layer.attn), after, _SamePixel(patch_size))
        layers = (layer.norm2, layer.mlp, layer.ls2, layer.drop_path2)
        yield Residual(Place(UnitKind.MLP, f"{path}.mlp", stage, index + number), layers)
    fusion = _Fusion(part("norm"), part("conv_proj"), cast(nn.Module | None, block.conv_fusion))
    last = index + len(_layers(block)) - 1
    yield WholeUnit(Place(UnitKind.CONVOLUTION, f"{name}.conv_proj", stage, last), fusion)


def _layers(block: MobileVitBlock) -> nn.Sequential:
    return cast(nn.Sequential, block.transformer)


def _units(model: ByobNet) -> Iterator[AbstractUnit]:
    index = 0
    for stage, blocks in enumerate(model.stages):
        for number, block in enumerate(cast(nn.Sequential, blocks)):
            name = f"stages.{stage}.{number}"
            if isinstance(block, MobileVitBlock):
                yield from _mobilevit_units(block, name, stage, index)
                index += len(_layers(block))
            elif isinstance(block, BottleneckBlock):
                strided = cast(nn.Conv2d, block.conv2_kxk.conv).stride != (1, 1)
                kind = UnitKind.DOWNSAMPLING if strided else UnitKind.CONVOLUTION
                shortcut = identity if isinstance(block.shortcut, nn.Identity) else None
                yield WholeUnit(Place(kind, name, stage, index), OnMap(block), shortcut)
                index += 1
            else:
                raise UserError(
                    f"{name} is a {type(block).__name__}; the blocks that can be read are BottleneckBlock and "
                    "MobileVitBlock (MobileViT V2 has no attention between pairs of tokens)."
                )


@ADAPTERS.add("timm/mobilevit")
@final
class MobileVitAdapter(AbstractAdapter):
    """``timm.models.ByobNet`` with MobileViT blocks; those of MobileViT V2 are refused by name."""

    name = "timm/mobilevit"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a timm ``ByobNet`` with a MobileViT block of either version."""
        parts = (MobileVitBlock, MobileVitV2Block)
        return isinstance(module, ByobNet) and any(isinstance(part, parts) for part in module.modules())

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Stem; blocks, those of MobileViT as local convolution, attention, MLP and fusion; last convolution, head."""
        model = cast(ByobNet, module)

        def stem(images: Tensor) -> Stream:
            return map_stream(model.stem(images))

        def tail(stream: Stream) -> Tensor:
            return model.forward_head(model.final_conv(stream.values))

        return Composition(stem, tuple(_units(model)), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Whole patches; maps that are resized to whole patches and back."""

        def build() -> nn.Module:
            return timm.create_model("mobilevit_xxs", num_classes=7)

        return (Example("whole patches", build, (3, 64, 64)), Example("resized maps", build, (3, 48, 80)))
