"""timm models built with other sizes of input and output than their defaults."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import nn

from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest
from vitscope.models.adapter import refuse_unknown_options
from vitscope.models.timm import cifar_resnet as cifar_resnet  # registers its name with timm
from vitscope.models.timm.folder import check_value

_FETCHING = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "features_only")
"""Arguments of ``timm.create_model`` that read files or addresses, or make no classifier; none is a model's own."""


def timm_model(name: str, arguments: Mapping[str, object], pretrained: bool = False) -> nn.Module:
    """The timm model of this name with these arguments of its constructor.

    ``img_size`` is left out for models that take images of any size (most convolutional networks), and is written into
    the module's input configuration either way. Raises ``UserError`` for an argument that the model does not accept.
    """
    if not timm.is_model(name):
        raise UserError(f"timm has no model named {name!r}{nearest(name, timm.list_models())}; see timm.list_models().")
    if refused := [key for key in arguments if key in _FETCHING]:
        raise UserError(
            f"timm/{name} takes no argument {refused[0]!r} here: it is not an argument of the model itself."
        )
    values: dict[str, Any] = dict(arguments)
    try:
        module = timm.create_model(name, pretrained=pretrained, **values)
    except TypeError as error:
        if "img_size" not in values or "img_size" not in str(error):
            refuse_unknown_options(f"timm/{name}", arguments, _constructor_arguments(name))
            raise _unmade(name, arguments, error) from error
        del values["img_size"]
        module = timm_model(name, values, pretrained)
    except (RuntimeError, ValueError, AssertionError, LookupError, ArithmeticError, AttributeError) as error:
        raise _unmade(name, arguments, error) from error
    size: Any = arguments.get("img_size")
    if size is not None:
        sides = (size, size) if isinstance(size, int) else tuple(size)
        configured: dict[str, Any] = dict(cast(Any, module).pretrained_cfg)
        cast(Any, module).pretrained_cfg = configured | {
            "input_size": (arguments.get("in_chans", configured["input_size"][0]), *sides)
        }
    return module


def find_name(name: str) -> str | None:
    """The current name of a model in timm, with its tag if timm has that; None if timm does not have the model.

    A tag that is not timm's is left out. Cost: a name that timm has replaced is built once without memory.
    """
    bare, _, tag = name.partition(".")
    if bare in timm.list_models():
        return name if tag and name in timm.list_models(f"{bare}.*", include_tags=True) else bare
    if not timm.is_model(bare):
        return None
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the replaced name
        told: dict[str, str] = cast(Any, timm.create_model(bare)).pretrained_cfg
    return ".".join(filter(None, (told["architecture"], told.get("tag"))))


def _unmade(name: str, arguments: Mapping[str, object], error: Exception) -> UserError:
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "its own arguments"
    why = next(iter(str(error).splitlines()), "") or type(error).__name__
    return UserError(f"timm's {name} cannot be made with {given}: {why.rstrip('.')}.")


def _constructor_arguments(name: str) -> set[str]:
    """The arguments of a model's constructor, and those that timm gives to every model."""
    with torch.device("meta"):
        made = type(timm.create_model(name))
    return {"num_classes", "in_chans", *inspect.signature(made.__init__).parameters} - {"self", "args", "kwargs"}


def show_as(module: nn.Module, told: Mapping[str, object]) -> None:
    """Normalise and crop the module's pictures as its trainer did (mean, std, crop_pct, interpolation).

    One number applies to all channels. Raises ``UserError`` for values that no input can have.
    """
    configured: Any = module
    configured.pretrained_cfg = dict(configured.pretrained_cfg) | {key: _check_setting(key, told[key]) for key in told}


def _check_setting(key: str, value: object) -> object:
    plain: Any = value.tolist() if isinstance(value, torch.Tensor | np.ndarray | np.generic) else value
    if key in ("mean", "std"):
        plain = list(plain) if isinstance(plain, list | tuple) else [plain]
    found = check_value(key, plain)
    if found is None:
        raise UserError(
            f"The checkpoint sets {key} = {value!r:.60} for its pictures, which no input of a model can have: "
            "give the input as input=vitscope.PixelInput(...)."
        )
    return found


def configured_side(module: nn.Module) -> int:
    """Height of the input in the module's own configuration."""
    return resolve_model_data_config(module)["input_size"][1]


def registered_name(module: nn.Module) -> str | None:
    """The name in timm for the architecture of a module it made; None if the module does not say."""
    found: Any = getattr(module, "pretrained_cfg", None) or {}
    return found.get("architecture")
