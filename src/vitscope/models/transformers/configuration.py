"""Configurations of transformers as data: only what describes a model is used, nothing that names a place or code."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import transformers
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, MODEL_MAPPING_NAMES

from vitscope.measurement.errors import UserError
from vitscope.models.folder import complaint

_LABELS = ("id2label", "label2id")
_ATTENTION = ("attn_implementation", "_attn_implementation")
_KERNELS = ("eager", "sdpa")
"""transformers' own implementations of attention that run everywhere."""
_PLACES = (
    "auto_map",
    "backbone",
    "backbone_kwargs",
    "custom_pipelines",
    "experts_implementation",
    "fusion_config",
    "gguf_file",
    "name_or_path",
    "quantization_config",
    "transformers_weights",
    "use_kernels",
    "use_pretrained_backbone",
    "use_timm_backbone",
)
"""Keys that transformers follows to other files, hubs, programs and kernels."""
_LARGEST = 1_000_000


def read_configuration(facts: Mapping[str, Any], where: Path) -> tuple[PretrainedConfig, tuple[str, ...]]:
    """The configuration object of a ``config.json``, and notes on parts that were left out.

    Custom code is never run: a ``model_type`` that transformers does not have itself is refused. Raises ``UserError``.
    """
    kind = facts.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        custom = "auto_map" in facts
        near = get_close_matches(str(kind), list(CONFIG_MAPPING.keys()), n=1)
        raise UserError(
            f"{where} names the model_type {kind!r}, which transformers {transformers.__version__} does not have"
            + (f" (is it {near[0]}?)" if near else "")
            + ("; the code that comes with it is never run." if custom else ".")
        )
    build = CONFIG_MAPPING[kind]
    try:
        return build(**dict(_describing(facts, build, where))), tuple(_notes(facts))
    except UserError:
        raise
    except Exception as error:  # its checks may raise anything
        raise UserError(f"{where} is not a valid {build.__name__} ({complaint(error)}).") from error


def class_of(config: PretrainedConfig, where: Path) -> tuple[type[PreTrainedModel], tuple[str, ...]]:
    """The class of models that a configuration names, and a note if only its vision tower is used.

    Without a name it is the plain model of the configuration. Raises ``UserError`` for a class that transformers does
    not have, and for one that is not a classifier or tower of single images.
    """
    named: object = (config.architectures or [None])[0]
    if named is None:
        named = MODEL_MAPPING_NAMES.get(config.model_type)
        named = named[0] if isinstance(named, tuple) else named
    found = getattr(transformers, named, None) if isinstance(named, str) else None
    if not isinstance(found, type) or not issubclass(found, PreTrainedModel):
        known = [name for name in dir(transformers) if name.endswith(("Model", "ForImageClassification"))]
        near = get_close_matches(str(named), known, n=1)
        raise UserError(
            f"{where} names the architecture {named!r}, which transformers does not have"
            + (f" (is it {near[0]}?)." if near else ".")
        )
    name = found.__name__
    tower = _tower(name)
    if tower is not None:
        return tower, (f"{name} takes images and texts: only its vision tower, {tower.__name__}, is examined.",)
    _refuse_other_tasks(found)
    return found, ()


def _tower(name: str) -> type[PreTrainedModel] | None:
    """The vision part of a model of images and texts."""
    for part in ("VisionModelWithProjection", "VisionModel"):
        found = getattr(transformers, name.removesuffix("Model") + part, None) if name.endswith("Model") else None
        if isinstance(found, type) and issubclass(found, PreTrainedModel):
            return found
    return None


def _refuse_other_tasks(found: type[PreTrainedModel]) -> None:
    name = found.__name__
    classifiers = {one for names in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()
                   for one in ((names,) if isinstance(names, str) else names)}  # fmt: skip
    if found.main_input_name != "pixel_values":
        raise UserError(
            f"{name} takes {found.main_input_name}, not only images; examine an image classifier or vision tower."
        )
    task = name.partition("For")[2]
    if task and name not in (*classifiers, "ViTMAEForPreTraining"):
        raise UserError(f"{name} is made for another task ({task}) than image classification; examine its backbone.")
    if name.endswith("Backbone"):
        raise UserError(
            f"{name} does not return one row of numbers per image; examine the model or classifier it is a part of."
        )


def _describing(
    facts: Mapping[str, Any], build: type[PretrainedConfig] | None, where: Path
) -> Iterator[tuple[str, Any]]:
    """The entries of a table that describe a model, nested tables included."""
    known = _declared_keys(build)
    for key, value in facts.items():
        if key in _LABELS:
            continue  # names of classes are read separately
        if key in _PLACES or key.startswith("_") or key in _ATTENTION:
            continue
        if isinstance(value, dict):
            if key in known or key in ("rope_scaling", "text_config_dict", "vision_config_dict"):
                yield key, dict(_describing(cast("dict[str, Any]", value), _part(build, key, value), where))
        elif _is_plain(value):
            yield key, value
        elif key in known:
            raise UserError(f"{where} has {key} = {value!r:.60}, which is not a valid argument of a model.")


def _declared_keys(build: type[PretrainedConfig] | None) -> set[str]:
    if build is None:
        return set()
    fields = {field.name for field in dataclasses.fields(cast(Any, build))}
    return fields | set(inspect.signature(build.__init__).parameters) | set(build.attribute_map)


def _part(build: type[PretrainedConfig] | None, key: str, value: Any) -> type[PretrainedConfig] | None:  # noqa: ANN401
    part = cast("dict[str, type[PretrainedConfig]]", build.sub_configs).get(key) if build is not None else None
    kind = value.get("model_type")
    told = isinstance(kind, str) and kind in CONFIG_MAPPING
    return part if part is not None and dataclasses.is_dataclass(part) else CONFIG_MAPPING[kind] if told else None


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        values = cast("list[object]", value)
        return len(values) <= 10_000 and all(map(_is_plain, values))
    if isinstance(value, str):
        return len(value) < 200 and not set(value) & set("/\\:")
    return value is None or isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= _LARGEST)


def _notes(facts: Mapping[str, Any]) -> Iterator[str]:
    asked = next((facts[key] for key in _ATTENTION if facts.get(key) is not None), None)
    if asked is not None and asked not in _KERNELS:
        yield f"Its configuration requests the attention {asked!r:.60}, which is not fetched: its own is used."
    if "auto_map" in facts:
        yield "The code that comes with its configuration (auto_map) is not run: transformers' own model is used."
