"""The input that a timm module was made for: its own size and channels, its configuration's normalisation."""

from collections.abc import Iterator
from typing import Any, cast

from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from timm.layers.patch_embed import PatchEmbed
from timm.models import get_model_input_config
from torch import nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import check_crop
from vitscope.models.input import first_channels
from vitscope.models.subject import Preprocessing


def timm_input(module: nn.Module, crop: float | None = None) -> Preprocessing:
    """Timm's evaluation transform, at the size and for the channels that the module itself takes.

    The size is that of its patch embedding, else the one it was made with, else its configuration's, which purely
    convolutional networks do not enforce. ``crop`` replaces the share of the shorter side that the centre crop keeps.
    """
    configuration: dict[str, Any] = dict(getattr(module, "pretrained_cfg", None) or {})
    shape, notes = _shape(module, configuration)
    values = resolve_data_config({}, configuration, module) | {"input_size": shape}
    if crop is not None:
        values["crop_pct"] = check_crop(crop)
    lengths = {len(values["mean"]), len(values["std"])}
    if lengths - {1, 3, shape[0]}:
        raise UserError(
            f"The configuration of {type(module).__name__} has {len(values['mean'])} values of mean and "
            f"{len(values['std'])} of std for {shape[0]} channels: give input=vitscope.PixelInput(...)."
        )
    if lengths - {1, shape[0]}:
        values |= {name: (sum(values[name]) / len(values[name]),) for name in ("mean", "std")}
        notes.append(
            f"Its configuration has mean and deviation for 3 channels, the module {shape[0]}: their averages are taken."
        )
    transform = cast(Any, create_transform(**values, is_training=False))
    text = (
        f"{' x '.join(map(str, shape))}, {values['interpolation']}, crop {values['crop_pct']}, "
        f"mean {_round(values['mean'])}, std {_round(values['std'])}"
    )
    mean, std = (tuple(values[name]) * (shape[0] // len(values[name])) for name in ("mean", "std"))
    return Preprocessing(shape, transform, text, mean, std, tuple(notes))


def _shape(module: nn.Module, configuration: dict[str, Any]) -> tuple[tuple[int, int, int], list[str]]:
    known = get_model_input_config(module)
    channels, height, width = known["input_size"]
    embedded = _embedding_size(module)
    if embedded is not None:
        height, width = embedded if isinstance(embedded, tuple | list) else (embedded, embedded)
    entering = first_channels(module, known["first_conv"])
    if entering is not None and entering % channels:  # a first layer may take each channel several times
        channels = entering
    shape = (int(channels), int(height), int(width))
    notes = list(_unsaid(type(module).__name__, configuration))
    sized = embedded is not None or bool(getattr(module, "_traits", {}).get("img_size"))
    return shape, [*_guesses(type(module).__name__, shape, configuration.get("input_size"), sized), *notes]


def _unsaid(name: str, configuration: dict[str, Any]) -> Iterator[str]:
    """A note if a configuration lacks mean or deviation, so that they are a guess."""
    lacking = [said for key, said in (("mean", "mean"), ("std", "deviation")) if configuration.get(key) is None]
    if lacking and configuration.get("input_size") is not None:
        yield (
            f"The configuration of {name} has no {' and '.join(lacking)}: ImageNet's is a guess; give "
            "input=PixelInput(...) if it differs."
        )


def _embedding_size(module: nn.Module) -> Any:  # noqa: ANN401 (a side, or height and width)
    """The size that its patch embedding, of any name, is made for; None if there is none or it takes any size."""
    embeddings = (getattr(module, "patch_embed", None), *(p for p in module.modules() if isinstance(p, PatchEmbed)))
    return next((size for one in embeddings if (size := getattr(one, "img_size", None)) is not None), None)


def _guesses(name: str, shape: tuple[int, ...], configured: tuple[int, ...] | None, sized: bool) -> Iterator[str]:
    if configured is not None and tuple(configured) != shape:
        yield f"Its configuration says {_sides(configured)}; it is shown {_sides(shape)}, for which it is made."
    elif configured is None and not sized:
        yield (
            f"{name} does not say how large its input is: {_sides(shape[1:])} pixels, timm's default, and ImageNet's "
            "mean and deviation are a guess; give input=PixelInput(...) if they differ."
        )
    elif configured is None:
        yield (
            f"{name} has no configuration: ImageNet's mean and deviation are a guess; give input=PixelInput(...) if "
            "they differ."
        )


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)


def _round(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:.3g}" for value in values)
