"""The input that a transformers module was made for: its image processor's if it takes that, else its own size."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2
from transformers import AutoImageProcessor, PretrainedConfig, PreTrainedModel

from vitscope.measurement.errors import UserError
from vitscope.models.feed import zero_image
from vitscope.models.folder import complaint, read_object
from vitscope.models.input import first_channels
from vitscope.models.pixels import LARGEST, MODES
from vitscope.models.subject import Preprocessing

Normalisation = tuple[tuple[float, ...] | None, tuple[float, ...] | None]
"""Mean and standard deviation by channel, if they are known."""
_FILE = "preprocessor_config.json"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_NORMALISATION = {
    **dict.fromkeys(("vit", "beit", "data2vec-vision", "siglip", "siglip_vision_model"), _HALF),
    **dict.fromkeys(("mobilenet_v1", "mobilenet_v2"), _HALF),
    **dict.fromkeys(("clip", "clip_vision_model", "metaclip_2", "metaclip_2_vision_model"), _CLIP),
}
"""Mean and standard deviation of published models by ``model_type``; ImageNet's for the others."""


@dataclass(frozen=True)
class ProcessorTransform:
    """A transform by an image processor of transformers."""

    processor: Any

    def __call__(self, picture: Image.Image) -> Float[Tensor, "channels height width"]:
        """The model's input for one picture."""
        return self.processor(images=picture, return_tensors="pt")["pixel_values"][0].float()


def transformers_input(module: nn.Module) -> Preprocessing:
    """The input that the image processor beside the weights makes of a picture, if the module takes that.

    Otherwise the module's own size and channels, centre-cropped, with the processor's normalisation or, without a
    processor, that of the published models of its kind; a note says so. Raises ``UserError`` for a processor that
    cannot be read, or whose inputs differ in size from picture to picture.
    """
    config = cast(PreTrainedModel, module).config
    own, sized = _own_shape(module, config)
    transform = _processor(config)
    if transform is None:
        return _at(own, _NORMALISATION.get(config.model_type, _IMAGENET), tuple(_guesses(config, own, sized)))
    shape, normalisation = _shape(transform, own[0], str(config.name_or_path))
    if shape is not None and (shape == own or _takes(module, shape)):
        text = f"{_text(shape)}, {type(transform.processor).__name__} of {config.name_or_path}"
        return Preprocessing(shape, transform, text, *normalisation)
    other = "other channels" if shape is None else _text(shape)
    known = normalisation if None not in normalisation else _read_normalisation(transform.processor)
    whose = "the processor's normalisation" if known else f"that of published {config.model_type} models, a guess"
    said = (
        f"Its image processor gives inputs of {other}, which it does not take: it is shown {_text(own)}, for which it "
        f"is made, with {whose}."
    )
    return _at(own, cast(Any, known or _NORMALISATION.get(config.model_type, _IMAGENET)), (said,))


