"""torchvision's ConvNeXt."""

from collections.abc import Iterator
from functools import partial
from typing import cast, final

from torch import Tensor, nn
from torchvision.models.convnext import CNBlock, CNBlockConfig, ConvNeXt

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.feature_map import OnMap
from vitscope.models.stream import Stream, map_stream
from vitscope.models.subject import Composition
from vitscope.models.unit import AbstractUnit, Place, UnitKind, WholeUnit, identity


def _units(features: nn.Sequential) -> Iterator[AbstractUnit]:
    """``features`` is the stem, then stages of blocks with a norm and strided convolution between each two."""
    stage, index = 0, 0
    for position, part in enumerate(cast(list[nn.Sequential], list(features)[1:]), start=1):
        name = f"features.{position}"
        if isinstance(part[-1], nn.Conv2d):
            stage += 1
            yield WholeUnit(Place(UnitKind.DOWNSAMPLING, name, stage, index), OnMap(part))
            continue
        for i, block in enumerate(part):
            if not isinstance(block, CNBlock):
                raise UserError(f"{name}.{i} is a {type(block).__name__}; the block that can be read is CNBlock.")
            yield WholeUnit(Place(UnitKind.CONVOLUTION, f"{name}.{i}", stage, index), OnMap(block), identity)
            index += 1


@ADAPTERS.add("torchvision/convnext")
@final
class ConvNextAdapter(AbstractAdapter):
    """``torchvision.models.ConvNeXt``."""

    name = "torchvision/convnext"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a torchvision ``ConvNeXt``."""
        return isinstance(module, ConvNeXt)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Stem; residual blocks and downsampling; pooling and classifier."""
        model = cast(ConvNeXt, module)

        def stem(images: Tensor) -> Stream:
            return map_stream(model.features[0](images))

        def tail(stream: Stream) -> Tensor:
            return model.classifier(model.avgpool(stream.values))

        return Composition(stem, tuple(_units(model.features)), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Three stages, on a square and on a wide image."""
        stages = [CNBlockConfig(8, 12, 1), CNBlockConfig(12, 16, 2), CNBlockConfig(16, None, 1)]
        build = partial(ConvNeXt, stages, num_classes=7, layer_scale=0.3)
        return (
            Example("square image", build, (3, 64, 64)),
            Example("wide image, stochastic depth", partial(build, stochastic_depth_prob=0.2), (3, 32, 48)),
        )
