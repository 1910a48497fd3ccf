"""Folders written by ``save_pretrained``, made again from what their configuration may say of a model."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import Opened
from vitscope.models.folder import Folder, made_without_memory, no_larger_than, reason
from vitscope.models.transformers.configuration import class_of, read_configuration


def transformers_from_folder(folder: Folder) -> Opened:
    """The model whose class the configuration names, in float32, with the folder's weights, or random ones.

    Of a model of images and texts, the vision tower. ViTMAE is made to hide no patches. Raises ``UserError``.
    """
    where = folder.path / "config.json"
    config, notes = read_configuration(folder.configuration, where)
    build, part = class_of(config, where)
    config = _own_config(build, config)
    _set_classes(config, folder)
    if config.model_type == "vit_mae":
        cast(Any, config).mask_ratio = 0.0
    try:
        made_without_memory(folder, lambda: build(config))
        with no_larger_than(folder):
            module = build(config) if folder.weights is None else with_weights(build, config, folder.weights)
    except UserError:
        raise
    except Exception as error:  # whatever a constructor makes of what a stranger wrote
        raise UserError(f"{where} describes no {build.__name__} that can be made ({reason(error)}).") from error
    cast(Any, module).config.name_or_path = str(folder.path.absolute())  # its image processor is there
    return Opened(module, (*folder.notes, *notes, *part))


def with_weights(
    build: type[PreTrainedModel], config: PretrainedConfig, weights: Mapping[str, Tensor], whole: bool = False
) -> PreTrainedModel:
    """A module in float32 with these weights, by the names of this or an earlier version of transformers.

    None may be missing, and none left over if they are the ``whole`` of the model's. Raises ``UserError``.
    """
    model = loaded(build, None, whole, config=config, state_dict=dict(weights), dtype=torch.float32)
    model.config.name_or_path = config.name_or_path or ""  # of which from_pretrained makes the word None
    return model


def loaded(build: type[PreTrainedModel], name: str | None, whole: bool = False, **options: object) -> PreTrainedModel:
    """``from_pretrained``, of which nothing may be missing or of another shape. Raises ``UserError`` naming what is."""
    model, report = _from_pretrained(build, name, options)
    missing = set(report["missing_keys"])
    if missing and all(key.startswith("pooler.") for key in missing):  # self-supervised ViTs have no pooler
        model, report = _from_pretrained(build, name, {**options, "add_pooling_layer": False})
    _refuse_misfit(build.__name__, report, surplus=sorted(report["unexpected_keys"]) if whole else [])
    return model


def _own_config(build: type[PreTrainedModel], config: PretrainedConfig) -> PretrainedConfig:
    """The part of a configuration of two towers that is of the class's own."""
    own = cast("type[PretrainedConfig]", build.config_class)
    if isinstance(config, own):
        return config
    part: object = getattr(config, "vision_config", None)
    if not isinstance(part, own):
        raise UserError(f"A {type(config).__name__} is no configuration of {build.__name__}; save the model again.")
    return part


def _set_classes(config: PretrainedConfig, folder: Folder) -> None:
    """As many classes as the configuration names or counts."""
    labels: object = folder.configuration.get("id2label")
    count: object = folder.configuration.get("num_labels", folder.configuration.get("num_classes"))
    if isinstance(labels, dict | list) and len(cast("dict[str, str]", labels)):
        count = len(cast("dict[str, str]", labels))
    if count is None:
        return
    if not isinstance(count, int) or not 0 < count <= 1_000_000:
        raise UserError(f"{folder.path}/config.json has {count!r} classes; save the model again.")
    config.num_labels = count
    if labels:
        vars(config)["id2label"] = labels  # as it stands, past the setter that would count from 0


def _from_pretrained(
    build: type[PreTrainedModel], name: str | None, options: dict[str, object]
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
