"""timm as a library of models: creation by name or folder, input, class names."""

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, final

import timm
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from timm.models import group_parameters
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import (
    LIBRARIES,
    AbstractLibrary,
    Outputs,
    Restored,
    Size,
    load_strictly,
    refuse_options,
)
from vitscope.models.classes import last_width, named_outputs
from vitscope.models.folder import Folder, read_folder, refuse_without_weights
from vitscope.models.subject import Preprocessing
from vitscope.models.timm.construction import timm_model
from vitscope.models.timm.folder import rename_weights, timm_from_folder
from vitscope.models.timm.input import timm_input

_WNID = re.compile(r"n\d{8}")


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
            folder = read_folder(Path(name))
            refuse_without_weights(folder)
            module = cls.from_folder(folder).module
            return cls.load_weights(module, cls.update_names(module, folder.weights))
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
        """``num_classes``, ``in_chans``, and ``img_size``, which is one number for a square."""
        image = size.image and (size.image[0] if size.image[0] == size.image[1] else size.image)
        given = {"num_classes": size.classes, "in_chans": size.channels, "img_size": image}
        return {name: value for name, value in given.items() if value is not None}

    @classmethod
    def owns_folder(cls, config: dict[str, object]) -> bool:
        """Timm's ``config.json`` names an ``architecture``."""
        return "architecture" in config

    @classmethod
    def from_folder(cls, folder: Folder) -> Restored:
        """The model that :func:`timm_from_folder` rebuilds."""
        return timm_from_folder(folder)

    @classmethod
    def preprocessing(cls, module: nn.Module, crop: float | None = None) -> Preprocessing:
        """Timm's evaluation transform for the module's own configuration."""
        return timm_input(module, crop)

    @classmethod
    def classes(cls, module: nn.Module) -> Outputs:
        """The classifier's width; the names of its configuration, else ImageNet's if a subset has as many classes.

        Names that are wnids are replaced by their descriptions. Taking ImageNet's names is a guess, which is noted.
        """
        count = _class_count(module)
        configuration: dict[str, Any] = getattr(module, "pretrained_cfg", None) or {}
        found = named_outputs(count, configuration.get("label_names"), "label_names")
        if found.names or found.notes:
            return _describe_classes(found, configuration.get("label_descriptions"))
        subset = infer_imagenet_subset({"num_classes": count})
        if not subset:
            return found
        said = f"Its {count} classes are assumed to be those of ImageNet ({subset}), which has as many."
        return Outputs(count, tuple(ImageNetInfo(subset).label_descriptions()), (said,))

    @classmethod
    def load_weights(cls, module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        """Load strictly, by timm's own names; weights in shapes of earlier versions are converted to today's."""
        own = module.state_dict()
        same = all(own[name].shape == state[name].shape for name in own.keys() & state.keys())
        return load_strictly(module, state if same else rename_weights(module, state))

    @classmethod
    def resample_weights(cls, module: nn.Module, image: tuple[int, int]) -> dict[str, Tensor]:
        """The weights with positions resampled by timm's ``set_input_size``; unchanged for models without it."""
        copied = copy.deepcopy(module)
        resize: Any = getattr(copied, "set_input_size", None)
        if resize is not None:
            resize(img_size=image)
        return cast("dict[str, Tensor]", copied.state_dict())

    @classmethod
    def layers(cls, module: nn.Module) -> dict[str, int]:
        """Layers by the model's own ``group_matcher``, as in timm's layer-wise learning rates."""
        matcher: Any = getattr(module, "group_matcher", None)
        if matcher is None:
            return super().layers(module)
        return cast("dict[str, int]", group_parameters(module, matcher(coarse=False), reverse=True))

    @classmethod
    def update_names(cls, module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights converted as timm itself does for earlier versions, unless that would change their sizes."""
        return rename_weights(module, state)


def _class_count(module: nn.Module) -> int:
    """Outputs of the last linear or convolutional layer of its classifier; ``num_classes`` if that has none."""
    classifier: object = getattr(module, "get_classifier", lambda: None)()
    width = last_width(classifier) if isinstance(classifier, nn.Module) else None
    return cast(int, getattr(module, "num_classes", 0)) if width is None else width


def _describe_classes(outputs: Outputs, descriptions: object) -> Outputs:
    """The outputs with wnids replaced by the configuration's descriptions, else timm's; other names unchanged."""
    if outputs.names is None or not all(_WNID.fullmatch(name) for name in outputs.names):
        return outputs
    own = cast("dict[str, object]", descriptions) if isinstance(descriptions, dict) else {}
    known = cast("dict[str, str]", ImageNetInfo("imagenet-21k-goog").label_descriptions(as_dict=True))
    return replace(outputs, names=tuple(str(own.get(name) or known.get(name, name)) for name in outputs.names))
