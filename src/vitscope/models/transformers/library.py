"""transformers as a library of models: creation by hub name or folder, input, class names, weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

import torch
import transformers
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2
from transformers import AutoConfig, AutoImageProcessor, PretrainedConfig, PreTrainedModel

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import LIBRARIES, AbstractLibrary, Size, refuse_crop, refuse_unknown_options
from vitscope.models.subject import Preprocessing

_VISION_PART = {"CLIPModel": "CLIPVisionModelWithProjection"}
"""Models of images and texts, and the model of their images alone."""

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_NORMALISATION = {"vit": _HALF, "clip": _CLIP, "clip_vision_model": _CLIP}
"""Published mean and standard deviation by ``model_type``; ImageNet's for the others."""


@dataclass(frozen=True)
class ProcessorTransform:
    """A picture through a transformers image processor."""

    processor: Any

    def __call__(self, picture: Image.Image) -> Float[Tensor, "channels height width"]:
        """The model's input for one picture."""
        return self.processor(images=picture, return_tensors="pt")["pixel_values"][0].float()


@LIBRARIES.add("transformers")
@final
class Transformers(AbstractLibrary):
    """Hugging Face transformers: a hub name, or a folder written by ``save_pretrained`` (safetensors)."""

    name = "transformers"
    renames = True

    @classmethod
    def create(cls, name: str, pretrained: bool, **options: object) -> nn.Module:
        """The model of this hub name or folder, in float32; the weights that a folder holds are always loaded.

        The class is the one the configuration names. ViTMAE is made to hide no patches. Raises ``UserError`` where
        the hub or the files cannot be reached, or where weights of the model are missing from them.
        """
        config = _config(name)
        build = _class_of(config)
        own_config = cast(type[PretrainedConfig], build.config_class)
        if not isinstance(config, own_config):
            config = own_config.from_pretrained(name)
        refuse_unknown_options(f"transformers/{name}", options, {*config.to_dict(), "num_labels"})
        for key, value in options.items():
            setattr(config, key, value)
        if config.model_type == "vit_mae":
            config.mask_ratio = 0.0
        folder = Path(name)
        if pretrained or (folder.is_dir() and any(folder.glob("*.safetensors"))):
            return _loaded(build, name, config)
        return build(config)

    @classmethod
    def options(cls, size: Size) -> dict[str, object]:
        """``num_labels``, ``num_channels``, and ``image_size``, which is a number if it is square."""
        image = size.image and (size.image[0] if size.image[0] == size.image[1] else size.image)
        given = {"num_labels": size.classes, "num_channels": size.channels, "image_size": image}
        return {name: value for name, value in given.items() if value is not None}

    @classmethod
    def owns_folder(cls, config: dict[str, object]) -> bool:
        """Whether it is transformers' own: its ``config.json`` names a ``model_type``."""
        return "model_type" in config

    @classmethod
    def preprocessing(cls, module: nn.Module, crop: float | None = None) -> Preprocessing:
        """The image processor saved beside the weights; without one, the configuration's size, centre-cropped."""
        refuse_crop(cls.name, crop)
        config = cast(PreTrainedModel, module).config
        source = config.name_or_path
        if not source or not _has_processor(source):
            return _published(config)
        transform = ProcessorTransform(AutoImageProcessor.from_pretrained(source))
        wide, tall = (tuple(transform(Image.new("RGB", size)).shape) for size in ((96, 64), (64, 96)))
        if wide != tall or len(wide) != 3:
            raise UserError(
                f"The image processor of {source} gives inputs of shape {wide} for a wide picture and {tall} for "
                "a tall one; a size that is the same for all pictures (a crop) is needed."
            )
        text = f"{_text(wide)}, {type(transform.processor).__name__} of {source}"
        return Preprocessing(wide, transform, text, *_normalisation(transform))

    @classmethod
    def classes(cls, module: nn.Module) -> tuple[int, tuple[str, ...] | None]:
        """The classifier's width, and the names of ``id2label`` unless they are placeholders."""
        if "ForImageClassification" not in type(module).__name__:
            return 0, None
        config = cast(PreTrainedModel, module).config
        labels = cast(dict[int, str], config.id2label)
        names = tuple(labels[i] for i in range(len(labels)))
        placeholders = tuple(f"LABEL_{i}" for i in range(len(names)))
        return len(names), None if names == placeholders else names

    @classmethod
    def load_weights(cls, module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        """A new module with these weights, by the names of this or an earlier version of transformers."""
        model = cast(PreTrainedModel, module)
        options = {"config": model.config, "state_dict": state, "dtype": model.dtype}
        loaded, report = _from_pretrained(type(model), None, options)
        _refuse_misfit(type(model).__name__, report, surplus=sorted(report["unexpected_keys"]))
        return loaded


def _config(name: str) -> PretrainedConfig:
    try:
        return cast(PretrainedConfig, AutoConfig.from_pretrained(name, trust_remote_code=False))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"transformers could not read a configuration of {name!r}, which must be a folder with a config.json or "
            f"a name on a hub that can be reached: {_first_line(error)}"
        ) from error


