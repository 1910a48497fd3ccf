"""timm models rebuilt from folders, in timm's layout or saved by transformers, by the allowed configuration."""

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, cast

import timm
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest
from vitscope.models.adapter import Restored
from vitscope.models.folder import Folder, complaint, make_without_memory, no_larger_than

_INPUT = ("input_size", "test_input_size", "min_input_size", "pool_size", "test_pool_size")
_SHARES = ("crop_pct", "test_crop_pct")
_TEXTS = ("interpolation", "crop_mode", "tag")
_KEPT = ("fixed_input_size", "num_classes", "label_names", "label_descriptions", "first_conv", "classifier")
"""What else a configuration may say, besides the above, ``mean`` and ``std``: nothing about where weights are."""
_ABOVE = ("num_classes", "label_names", "label_descriptions")
"""Keys at the top level."""
_PLACES = ("pretrained", "checkpoint", "cache", "file", "url", "hub", "path_", "features_only", "state_dict", "device")
"""Beginnings of arguments that say where weights are or go, or that make no classifier."""
_LARGEST, _PIXELS = 100_000, 8192
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
_CROPS = ("center", "squash", "border")


def timm_from_folder(folder: Folder) -> Restored:
    """The module that ``architecture`` and ``model_args`` describe.

    Only configuration that describes a model and its input is used. Raises ``UserError`` naming what is wrong.
    """
    facts = folder.configuration
    where = folder.path / "config.json"
    name = facts["architecture"]
    if not isinstance(name, str) or not timm.is_model(name):
        near = nearest(name, timm.list_models()) if isinstance(name, str) else ""
        raise UserError(f"{where} names the architecture {name!r}, which timm does not have{near}.")
    arguments = dict(_arguments(facts, where))
    configuration = dict(_configuration(facts, where))
    if arguments.get("num_classes") is not None:  # so that timm replaces no classifier
        configuration["num_classes"] = arguments["num_classes"]
    if arguments.get("in_chans") is not None:  # nor a first layer
        configuration["input_size"] = (arguments["in_chans"], *configuration.get("input_size", (3, 224, 224))[1:])

    def make() -> nn.Module:
        given = {**configuration, "architecture": name}
        return timm.create_model(name, pretrained=False, pretrained_cfg=given, **arguments)

    try:
        make_without_memory(folder, make)
        with no_larger_than(folder):
            module = make()
    except UserError:
        raise
    except Exception as error:  # a constructor may raise anything on foreign values
        raise UserError(f"{where} describes a {name} that timm cannot make ({complaint(error)}).") from error
    told: dict[str, Any] = cast(Any, module).pretrained_cfg
    told.update({key: None for key in ("mean", "std") if key not in configuration})  # timm would take ImageNet's
    return Restored(module, folder.notes)


def rename_weights(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under today's names and in today's shapes, as timm itself converts those of earlier versions.

    They are unchanged if timm would change their sizes: resample position embeddings, or replace a classifier.
    """
    for base in type(module).__mro__:
        change = getattr(sys.modules[base.__module__], "checkpoint_filter_fn", None)
        if change is None:
            continue
        scaled = {"adapt_layer_scale": True} if "adapt_layer_scale" in inspect.signature(change).parameters else {}
        try:
            found: dict[str, Tensor] = cast(Callable[..., Any], change)(dict(state), module, **scaled)
        except Exception:  # it may raise anything on another model's weights
            return state
        return found if _sizes(found) <= _sizes(state) else state
    return state


def _sizes(state: dict[str, Tensor]) -> Counter[int]:
    return Counter(tensor.numel() for tensor in state.values())


def _arguments(facts: Any, where: object) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (JSON)
    """The saved arguments of the constructor, which must be numbers, switches and short words."""
    given = facts.get("model_args")
    if not isinstance(given, dict | None):
        raise UserError(f"{where} has a {type(given).__name__} for model_args instead of names and values.")
    given = dict(given or {})
    for key in ("num_classes", "num_labels"):
        if facts.get(key) is not None:
            given.setdefault("num_classes", facts[key])
    if facts.get("architectures") == ["TimmWrapperModel"]:
        given["num_classes"] = 0
    for key, value in given.items():
        if key.startswith(_PLACES):
            raise UserError(f"{where} has the argument {key!r}, but no weights from elsewhere are read; remove it.")
        if not _is_plain(value):
            raise UserError(f"{where} has {key} = {value!r:.60}, which is not a valid argument of a model.")
        yield key, value


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return len(cast("list[object]", value)) <= 1000 and all(map(_is_plain, cast("list[object]", value)))
    if isinstance(value, dict):
        return all(map(_is_plain, cast("dict[str, object]", value).values()))
    if isinstance(value, str):
        return len(value) < 100 and not set(value) & set("/\\:")
    return value is None or isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= _LARGEST)


def _configuration(facts: Any, where: object) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (JSON)
    """The configuration of the input and the classes, checked."""
    saved = facts.get("pretrained_cfg", facts)  # an early layout has all in one table
    if not isinstance(saved, dict):
        raise UserError(f"{where} has a {type(saved).__name__} for pretrained_cfg instead of names and values.")
    saved = {
        **saved,
        **{key: facts[key] for key in ("num_classes", "label_names", "label_descriptions") if key in facts},
    }
    if "label_names" not in saved and "labels" in saved:
        saved["label_names"] = saved["labels"]
    for key, value in saved.items():
        if value is not None and key in (*_INPUT, *_SHARES, *_TEXTS, "mean", "std", *_KEPT):
            known = check_value(key, value)
            if known is None:
                raise UserError(
                    f"{where} has {key} = {value!r:.60}, which no input of a model can have; save the model again."
                )
            yield key, known


def check_value(key: str, value: Any) -> Any:  # noqa: ANN401 (JSON)
    """The value in timm's own types; None if it is not valid for the key."""
    if key in _INPUT:
        fits = isinstance(value, list) and all(type(one) is int and 0 < one <= _PIXELS for one in value)
        return tuple(value) if fits and len(value) == (2 if "pool" in key else 3) else None
    if key in ("mean", "std"):
        numbers = isinstance(value, list) and value and all(_is_number(one) for one in value)
        fits = numbers and all(abs(one) <= 1 if key == "mean" else one > 0 for one in value)
        return tuple(map(float, value)) if fits else None
    if key in _SHARES:
        return value if _is_number(value) and 0 < value <= 4 else None
    if key in ("interpolation", "crop_mode"):
        return value if value in (_INTERPOLATIONS if key == "interpolation" else _CROPS) else None
    if key in ("first_conv", "classifier"):
        names: list[object] = value if isinstance(value, list) else [value]
        return value if all(isinstance(one, str) for one in names) else None
    if key == "num_classes":
        return value if type(value) is int and 0 <= value <= _LARGEST else None
    return value if key in ("label_names", "label_descriptions") or _is_plain(value) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6
