"""transformers as a library of models: creation by hub name or folder, input, class names, weights."""

from pathlib import Path
from typing import cast, final

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import (
    LIBRARIES,
    AbstractLibrary,
    Outputs,
    Restored,
    Size,
    load_strictly,
    refuse_crop,
    refuse_options,
    refuse_unknown_options,
)
from vitscope.models.classes import named_outputs
from vitscope.models.folder import Folder, complaint, read_folder, refuse_without_weights
from vitscope.models.subject import Preprocessing
from vitscope.models.transformers.configuration import class_of
from vitscope.models.transformers.folder import load_pretrained, transformers_from_folder, with_weights
from vitscope.models.transformers.input import transformers_input


@LIBRARIES.add("transformers")
@final
class Transformers(AbstractLibrary):
    """Hugging Face transformers: a hub name, or a folder written by ``save_pretrained``."""

    name = "transformers"
    renames = True

    @classmethod
    def create(cls, name: str, pretrained: bool, **options: object) -> nn.Module:
        """The model of this hub name or folder, in float32; the weights that a folder holds are always loaded.

        The class is the one the configuration names. ViTMAE is made to hide no patches. Raises ``UserError`` if the
        hub or the files cannot be reached, or if weights of the model are missing from them.
        """
        if Path(name).is_dir():
            refuse_options("A saved folder", options)
            folder = read_folder(Path(name))
            if pretrained:
                refuse_without_weights(folder)
            module = cls.from_folder(folder).module
            return cls.load_saved(module, folder.weights).module if folder.file else module
        config = _config(name)
        build, _ = class_of(config, Path(name))
        own_config = cast(type[PretrainedConfig], build.config_class)
        if not isinstance(config, own_config):
            config = own_config.from_pretrained(name)
        refuse_unknown_options(f"transformers/{name}", options, {*config.to_dict(), "num_labels"})
        for key, value in options.items():
            setattr(config, key, value)
        if config.model_type == "vit_mae":
            config.mask_ratio = 0.0
        return _fetch(build, name, config) if pretrained else build(config)

    @classmethod
    def options(cls, size: Size) -> dict[str, object]:
        """``num_labels``, ``num_channels``, and ``image_size``, which is one number for a square."""
        image = size.image and (size.image[0] if size.image[0] == size.image[1] else size.image)
        given = {"num_labels": size.classes, "num_channels": size.channels, "image_size": image}
        return {name: value for name, value in given.items() if value is not None}

    @classmethod
    def owns_folder(cls, config: dict[str, object]) -> bool:
        """Whether its ``config.json`` names a ``model_type``, as transformers' own do."""
        return "model_type" in config

    @classmethod
    def from_folder(cls, folder: Folder) -> Restored:
        """The model that :func:`transformers_from_folder` rebuilds."""
        return transformers_from_folder(folder)

    @classmethod
    def preprocessing(cls, module: nn.Module, crop: float | None = None) -> Preprocessing:
        """The image processor saved beside the weights, or the module's own size; see :func:`transformers_input`."""
        refuse_crop(cls.name, crop)
        return transformers_input(module)

    @classmethod
    def classes(cls, module: nn.Module) -> Outputs:
        """The classifier's width, and the names of ``id2label``, or of ``label2id`` if those are placeholders."""
        if not any("ForImageClassification" in base.__name__ for base in type(module).__mro__):
            return Outputs(0)
        config = cast(PreTrainedModel, module).config
        found = named_outputs(cast(int, config.num_labels), config.id2label, "id2label")
        if found.names or found.notes:
            return found
        return named_outputs(found.count, config.label2id, "label2id")

    @classmethod
    def load_weights(cls, module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        """The module with these weights if they have its names; else a new one, loaded by names of earlier versions.

        Raises ``UserError`` for names of an earlier version if the module was changed from its configuration.
        """
        module, left = _with_names(module, state)
        if left:
            raise UserError(f"The weights do not fit {type(module).__name__}: unknown {', '.join(left[:4])}.")
        return module

    @classmethod
    def load_saved(cls, module: nn.Module, state: dict[str, Tensor]) -> Restored:
        """As ``load_weights``, but leaves out weights without a part, as a vision tower has none for texts."""
        module, left = _with_names(module, state)
        few = f"{len(left)} of the weights ({', '.join(left[:3])})"
        said = f"{type(module).__name__} has no part for {few}, which are left out."
        return Restored(module, (said,) if left else ())


def _with_names(module: nn.Module, state: dict[str, Tensor]) -> tuple[nn.Module, tuple[str, ...]]:
    """The module with these weights, and the names left over; a new module for names of an earlier version."""
    model = cast(PreTrainedModel, module)
    if state.keys() == model.state_dict().keys() or not _is_as_made(model):
        return load_strictly(model, state), ()
    again, left = with_weights(type(model), model.config, state)
    again.config.name_or_path = model.config.name_or_path  # where its processor is; loading from a state drops it
    return again, left


def _is_as_made(model: PreTrainedModel) -> bool:
    """Whether the module is as its class builds it from its configuration: no replaced part, hook or forward."""
    try:
        with torch.device("meta"):
            plain = type(model)(model.config)
    except Exception:  # a user's class may take other arguments
        return False
    own, made = ({name: type(part) for name, part in one.named_modules()} for one in (model, plain))
    own, made = ({name: own[name] for name in own if not name.startswith("pooler")} for own in (own, made))
    changing = ("_forward_hooks", "_forward_pre_hooks", "forward")
    return own == made and not any(vars(part).get(name) for part in model.modules() for name in changing)


def _config(name: str) -> PretrainedConfig:
    try:
        return cast(PretrainedConfig, AutoConfig.from_pretrained(name, trust_remote_code=False))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"transformers could not read a configuration of {name!r}, which must be a folder with a config.json or "
            f"a name on a hub that can be reached: {complaint(error)}."
        ) from error


def _fetch(build: type[PreTrainedModel], name: str, config: PretrainedConfig) -> nn.Module:
    try:
        return load_pretrained(build, name, config=config, use_safetensors=True, dtype=torch.float32)[0]
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"transformers could not load the safetensors weights of {name!r}: {complaint(error)}."
        ) from error