def _class_of(config: PretrainedConfig) -> type[PreTrainedModel]:
    named = (config.architectures or [None])[0]
    if named is None:
        with torch.device("meta"):
            return type(cast(PreTrainedModel, transformers.AutoModel.from_config(config)))
    found = getattr(transformers, _VISION_PART.get(named, named), None)
    if isinstance(found, type) and issubclass(found, PreTrainedModel):
        return found
    raise UserError(f"The configuration names the architecture {named!r}, which transformers does not have.")


def _loaded(build: type[PreTrainedModel], name: str, config: PretrainedConfig) -> nn.Module:
    options = {"config": config, "use_safetensors": True, "dtype": torch.float32}
    try:
        model, report = _from_pretrained(build, name, options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"transformers could not load the safetensors weights of {name!r}: {_first_line(error)}"
        ) from error
    missing = set(report["missing_keys"])
    if missing and all(key.startswith("pooler.") for key in missing):  # self-supervised ViTs have no pooler
        model, report = _from_pretrained(build, name, {**options, "add_pooling_layer": False})
    _refuse_misfit(build.__name__, report, surplus=[])
    return model


def _from_pretrained(
    build: type[PreTrainedModel], name: str | None, options: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    return cast(Any, build).from_pretrained(name, **options, ignore_mismatched_sizes=True, output_loading_info=True)


def _refuse_misfit(model: str, report: dict[str, Any], surplus: list[str]) -> None:
    problems = [
        *(f"missing {key}" for key in sorted(report["missing_keys"])),
        *(f"unknown {key}" for key in surplus),
        *(
            f"{key} is {tuple(found)} in the file and {tuple(own)} in the model"
            for key, found, own in sorted(report["mismatched_keys"])
        ),
    ]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise UserError(
            f"The weights do not fit {model}: {'; '.join(problems[:4])}{more}. "
            "Give the architecture the file was saved from."
        )


def _has_processor(source: str) -> bool:
    if Path(source).is_dir():
        return (Path(source) / "preprocessor_config.json").is_file()
    try:
        hf_hub_download(source, "preprocessor_config.json")
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"The hub could not be reached for the preprocessing of {source!r}; give the model as a local folder."
        ) from error
    except EntryNotFoundError:
        return False
    return True


def _published(config: PretrainedConfig) -> Preprocessing:
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    mean, std = _NORMALISATION.get(config.model_type, _IMAGENET)
    transform = v2.Compose(
        [
            v2.Resize(max(height, width), InterpolationMode.BICUBIC),
            v2.CenterCrop((height, width)),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )
    shape = (3, height, width)
    numbers = ("/".join(f"{value:.3g}" for value in values) for values in (mean, std))
    text = "{}, bicubic, centre crop, mean {}, std {}".format(_text(shape), *numbers)
    return Preprocessing(shape, transform, text, mean, std)


def _normalisation(transform: ProcessorTransform) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and deviation by channel, from what becomes of a black and a white picture; Nones where these are not flat.

    A processor has many switches (rescale, normalise, by what factor); the pictures show what they come to.
    """
    black, white = (transform(Image.new("RGB", (64, 64), colour)).double().flatten(1) for colour in ("black", "white"))
    scale = (white - black).mean(1)
    if any(float(one.std(1).max()) > 1e-5 for one in (black, white)) or float(scale.min()) <= 0:
        return None, None
    values = ((-black.mean(1) / scale).tolist(), (1 / scale).tolist())
    mean, std = (tuple(round(value, 6) for value in channel) for channel in values)
    return mean, std


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