def _read_normalisation(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:  # noqa: ANN401 (of any class)
    """A processor's own mean and deviation for pixels from 0 to 1; None if it uses another range."""
    mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    if not getattr(processor, "do_rescale", False) or abs(255 * getattr(processor, "rescale_factor", 0) - 1) > 1e-3:
        return None
    if not getattr(processor, "do_normalize", False):
        return (0.0,) * 3, (1.0,) * 3
    return (tuple(map(float, mean)), tuple(map(float, std))) if mean and std else None


def _own_shape(module: nn.Module, config: PretrainedConfig) -> tuple[tuple[int, int, int], bool]:
    """Channels, height and width that the module is made for, and whether it states its size."""
    vision = cast(PretrainedConfig, getattr(config, "vision_config", config))
    parts = (getattr(part, "image_size", None) for part in module.modules())
    size: Any = next((one for one in parts if isinstance(one, int | tuple | list)), getattr(vision, "image_size", None))
    height, width = (size, size) if isinstance(size, int) else tuple(size or (224, 224))
    channels = first_channels(module) or int(getattr(vision, "num_channels", 3))
    return (channels, int(height), int(width)), size is not None


def _takes(module: nn.Module, shape: tuple[int, int, int]) -> bool:
    try:
        with torch.no_grad():
            module(zero_image(module, shape))
    except Exception:  # the module's own error is not shown
        return False
    return True


def _at(
    shape: tuple[int, int, int], normalisation: tuple[tuple[float, ...], tuple[float, ...]], notes: tuple[str, ...]
) -> Preprocessing:
    """Preprocessing: the shorter side resized to the longer side of the input, centre crop, normalisation."""
    channels, height, width = shape
    mean, std = (_average(values, channels) for values in normalisation)
    transform = v2.Compose(
        [
            v2.Resize(max(height, width), InterpolationMode.BICUBIC),
            v2.CenterCrop((height, width)),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )
    numbers = ("/".join(f"{value:.3g}" for value in values) for values in (mean, std))
    text = "{}, bicubic, centre crop, mean {}, std {}".format(_text(shape), *numbers)
    return Preprocessing(shape, transform, text, mean, std, notes)


def _average(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _guesses(config: PretrainedConfig, own: tuple[int, int, int], sized: bool) -> Iterator[str]:
    size = f"its own {_text(own)} pixels are shown" if sized else f"{_text(own)} pixels are a guess"
    yield (
        f"It comes without an image processor ({_FILE}): {size}; bicubic, centre crop and the mean and deviation of "
        f"published {config.model_type} models are a guess, so give input=PixelInput(...) if they differ."
    )


def _processor(config: PretrainedConfig) -> ProcessorTransform | None:
    """The image processor of the folder or hub name that the module came from; None if there is none."""
    source = config.name_or_path
    if source in (None, "", "None") or not _has_processor(source):
        return None
    local = Path(source).is_dir()
    facts = read_object(Path(source) / _FILE) if local else {}
    _refuse_values(facts, f"{source}/{_FILE}")
    try:
        found = AutoImageProcessor.from_pretrained(
            source, config=config, trust_remote_code=False, local_files_only=local
        )
    except Exception as error:  # its checks may raise anything
        raise UserError(f"{source}/{_FILE} is not an image processor of transformers ({complaint(error)}).") from error
    named = str(facts.get("image_processor_type") or type(found).__name__).removesuffix("Fast")
    if not type(found).__name__.startswith(named):  # transformers then takes the one of the model's kind
        raise UserError(f"{source}/{_FILE} names {named!r}, which is not an image processor of transformers.")
    return ProcessorTransform(found)


def _has_processor(source: str) -> bool:
    if Path(source).is_absolute() or Path(source).is_dir():
        return (Path(source) / _FILE).is_file()
    try:
        hf_hub_download(source, _FILE)
    except (LocalEntryNotFoundError, GatedRepoError) as error:
        raise _hub_error(source) from error
    except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):
        return False  # a folder that is gone is not a name on the hub either
    except HfHubHTTPError as error:
        raise _hub_error(source) from error
    return True


def _hub_error(source: str) -> UserError:
    return UserError(
        f"The hub could not be reached for the preprocessing of {source!r}; give the model as a local folder, "
        "or its input as input=vitscope.PixelInput(...)."
    )


def _refuse_values(found: object, where: str, key: str = "", sized: bool = False) -> None:
    """Refuse sizes that no picture can have, deviations of 0 or less, and types that are not plain names."""
    sized = sized or "size" in key
    if isinstance(found, dict):
        for name, value in cast("dict[str, object]", found).items():
            _refuse_values(value, where, name, sized)
    elif isinstance(found, list):
        for value in cast("list[object]", found):
            _refuse_values(value, where, key, sized)
    elif isinstance(found, str):
        if key.endswith("_type") and not found.isidentifier():
            raise UserError(f"{where} has {key} = {found!r:.60}, which is not the name of an image processor.")
    elif isinstance(found, int | float) and not isinstance(found, bool):
        wrong = (sized and not 1 <= found <= LARGEST) or (key == "image_std" and found <= 0) or abs(found) > 1e9
        if wrong:
            raise UserError(f"{where} has {key} = {found}, which no picture can have; save the processor again.")


def _shape(
    transform: ProcessorTransform, channels: int, source: str
) -> tuple[tuple[int, int, int] | None, Normalisation]:
    """The shape that the processor gives any picture, and its normalisation; no shape if it refuses ``channels``."""
    mode = MODES.get(channels, "RGB")
    try:
        wide, tall = (tuple(transform(Image.new(mode, size)).shape) for size in ((96, 64), (64, 96)))
    except Exception as error:  # a processor may raise anything
        if mode != "RGB":
            return None, _normalisation(transform, "RGB")
        raise UserError(
            f"The image processor of {source} cannot be used ({complaint(error)}); save it again."
        ) from error
    if wide != tall or len(wide) != 3:
        raise UserError(
            f"The image processor of {source} gives inputs of shape {wide} for a wide picture and {tall} for "
            "a tall one; set a size that is the same for all pictures (a crop)."
        )
    return wide, _normalisation(transform, mode)


def _normalisation(
    transform: ProcessorTransform, mode: str
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and deviation by channel, measured with a black and a white picture; Nones if the results are not flat.

    A processor has many switches (rescale, normalise, by what factor); the pictures show their combined effect.
    """
    black, white = (transform(Image.new(mode, (64, 64), colour)).double().flatten(1) for colour in ("black", "white"))
    scale = (white - black).mean(1)
    if any(float(one.std(1).max()) > 1e-5 for one in (black, white)) or float(scale.min()) <= 0:
        return None, None
    values = ((-black.mean(1) / scale).tolist(), (1 / scale).tolist())
    mean, std = (tuple(round(value, 6) for value in channel) for channel in values)
    return mean, std


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)
