"""The input that a torchvision module was made for: that of the weights published for its architecture."""

from collections.abc import Iterator
from functools import cache
from typing import Any, cast

import torch
from torch import nn
from torchvision import models
from torchvision.models import WeightsEnum
from torchvision.transforms._presets import ImageClassification

from vitscope.models.adapter import check_crop
from vitscope.models.input import first_channels
from vitscope.models.subject import Preprocessing

HEADS = ("fc", "classifier", "heads", "head")
"""Names of the parts that hold torchvision's classifiers."""
_OTHER = (*HEADS, "aux", "AuxLogits")
"""Beginnings of the names of weights that depend on the number of classes."""


def torchvision_input(module: nn.Module, crop: float | None = None) -> Preprocessing:
    """The transform of the weights published for the module's architecture; ImageNet's usual one if there are none.

    The architecture is recognised by all but the classifier, so that a module with other classes gets the same input. A
    transformer's own size and a replaced first layer's channels take precedence. ``crop`` replaces the share of the
    shorter side that the centre crop keeps.
    """
    fitting, own = published_weights(module), _own_size(module)
    transforms = {weights.name: cast(ImageClassification, weights.transforms()) for weights in fitting}
    same = {name: one for name, one in transforms.items() if own in (None, (one.crop_size[0], one.crop_size[0]))}
    known = same or transforms
    taken, transform = next(iter(known.items()), ("", ImageClassification(crop_size=224, resize_size=256)))
    size = transform.crop_size[0]
    height, width = own or (size, size)
    notes = list(_guesses(type(module).__name__, taken, (height, width), known))
    if (height, width) != (size, size):
        transform.resize_size = [round(max(height, width) * transform.resize_size[0] / size)]
        transform.crop_size = [height, width]
    if crop is not None:
        transform.resize_size = [round(max(height, width) / check_crop(crop))]
    channels = first_channels(module) or 3
    if channels != len(transform.mean):
        for name in ("mean", "std"):
            values = cast(list[float], getattr(transform, name))
            setattr(transform, name, [sum(values) / len(values)] * channels)
        notes.append(f"torchvision's means and deviations are for 3 channels, the module takes {channels}: averages "
                     "are taken.")  # fmt: skip
    text = (
        f"{channels} x {height} x {width}, {transform.interpolation.value}, resize {transform.resize_size[0]}, "
        f"mean {_round(transform.mean)}, std {_round(transform.std)}"
    )
    return Preprocessing(
        (channels, height, width), transform, text, tuple(transform.mean), tuple(transform.std), tuple(notes)
    )


def published_weights(module: nn.Module) -> tuple[WeightsEnum, ...]:
    """The weights that torchvision publishes for the module's architecture, its default first; empty if there are none.

    An architecture is the names and shapes of all weights but the classifier's, the position embedding's and the first
    layer's. Cost: one model without memory for each architecture of the source file that is tried, once.
    """
    base = next((base for base in type(module).__mro__ if base.__module__.startswith("torchvision.")), None)
    if base is None:
        return ()
    size = sum(parameter.numel() for parameter in module.parameters())
    candidates = [
        name for name in models.list_models(module=models) if _weights(name) and _source(name) == base.__module__
    ]
    for name in sorted(candidates, key=lambda name: abs(_weights(name)[0].meta["num_params"] - size)):
        if _same_body(module, name):
            return _weights(name)
    return ()


def _own_size(module: nn.Module) -> tuple[int, int] | None:
    """Height and width that the module is built for, or that were requested; None if it takes any."""
    if isinstance(module, models.VisionTransformer):
        return module.image_size, module.image_size
    if isinstance(module, models.MaxVit):
        height, width = cast(tuple[int, int], cast(Any, module.blocks[0]).grid_size)
        return 4 * height, 4 * width  # the stem and the first block each halve it
    return cast("tuple[int, int] | None", getattr(module, "shown_size", None))


def _guesses(name: str, taken: str, shown: tuple[int, int], known: dict[str, ImageClassification]) -> Iterator[str]:
    pixels = f"{shown[0]} x {shown[1]} pixels"
    inputs = sorted({f"resize {one.resize_size[0]}, crop {one.crop_size[0]}" for one in known.values()})
    if not known:
        yield (
            f"torchvision publishes no weights for this {name}: {pixels} and ImageNet's mean and deviation are a "
            "guess; give input=PixelInput(...) if they differ."
        )
    elif shown != (known[taken].crop_size[0],) * 2:
        yield (
            f"The weights that torchvision publishes for this {name} are for {known[taken].crop_size[0]} pixels a "
            f"side; it is shown {pixels}, for which it is made."
        )
    elif len(inputs) > 1:
        yield (
            f"torchvision publishes weights for this {name} with several inputs ({'; '.join(inputs)}): that of its "
            f"default, {taken}, is taken; give crop or input=PixelInput(...) if it differs."
        )


def _source(name: str) -> str:
    return models.get_model_builder(name).__module__


@cache
def _weights(name: str) -> tuple[WeightsEnum, ...]:
    enum = cast(Any, models.get_model_weights(name))
    return tuple(dict.fromkeys((enum.DEFAULT, *enum))) if len(enum) else ()


def _body(module: nn.Module) -> dict[str, torch.Size]:
    state = module.state_dict()
    first = next((f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Conv2d)), "")
    left_out = (*_OTHER, "encoder.pos_embedding")
    return {key: one.shape for key, one in state.items() if key != first and not key.startswith(left_out)}


def _same_body(module: nn.Module, name: str) -> bool:
    own, published = _body(module), _published_body(name)
    if published is not None:
        return own == published
    entering = next((part.in_features for part in module.modules() if isinstance(part, nn.Linear)), 0)
    weights = sum(one.numel() for key, one in module.named_parameters() if key in own)
    first = next((part.weight.numel() for part in module.modules() if isinstance(part, nn.Conv2d)), 0)
    return weights + first + 1000 * (entering + 1) == _weights(name)[0].meta["num_params"]


@cache
def _published_body(name: str) -> dict[str, torch.Size] | None:
    """A published body; None for RegNets, which need memory and are recognised by their number of weights."""
    try:
        with torch.device("meta"):
            return _body(models.get_model(name, weights=None))
    except NotImplementedError:
        return None


def _round(values: list[float]) -> str:
    return "/".join(f"{value:.3g}" for value in values)
