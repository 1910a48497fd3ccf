"""torchvision's ResNet, ResNeXt and wide ResNet."""

from collections.abc import Iterator
from functools import partial
from typing import cast, final

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.feature_map import OnMap
from vitscope.models.stream import Stream, map_stream
from vitscope.models.subject import Composition
from vitscope.models.unit import AbstractUnit, Place, UnitKind, WholeUnit, identity


def _units(model: ResNet) -> Iterator[AbstractUnit]:
    index = 0
    for stage, layer in enumerate((model.layer1, model.layer2, model.layer3, model.layer4)):
        for i, block in enumerate(layer):
            name = f"layer{stage + 1}.{i}"
            if not isinstance(block, BasicBlock | Bottleneck):
                found = type(block).__name__
                raise UserError(f"{name} is a {found}; the blocks that can be read are BasicBlock and Bottleneck.")
            kind = UnitKind.CONVOLUTION if block.stride == 1 else UnitKind.DOWNSAMPLING
            yield WholeUnit(
                Place(kind, name, stage, index), OnMap(block), identity if block.downsample is None else None
            )
            index += 1


@ADAPTERS.add("torchvision/resnet")
@final
class ResNetAdapter(AbstractAdapter):
    """``torchvision.models.ResNet`` with basic or bottleneck blocks: one unit per block, its final ReLU included."""

    name = "torchvision/resnet"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a torchvision ``ResNet``."""
        return isinstance(module, ResNet)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Stem with its pooling; the blocks of every stage; pooling and classifier."""
        model = cast(ResNet, module)

        def stem(images: Tensor) -> Stream:
            return map_stream(model.maxpool(model.relu(model.bn1(model.conv1(images)))))

        def tail(stream: Stream) -> Tensor:
            return model.fc(model.avgpool(stream.values).flatten(1))

        return Composition(stem, tuple(_units(model)), tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Basic blocks, and narrow bottlenecks with groups and dilation on a wide image."""
        layers, dilation = [1, 2, 1, 1], [False, True, True]
        bottlenecks = partial(ResNet, Bottleneck, layers, num_classes=7, groups=4, width_per_group=4)
        return (
            Example("basic", partial(ResNet, BasicBlock, layers, num_classes=7), (3, 64, 64)),
            Example("bottleneck", bottlenecks, (3, 64, 96)),
            Example("dilated", partial(bottlenecks, replace_stride_with_dilation=dilation), (3, 64, 64)),
        )
