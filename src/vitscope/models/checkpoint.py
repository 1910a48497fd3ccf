"""Checkpoints: one file that holds a model's weights, what they are the weights of, and how they came about."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vitscope.measurement.errors import UserError
from vitscope.models.pixels import PixelInput
from vitscope.runs.whole import atomic_file

_KEY = "vitscope"
_NESTED = ("state_dict", "model", "model_state_dict")


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, and what is known of them.

    ``model`` and ``arguments`` are what :func:`~vitscope.models.build.build_model` makes the module from; ``model`` is
    None where the file was not written here and says nothing. ``training`` is how the weights came about, as JSON.
    """

    weights: Mapping[str, Tensor]
    model: str | None = None
    arguments: Mapping[str, object] = field(default_factory=dict[str, object])
    classes: tuple[str, ...] | None = None
    input: PixelInput | None = None
    training: Mapping[str, object] = field(default_factory=dict[str, object])


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a ``.safetensors`` file, whole or not at all.

    The weights are tensors of the file; all else is one JSON object under ``vitscope`` in its metadata:
    ``{"model", "arguments", "classes", "preprocessing", "training"}``.
    """
    facts = {
        "model": checkpoint.model,
        "arguments": dict(checkpoint.arguments),
        "classes": checkpoint.classes,
        "preprocessing": None if checkpoint.input is None else dataclasses.asdict(checkpoint.input),
        "training": dict(checkpoint.training),
    }
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.weights.items()}
    with atomic_file(path) as file:
        file.write(save(weights, {_KEY: json.dumps(facts, sort_keys=True)}))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a ``.safetensors`` file, or any other as PyTorch's own format with ``weights_only=True``: nothing is run.

    A file that was not written by :func:`save_checkpoint` has weights only. Weights that lie under ``state_dict`` or
    ``model``, or whose names all begin with ``module.``, are unwrapped. Raises ``UserError`` naming what is wrong.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint file {path}.")
    if path.suffix != ".safetensors":
        return Checkpoint(_torch_weights(path))
    try:
        with safe_open(path, framework="pt") as file:
            metadata = cast("dict[str, str]", file.metadata() or {})
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); it may have been cut short.") from error
    return _with_facts(weights, json.loads(metadata[_KEY])) if _KEY in metadata else Checkpoint(weights)


def _with_facts(weights: dict[str, Tensor], facts: dict[str, Any]) -> Checkpoint:
    pixels = facts["preprocessing"]
    return Checkpoint(
        weights=weights,
        model=facts["model"],
        arguments=facts["arguments"],
        classes=None if facts["classes"] is None else tuple(facts["classes"]),
        input=pixels and PixelInput(pixels["image"], pixels["channels"], tuple(pixels["mean"]), tuple(pixels["std"])),
        training=facts["training"],
    )


def _torch_weights(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).split("\n")[0] or "it is empty"
        raise UserError(
            f"{path} cannot be read as weights alone ({reason}); "
            "a pickled model is never run: save its state_dict, best as .safetensors."
        ) from error
    for name in _NESTED:
        if isinstance(found, dict) and isinstance(cast("dict[str, Any]", found).get(name), dict):
            found = cast("dict[str, Any]", found)[name]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{path} holds a {type(found).__name__} that is not a state_dict of tensors.")
    weights = cast("dict[str, Tensor]", found)
    if weights and all(name.startswith("module.") for name in weights):
        return {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    return dict(weights)
