"""Models rebuilt from folders written by ``save_pretrained``, by the allowed part of their configuration."""

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import Restored
from vitscope.models.folder import Folder, complaint, make_without_memory, no_larger_than
from vitscope.models.transformers.configuration import class_of, read_configuration

_MADE_ANEW = ("position_ids", "relative_position_index", "num_batches_tracked")
"""Ends of names of buffers that earlier versions saved and models now make themselves."""


def transformers_from_folder(folder: Folder) -> Restored:
    """The model whose class the configuration names, in float32.

    A model of images and texts gives its vision tower. ViTMAE is made to hide no patches. Raises ``UserError``.
    """
    where = folder.path / "config.json"
    config, notes = read_configuration(folder.configuration, where)
    build, part = class_of(config, where)
    config = _own_config(build, config)
    _set_classes(config, folder)
    if config.model_type == "vit_mae":
        cast(Any, config).mask_ratio = 0.0
    try:
        make_without_memory(folder, lambda: build(config))
        with no_larger_than(folder):
            module = build(config)
    except UserError:
        raise
    except Exception as error:  # a constructor may raise anything on foreign values
        raise UserError(f"{where} describes a {build.__name__} that cannot be made ({complaint(error)}).") from error
    cast(Any, module).config.name_or_path = str(folder.path.absolute())  # its image processor is there
    return Restored(module, (*folder.notes, *notes, *part))


def transformers_from_configuration(name: str, arguments: Mapping[str, object]) -> nn.Module:
    """The model of the class ``name`` with the configuration ``arguments["config"]``, and random weights."""
    config = arguments.get("config")
    if not isinstance(config, dict):
        raise UserError(f"transformers/{name} cannot be built without its configuration.")
    folder = Folder(Path(name), {**cast("dict[str, Any]", config), "architectures": [name]})
    module = transformers_from_folder(folder).module
    cast(Any, module).config.name_or_path = ""  # there is no folder
    return module


def with_weights(
    build: type[PreTrainedModel], config: PretrainedConfig, weights: Mapping[str, Tensor]
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """A module in float32 with these weights, by the names of this or an earlier version of transformers.

    None may be missing; the names of those for parts that the class lacks are returned. Raises ``UserError``.
    """
    model, left = load_pretrained(build, None, config=config, state_dict=dict(weights), dtype=torch.float32)
    model.config.name_or_path = config.name_or_path or ""  # from_pretrained turns it into the word None
    return model, left


def load_pretrained(
    build: type[PreTrainedModel], name: str | None, **options: object
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """``from_pretrained``, and the names of weights for parts that the class lacks.

    Raises ``UserError`` for weights that are missing, of another shape, or unknown within parts that it has.
    """
    model, report = _from_pretrained(build, name, options)
    missing = set(report["missing_keys"])
    if missing and all(key.startswith("pooler.") for key in missing):  # self-supervised ViTs have no pooler
        model, report = _from_pretrained(build, name, {**options, "add_pooling_layer": False})
    over = sorted(key for key in report["unexpected_keys"] if not key.endswith(_MADE_ANEW))
    inside = [key for key in over if _part_of(model, key)]
    _refuse_misfit(build.__name__, report, surplus=inside)
    return model, tuple(key for key in over if key not in inside)


def _part_of(model: PreTrainedModel, key: str) -> bool:
    """Whether a weight's name begins with a part of the model, or of the body that it is built around."""
    prefix = model.base_model_prefix
    body = cast(nn.Module, getattr(model, prefix, model)) if prefix else model
    bare = key.removeprefix(f"{prefix}.") if prefix else key
    parts = {name for one in (model, body) for name, _ in (*one.named_children(), *one.named_parameters(recurse=False))}
    return bool({key.partition(".")[0], bare.partition(".")[0]} & parts)


def _own_config(build: type[PreTrainedModel], config: PretrainedConfig) -> PretrainedConfig:
    """The class's own configuration, if need be the vision part of one for two towers."""
    own = cast("type[PretrainedConfig]", build.config_class)
    if isinstance(config, own):
        return config
    part: object = getattr(config, "vision_config", None)
    if not isinstance(part, own):
        raise UserError(f"A {type(config).__name__} does not configure a {build.__name__}; save the model again.")
    return part


def _set_classes(config: PretrainedConfig, folder: Folder) -> None:
    """Set the number of classes that the configuration names or counts; of several, the one that fits the weights."""
    tables = {key: folder.configuration.get(key) for key in ("id2label", "label2id")}
    counts = [count for table in tables.values() for count in _counts(table)]
    counts += [folder.configuration[key] for key in ("num_labels", "num_classes") if key in folder.configuration]
    counts = [count for count in counts if count is not None]
    if not counts:
        return
    held = folder.weights.items()
    widths = {tensor.shape[0] for name, tensor in held if tensor.ndim and {"classifier", "head"} & {*name.split(".")}}
    count = next((one for one in counts if one in widths), counts[0])
    if not isinstance(count, int) or not 0 < count <= 1_000_000:
        raise UserError(f"{folder.path}/config.json has {count!r} classes; save the model again.")
    config.num_labels = count
    labels = tables["id2label"]
    if isinstance(labels, dict) and len(cast("dict[str, object]", labels)) < count:  # transformers counts the names
        tables["id2label"] = {**{str(number): None for number in range(count)}, **labels}
    vars(config).update({key: table for key, table in tables.items() if table})  # bypass setters that count from 0


def _counts(table: object) -> list[object]:
    """How many classes a table or list of names may have: all up to its last number, or as many as it has names."""
    if not isinstance(table, dict | list) or not table:
        return []
    numbers = [int(key) for key in cast("dict[str, object]", table) if str(key).isascii() and str(key).isdecimal()]
    names = len(cast("list[object]", table))
    if isinstance(table, list) or len(numbers) < names:
        return [names]
    return [1 + max(numbers), names] if 0 in numbers else [names, 1 + max(numbers)]


def _from_pretrained(
    build: type[PreTrainedModel], name: str | None, options: dict[str, object]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    with _quiet():
        return cast(Any, build).from_pretrained(name, **options, ignore_mismatched_sizes=True, output_loading_info=True)


@contextmanager
def _quiet() -> Generator[None]:
    """Silence transformers' own report on what fits, which messages here replace."""
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


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
