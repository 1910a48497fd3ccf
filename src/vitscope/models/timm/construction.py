"""timm models with other sizes of input and output than their own."""

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
"""Arguments of ``timm.create_model`` that read files or addresses, or make no classifier: none of a model's own."""


def timm_model(name: str, arguments: Mapping[str, object], pretrained: bool = False) -> nn.Module:
    """The timm model of this name with these arguments of its constructor.

    ``img_size`` is left out for models that take images of any size (most convolutional networks), and is written into
    the module's configuration of its input either way. Raises ``UserError`` for an argument that it does not take.
    """
    if not timm.is_model(name):
        raise UserError(f"timm has no model named {name!r}{nearest(name, timm.list_models())}; see timm.list_models().")
    if refused := [key for key in arguments if key in _FETCHING]:
        raise UserError(
            f"timm/{name} takes no argument {refused[0]!r} here: it says where weights are, not what it is."
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


def known_name(name: str) -> str | None:
    """The name under which timm makes a model today, with its tag if timm has one; None if it is none of timm's.

    A tag that is not timm's is left out. Cost: a name that timm has replaced is made
    once without memory.
    """
    bare, _, tag = name.partition(".")
    if bare in timm.list_models():
        return name if tag and name in timm.list_models(f"{bare}.*", include_tags=True) else bare
    if not timm.is_model(bare):
        return None
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the name was replaced
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
    """Have pictures normalised and cropped as the module's trainer was told (mean, std, crop_pct, interpolation).

    One number stands for all channels. Raises ``UserError`` for values that no input has.
    """
    configured: Any = module
    configured.pretrained_cfg = dict(configured.pretrained_cfg) | {key: _told(key, told[key]) for key in told}


def _told(key: str, value: object) -> object:
    plain: Any = value.tolist() if isinstance(value, torch.Tensor | np.ndarray | np.generic) else value
    if key in ("mean", "std"):
        plain = list(plain) if isinstance(plain, list | tuple) else [plain]
    found = check_value(key, plain)
    if found is None:
        raise UserError(
            f"The checkpoint says that pictures were shown with {key} = {value!r:.60}, which no input of a model has: "
            "give the input as input=vitscope.PixelInput(...)."
        )
    return found


def configured_side(module: nn.Module) -> int:
    """Height of the input in the module's own configuration."""
    return resolve_model_data_config(module)["input_size"][1]


def registered_name(module: nn.Module) -> str | None:
    """The name under which timm knows the architecture of a module it made; None where the module does not say."""
    found: Any = getattr(module, "pretrained_cfg", None) or {}
    return found.get("architecture")
