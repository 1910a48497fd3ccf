"""Checkpoints: one file that holds a model's weights, how to build the model, and how it was trained."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from vitscope.measurement.errors import UserError
from vitscope.measurement.text import first_line, reason
from vitscope.models.pixels import PixelInput
from vitscope.models.weight_file import Contents, read_contents
from vitscope.models.weight_sets import TensorGroup, groups_of, only
from vitscope.runs.whole import atomic_file

_KEY = "vitscope"


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, and what is known about them.

    :func:`~vitscope.models.build.build_model` makes the module from ``model`` and ``arguments``; ``model`` is None if
    another program wrote the file. ``training`` says how the weights were obtained, as JSON.
    """

    weights: Mapping[str, Tensor]
    model: str | None = None
    arguments: Mapping[str, object] = field(default_factory=dict[str, object])
    classes: tuple[str, ...] | None = None
    input: PixelInput | None = None
    training: Mapping[str, object] = field(default_factory=dict[str, object])


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a ``.safetensors`` file, whole or not at all.

    The weights are tensors of the file; everything else is one JSON object under ``vitscope`` in its metadata:
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
    """Read a ``.safetensors`` file, or one of ``torch.save`` with ``weights_only=True``: no code in it is run.

    A file that :func:`save_checkpoint` did not write gives weights only: those of its first mapping of tensors that is
    not an average, if there is one. Raises ``UserError`` naming what is wrong.
    """
    return checkpoint_of(path, read_contents(path))


def checkpoint_of(path: Path, contents: Contents) -> Checkpoint:
    """The checkpoint in a file's contents. Raises ``UserError`` for facts that are not in the written format."""
    sets = [only(group) for group in groups_in(path, contents)]
    weights = next((one for one in sets if not one.averaged), sets[0]).state
    return _with_facts(path, weights, contents.metadata[_KEY]) if _KEY in contents.metadata else Checkpoint(weights)


def groups_in(path: Path, contents: Contents) -> tuple[TensorGroup, ...]:
    """The mappings of tensors in a file. Raises ``UserError`` if there is none."""
    groups = groups_of(contents.data)
    if not groups:
        held = ", ".join(sorted(map(str, contents.data))[:4]) or "nothing"
        raise UserError(f"{path} holds no named tensors (it holds {first_line(held)}); give a file of weights.")
    return groups


def _with_facts(path: Path, weights: dict[str, Tensor], text: str) -> Checkpoint:
    """The checkpoint that the JSON beside the weights describes, with the type of every fact checked."""
    try:
        facts = expect(json.loads(text), dict, "it")
        model, classes = expect(facts["model"], str | None, "model"), expect(facts["classes"], list | None, "classes")
        return Checkpoint(
            weights=weights,
            model=model,
            arguments=_arguments(expect(facts["arguments"], dict, "arguments"), len(weights)),
            classes=None if classes is None else tuple(expect(name, str, "a class") for name in classes),
            input=_input(expect(facts["preprocessing"], dict | None, "preprocessing")),
            training=expect(facts["training"], dict, "training"),
        )
    except (KeyError, ValueError, RecursionError, UserError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else reason(error)
        raise UserError(f"{path} has vitscope metadata that is damaged ({why}); train or save it again.") from error


def expect(value: Any, kind: Any, what: str) -> Any:  # noqa: ANN401 (JSON)
    """Return the value if it is of this kind, else raise; a bool does not count as a number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{what} is {value!r}")
    return value


def _arguments(given: dict[str, Any], tensors: int) -> dict[str, Any]:
    """Return plain arguments: no depth above the number of tensors, no other number above a million."""
    for name, value in given.items():
        for one in value if isinstance(value, list) else (value,):
            expect(one, str | int | float | None if name != "pool" else str, name)
            limit = tensors if name in ("depth", "depths", "layers") else 1_000_000
            if isinstance(one, int | float) and not abs(one) <= limit:
                raise UserError(f"{name} is {one!r}")
    return given


def _input(given: dict[str, Any] | None) -> PixelInput | None:
    if given is None:
        return None
    image, channels = expect(given["image"], int | list, "image"), expect(given["channels"], int, "channels")
    sides = [expect(side, int, "image") for side in image] if isinstance(image, list) else image
    mean, std = (tuple(_number(one, name) for one in expect(given[name], list, name))
                 for name in ("mean", "std"))  # fmt: skip
    if not all(std):
        raise UserError(f"std is {std}")
    return PixelInput(sides, channels, mean, std)


def _number(value: Any, what: str) -> float:  # noqa: ANN401 (JSON)
    number = expect(value, int | float, what)
    if not abs(number) < 1e30:  # nor is NaN
        raise UserError(f"{what} is {value!r:.40}")
    return float(number)
