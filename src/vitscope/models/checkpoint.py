"""Checkpoints: one file that holds a model's weights, how to build the model, and how it was trained."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save
from torch import Tensor

from vitscope.measurement.errors import UserError
from vitscope.measurement.text import first_line, reason
from vitscope.models.pixels import PixelInput
from vitscope.models.weight_file import Contents, read_contents
from vitscope.models.weight_sets import TensorGroup, groups_of, only
from vitscope.models.written import TENSORS, WrittenEdits
from vitscope.runs.whole import atomic_file

_KEY = "vitscope"


@dataclass(frozen=True, eq=False)
class Amendment:
    """How a subject departs from the model that its name and arguments make.

    ``changes`` are the shapes that differ (:func:`~vitscope.models.surgery.reshape`); ``edits`` are those of the walk.
    ``units`` are the names of the units that layers count; ``plain`` says whether no adapter described them. ``absent``
    are names of weights that no edited walk uses, so that the file does not hold them.
    """

    changes: Mapping[str, object] = field(default_factory=dict[str, object])
    edits: WrittenEdits = field(default_factory=WrittenEdits)
    units: tuple[str, ...] = ()
    plain: bool = False
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, and what is known about them.

    :func:`~vitscope.models.build.build_model` makes the module from ``model`` and ``arguments``; ``model`` is None if
    another program wrote the file, or if the module has no name. ``training`` says how the weights were obtained, as
    JSON. ``amendment`` is None for a model as its name makes it.
    """

    weights: Mapping[str, Tensor]
    model: str | None = None
    arguments: Mapping[str, object] = field(default_factory=dict[str, object])
    classes: tuple[str, ...] | None = None
    input: PixelInput | None = None
    training: Mapping[str, object] = field(default_factory=dict[str, object])
    amendment: Amendment | None = None

    @property
    def changes(self) -> Mapping[str, object]:
        """The shapes that differ from those of the model as its name makes it."""
        return self.amendment.changes if self.amendment else {}


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a ``.safetensors`` file, whole or not at all.

    The weights are tensors of the file; everything else is one JSON object under ``vitscope`` in its metadata:
    ``{"model", "arguments", "classes", "preprocessing", "training"}``, and ``"amendment"`` if there is one. Tensors of
    edits are stored under names that begin with ``vitscope.edits.``.
    """
    facts = {
        "model": checkpoint.model,
        "arguments": dict(checkpoint.arguments),
        "classes": checkpoint.classes,
        "preprocessing": None if checkpoint.input is None else dataclasses.asdict(checkpoint.input),
        "training": dict(checkpoint.training),
    }
    held = dict(checkpoint.weights)
    if checkpoint.amendment is not None:
        facts["amendment"] = _amendment_facts(checkpoint.amendment)
        held |= checkpoint.amendment.edits.tensors
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in held.items()}
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
    if _KEY not in contents.metadata:
        return Checkpoint(_first_weights(path, contents))
    own = {name: tensor for name, tensor in contents.data.items() if name.startswith(TENSORS)}
    rest = {name: tensor for name, tensor in contents.data.items() if name not in own}
    weights = _first_weights(path, replace(contents, data=rest))
    return _with_facts(path, weights, cast("dict[str, Tensor]", own), contents.metadata[_KEY])


def find_amended(path: Path, contents: Contents) -> Checkpoint | None:
    """The checkpoint of a subject that departs from the model of its name; None for any other file."""
    if _KEY not in contents.metadata:
        return None
    found = checkpoint_of(path, contents)
    return None if found.amendment is None else found


def _first_weights(path: Path, contents: Contents) -> dict[str, Tensor]:
    sets = [only(group) for group in groups_in(path, contents)]
    return next((one for one in sets if not one.averaged), sets[0]).state


def groups_in(path: Path, contents: Contents) -> tuple[TensorGroup, ...]:
    """The mappings of tensors in a file. Raises ``UserError`` if there is none."""
    groups = groups_of(contents.data)
    if not groups:
        held = ", ".join(sorted(map(str, contents.data))[:4]) or "nothing"
        raise UserError(f"{path} holds no named tensors (it holds {first_line(held)}); give a file of weights.")
    return groups


def _with_facts(path: Path, weights: dict[str, Tensor], own: dict[str, Tensor], text: str) -> Checkpoint:
    """The checkpoint that the JSON beside the weights describes, with the type of every fact checked."""
    try:
        facts = expect(json.loads(text), dict, "it")
        model, classes = expect(facts["model"], str | None, "model"), expect(facts["classes"], list | None, "classes")
        amended = _amendment(expect(facts.get("amendment"), dict | None, "amendment"), own)
        absent = len(amended.absent) if amended else 0
        return Checkpoint(
            weights=weights,
            model=model,
            arguments=_arguments(expect(facts["arguments"], dict, "arguments"), len(weights) + absent),
            classes=None if classes is None else tuple(expect(name, str, "a class") for name in classes),
            input=_input(expect(facts["preprocessing"], dict | None, "preprocessing")),
            training=expect(facts["training"], dict, "training"),
            amendment=amended,
        )
    except (KeyError, ValueError, RecursionError, UserError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else reason(error)
        raise UserError(f"{path} has vitscope metadata that is damaged ({why}); train or save it again.") from error


def _amendment_facts(amendment: Amendment) -> dict[str, object]:
    return {
        "changes": dict(amendment.changes),
        "edits": amendment.edits.edits,
        "units": amendment.units,
        "plain": amendment.plain,
        "absent": amendment.absent,
    }


def _amendment(given: dict[str, Any] | None, tensors: dict[str, Tensor]) -> Amendment | None:
    if given is None:
        return None
    units, absent = (
        [expect(one, str, name) for one in expect(given[name], list, name)] for name in ("units", "absent")
    )
    return Amendment(
        changes=expect(given["changes"], dict, "changes"),
        edits=WrittenEdits(tuple(expect(given["edits"], list, "edits")), tensors),
        units=tuple(units),
        plain=expect(given["plain"], bool, "plain"),
        absent=tuple(absent),
    )


def expect(value: Any, kind: Any, what: str) -> Any:  # noqa: ANN401 (JSON)
    """Return the value if it is of this kind, else raise; a bool does not count as a number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{what} is {value!r}")
    return value


def _arguments(given: dict[str, Any], tensors: int) -> dict[str, Any]:
    """Return plain arguments: no depth above the number of tensors, no other number above a million."""
    for name, value in given.items():
        if name == "config":  # of transformers, whose entries are checked as it is built
            expect(value, dict, name)
            continue
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
