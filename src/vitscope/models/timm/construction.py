"""timm models with other sizes of input and output than their own."""

from collections.abc import Mapping
from typing import Any

import timm
from timm.data.config import resolve_model_data_config
from torch import nn

from vitscope.measurement.errors import UserError
from vitscope.models.timm import cifar_resnet as cifar_resnet  # registers its name with timm


def timm_model(name: str, arguments: Mapping[str, object]) -> nn.Module:
    """The timm model of this name with random weights and these arguments of ``timm.create_model``.

    ``img_size`` is left out for models that take images of any size (most convolutional networks).
    """
    if not timm.is_model(name):
        raise UserError(f"timm has no model named {name!r}; see timm.list_models().")
    values: dict[str, Any] = dict(arguments)
    try:
        return timm.create_model(name, **values)
    except TypeError as error:
        if "img_size" in values and "img_size" in str(error):
            return timm_model(name, {key: value for key, value in values.items() if key != "img_size"})
        given = ", ".join(f"{key}={value}" for key, value in values.items())
        raise UserError(f"timm's {name} cannot be made with {given}: {error}.") from error


def configured_side(module: nn.Module) -> int:
    """Height of the input in the module's own configuration."""
    return resolve_model_data_config(module)["input_size"][1]


def registered_name(module: nn.Module) -> str | None:
    """The name under which timm knows the architecture of a module it made; None where the module does not say."""
    found: Any = getattr(module, "pretrained_cfg", None) or {}
    return found.get("architecture")
