"""timm's ResNet, ResNeXt and SE-ResNet, with basic and bottleneck blocks."""

from collections.abc import Iterator
from functools import partial
from typing import Any, cast, final

import timm
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.feature_map import OnMap
from vitscope.models.stream import Stream, map_stream
from vitscope.models.subject import Composition
from vitscope.models.timm import cifar_resnet as cifar_resnet  # registers its name with timm
from vitscope.models.unit import AbstractUnit, Place, UnitKind, WholeUnit, identity


def _units(model: ResNet) -> Iterator[AbstractUnit]:
    index = 0
    for stage, layer in enumerate((model.layer1, model.layer2, model.layer3, model.layer4)):
        for i, block in enumerate(cast(nn.Sequential, layer)):
            name = f"layer{stage + 1}.{i}"
            if not isinstance(block, BasicBlock | Bottleneck):
                found = type(block).__name__
                raise UserError(f"{name} is a {found}; the blocks that can be read are BasicBlock and Bottleneck.")
            kind = UnitKind.CONVOLUTION if block.stride == 1 else UnitKind.DOWNSAMPLING
            yield WholeUnit(
                Place(kind, name, stage, index), OnMap(block), identity if block.downsample is None else None
            )
            index += 1


@ADAPTERS.add("timm/resnet")
@final
class ResNetAdapter(AbstractAdapter):
    """``timm.models.ResNet`` with basic or bottleneck blocks: one unit per block, its final activation included."""

    name = "timm/resnet"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a timm ``ResNet``."""
        return isinstance(module, ResNet)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Stem with its pooling; the blocks of every stage; pooling and classifier."""
        model = cast(ResNet, module)

        def stem(images: Tensor) -> Stream:
            return map_stream(model.maxpool(model.act1(model.bn1(model.conv1(images)))))

        def tail(stream: Stream) -> Tensor:
            return model.forward_head(stream.values)

        return Composition(stem, tuple(_units(model)), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Basic blocks, bottlenecks, deep stem with anti-aliasing and squeeze-excitation, dilation, CIFAR's stem."""
        small: dict[str, Any] = {"layers": (1, 2, 1, 1), "channels": (8, 12, 16, 24), "num_classes": 7}
        build = partial(timm.create_model, **small)
        shape = (3, 64, 64)
        return (
            Example("basic", partial(build, "resnet18"), shape),
            Example("bottleneck, wide image", partial(build, "resnet50"), (3, 64, 96)),
            Example("deep stem, squeeze-excitation", partial(build, "seresnextaa101d_32x8d", base_width=64), shape),
            Example("dilated", partial(build, "resnet18", output_stride=8), shape),
            Example("cifar stem", partial(build, "resnet18_cifar"), (3, 32, 32)),
        )
