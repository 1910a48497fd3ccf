"""timm's ConvNeXt and ConvNeXt V2."""

from collections.abc import Iterator
from functools import partial
from typing import Any, cast, final

import timm
from timm.models.convnext import ConvNeXt, ConvNeXtBlock, ConvNeXtStage
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.feature_map import OnMap
from vitscope.models.stream import Stream, map_stream
from vitscope.models.subject import Composition
from vitscope.models.unit import AbstractUnit, Place, UnitKind, WholeUnit, identity


def _units(model: ConvNeXt) -> Iterator[AbstractUnit]:
    index = 0
    for stage, part in enumerate(cast(tuple[ConvNeXtStage, ...], tuple(model.stages))):
        name = f"stages.{stage}"
        if not isinstance(part.downsample, nn.Identity):
            yield WholeUnit(Place(UnitKind.DOWNSAMPLING, f"{name}.downsample", stage, index), OnMap(part.downsample))
        for i, block in enumerate(part.blocks):
            if not isinstance(block, ConvNeXtBlock):
                found = type(block).__name__
                raise UserError(f"{name}.blocks.{i} is a {found}; the block that can be read is ConvNeXtBlock.")
            place = Place(UnitKind.CONVOLUTION, f"{name}.blocks.{i}", stage, index)
            yield WholeUnit(place, OnMap(block), identity if isinstance(block.shortcut, nn.Identity) else None)
            index += 1


@ADAPTERS.add("timm/convnext")
@final
class ConvNextAdapter(AbstractAdapter):
    """``timm.models.ConvNeXt``: ConvNeXt and ConvNeXt V2."""

    name = "timm/convnext"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a timm ``ConvNeXt``."""
        return isinstance(module, ConvNeXt)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Stem; downsampling and residual blocks of every stage; norm, pooling and head."""
        model = cast(ConvNeXt, module)

        def stem(images: Tensor) -> Stream:
            return map_stream(model.stem(images))

        def tail(stream: Stream) -> Tensor:
            return model.forward_head(model.norm_pre(stream.values))

        return Composition(stem, tuple(_units(model)), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """V1 with LayerScale, V2 with response norm, overlapping stem and norm before pooling, dilation."""
        small: dict[str, Any] = {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 20), "num_classes": 7}
        build = partial(timm.create_model, **small)
        shape = (3, 64, 64)
        return (
            Example("convnext", partial(build, "convnext_tiny", ls_init_value=0.3), shape),
            Example("convnext v2", partial(build, "convnextv2_atto"), shape),
            Example("overlapping stem", partial(build, "convnext_nano_ols", head_norm_first=True), (3, 64, 96)),
            Example("stride 16, patches of 2", partial(build, "convnext_atto", output_stride=16, patch_size=2), shape),
        )
