"""ResNet-18 for 32 x 32 images, registered with timm: ``timm.create_model("resnet18_cifar")``."""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

default_cfgs = generate_default_cfgs(
    {
        "resnet18_cifar.untrained": {
            "num_classes": 10,
            "input_size": (3, 32, 32),
            "pool_size": (4, 4),
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": (0.4914, 0.4822, 0.4465),
            "std": (0.2470, 0.2435, 0.2616),
            "first_conv": "conv1",
            "classifier": "fc",
        }
    }
)


@register_model
def resnet18_cifar(pretrained: bool = False, **kwargs: Any) -> ResNet:  # noqa: ANN401 (the signature timm requires of its models)
    """ResNet-18 with a 3 x 3 stem of stride 1 and no max-pooling: 32 x 32 images keep their resolution in stage 1.

    11,173,962 parameters for ten classes and three channels.
    """
    arguments: dict[str, Any] = {"block": BasicBlock, "layers": (2, 2, 2, 2), **kwargs}
    model = build_model_with_cfg(ResNet, "resnet18_cifar", pretrained, **arguments)
    stem = model.conv1
    assert isinstance(stem, nn.Conv2d)
    model.conv1 = nn.Conv2d(stem.in_channels, stem.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
