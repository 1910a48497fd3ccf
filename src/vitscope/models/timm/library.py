"""timm as a library of models: creation by name or folder, input, class names."""

from pathlib import Path
from typing import cast, final

import timm
from timm.data.config import resolve_model_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torchvision.transforms import Compose

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import LIBRARIES, AbstractLibrary, Size, checked_crop, load_strictly, refuse_options
from vitscope.models.subject import Preprocessing
from vitscope.models.timm.construction import timm_model


@LIBRARIES.add("timm")
@final
class Timm(AbstractLibrary):
    """PyTorch Image Models: any name of ``timm.list_models()``, or a folder saved in timm's hub layout."""

    name = "timm"

    @classmethod
    def create(cls, name: str, pretrained: bool, **options: object) -> nn.Module:
        """The model of this name with random or pretrained weights; a folder is loaded with its weights."""
        if Path(name).is_dir():
            refuse_options("A saved folder", options)
            return timm.create_model(f"local-dir:{name}", pretrained=True)
        if not timm.is_model(name):
            near = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:5]
            raise UserError(
                f"timm has no model named {name!r}; some it has: {', '.join(near) or 'see timm.list_models()'}."
            )
        try:
            return timm_model(name, options, pretrained)
        except OSError as error:
            raise UserError(f"timm could not make {name!r} (pretrained={pretrained}): {error}") from error

    @classmethod
    def options(cls, size: Size) -> dict[str, object]:
        """``num_classes``, ``in_chans``, and ``img_size``, which is a number if it is square."""
        image = size.image and (size.image[0] if size.image[0] == size.image[1] else size.image)
        given = {"num_classes": size.classes, "in_chans": size.channels, "img_size": image}
        return {name: value for name, value in given.items() if value is not None}

    @classmethod
    def owns_folder(cls, config: dict[str, object]) -> bool:
        """Timm's ``config.json`` names an ``architecture``."""
        return "architecture" in config

    @classmethod
    def preprocessing(cls, module: nn.Module, crop: float | None = None) -> Preprocessing:
        """Timm's evaluation transform for the module's own configuration."""
        config = resolve_model_data_config(module)
        if crop is not None:
            config["crop_pct"] = checked_crop(crop)
        transform = cast(Compose, create_transform(**config, is_training=False))
        channels, height, width = config["input_size"]
        text = (
            f"{channels} x {height} x {width}, {config['interpolation']}, crop {config['crop_pct']}, "
            f"mean {_rounded(config['mean'])}, std {_rounded(config['std'])}"
        )
        normalisation = (tuple(config[name]) if len(config[name]) == channels else None for name in ("mean", "std"))
        return Preprocessing((channels, height, width), transform, text, *normalisation)

    @classmethod
    def classes(cls, module: nn.Module) -> tuple[int, tuple[str, ...] | None]:
        """The classifier's width; ImageNet's synset descriptions where the configuration says ImageNet."""
        count = cast(int, getattr(module, "num_classes", 0))
        subset = infer_imagenet_subset(module)
        if not subset or not count:
            return count, None
        info = ImageNetInfo(subset)
        return count, tuple(info.index_to_description(i) for i in range(info.num_classes()))

    @classmethod
    def load_weights(cls, module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        """Loaded strictly, by timm's own names."""
        return load_strictly(module, state)


def _rounded(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:.3g}" for value in values)
