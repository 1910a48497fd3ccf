"""torchvision as a library of models: creation by name, input, class names."""

import inspect
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum
from torchvision.transforms._presets import ImageClassification

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import (
    LIBRARIES,
    AbstractLibrary,
    Size,
    checked_crop,
    load_strictly,
    refuse_unknown_options,
)
from vitscope.models.subject import Preprocessing

HEADS = ("fc", "classifier", "heads", "head")


@LIBRARIES.add("torchvision")
@final
class Torchvision(AbstractLibrary):
    """torchvision's classification models: any name of ``torchvision.models.list_models(torchvision.models)``."""

    name = "torchvision"

    @classmethod
    def create(cls, name: str, pretrained: bool, **options: object) -> nn.Module:
        """The model of this name with random weights, or with torchvision's default pretrained ones."""
        names = models.list_models(module=models)
        if name not in names:
            near = get_close_matches(name, names, n=5) or names[:5]
            raise UserError(f"torchvision has no classification model named {name!r}; some it has: {', '.join(near)}.")
        try:
            return models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
        except (TypeError, ValueError, AssertionError) as error:
            with torch.device("meta"):
                taken = inspect.signature(type(models.get_model(name, weights=None)).__init__).parameters
            refuse_unknown_options(f"torchvision/{name}", options, taken.keys() - {"self", "args", "kwargs"})
            given = ", ".join(f"{key}={value!r}" for key, value in options.items())
            why = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"torchvision's {name} cannot be made with {given}: {why}.") from error
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"torchvision could not fetch the weights of {name!r} ({error}); "
                "connect to the internet, or give a weight file."
            ) from error

    @classmethod
    def options(cls, size: Size) -> dict[str, object]:
        """``num_classes``: torchvision's models take colour pictures, and most of any size."""
        if size.channels not in (None, 3):
            raise UserError(f"torchvision's models take 3 channels, not {size.channels}.")
        return {} if size.classes is None else {"num_classes": size.classes}

    @classmethod
    def owns_folder(cls, config: dict[str, object]) -> bool:
        """Torchvision saves no folders."""
        del config
        return False

    @classmethod
    def preprocessing(cls, module: nn.Module, crop: float | None = None) -> Preprocessing:
        """The transform of the architecture's pretrained weights; ImageNet's usual one where it has none."""
        weights = _weights_of(module)
        transform = _usual(module) if weights is None else cast(ImageClassification, weights.transforms())
        size = transform.crop_size[0]
        if crop is not None:
            transform.resize_size = [round(size / checked_crop(crop))]
        text = (
            f"3 x {size} x {size}, {transform.interpolation.value}, resize {transform.resize_size[0]}, "
            f"mean {_rounded(transform.mean)}, std {_rounded(transform.std)}"
        )
        return Preprocessing((3, size, size), transform, text, tuple(transform.mean), tuple(transform.std))

    @classmethod
    def classes(cls, module: nn.Module) -> tuple[int, tuple[str, ...] | None]:
        """The classifier's width; the categories of the architecture's pretrained weights where they are as many."""
        count, weights = _class_count(module), _weights_of(module)
        if weights is None or len(weights.meta["categories"]) != count:
            return count, None
        return count, tuple(weights.meta["categories"])

    @classmethod
    def load_weights(cls, module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        """Loaded strictly, by torchvision's own names."""
        return load_strictly(module, state)


def _weights_of(module: nn.Module) -> WeightsEnum | None:
    """The pretrained weights made for this architecture: of the same source file and number of weights."""
    count = sum(parameter.numel() for parameter in module.parameters())
    return next(
        (weights for weights in _published(type(module).__module__) if weights.meta["num_params"] == count), None
    )


def _published(source: str) -> Iterator[WeightsEnum]:
    """All weights of the models that a source file defines, each model's default first."""
    for name in models.list_models(module=models):
        if models.get_model_builder(name).__module__ == source:
            enum = cast(Any, models.get_model_weights(name))
            if len(enum):
                yield enum.DEFAULT
                yield from enum


def _usual(module: nn.Module) -> ImageClassification:
    """Resize so that the crop is 7/8 of the short side, crop, normalise by ImageNet's mean and deviation."""
    size = module.image_size if isinstance(module, models.VisionTransformer) else 224
    return ImageClassification(crop_size=size, resize_size=round(size * 8 / 7))


def _class_count(module: nn.Module) -> int:
    """Outputs of the last linear or convolutional layer of the head; 0 where there is none."""
    children = dict(module.named_children())
    layers = [layer for name in HEADS if name in children for layer in children[name].modules()]
    widths = [
        layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        for layer in layers
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    return widths[-1] if widths else 0


def _rounded(values: list[float]) -> str:
    return "/".join(f"{value:.3g}" for value in values)
