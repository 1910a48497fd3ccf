"""Everything a training needs to resume as if it had not been interrupted."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from vitscope.measurement.errors import UserError
from vitscope.models.checkpoint import read_checkpoint
from vitscope.numerics.digest import tensor_bytes
from vitscope.runs.whole import atomic_file, write_whole
from vitscope.training.recipe import Recipe

STATE, RECIPE, WEIGHTS, METRICS = "state.pt", "recipe.json", "model.safetensors", "metrics.nc"
_SEAL = "seal"
_FACTS = {"start": "other weights", "objective": "another objective", "hooks": "other hooks"}
_DAMAGED = "it is damaged; restore a copy, or begin anew in another folder."


@dataclass(frozen=True)
class State:
    """A training's state after ``step`` steps.

    It holds the weights, their average, the optimiser, the loss scale, the losses and seconds of the current epoch and
    the metrics of those before. It holds no random state: that follows from seed and step.
    """

    step: int
    model: Mapping[str, Any]
    average: Mapping[str, Any] | None
    optimizer: Mapping[str, Any]
    scaler: Mapping[str, Any]
    losses: torch.Tensor
    seconds: float
    history: list[dict[str, float]]
    best: Mapping[str, Any] | None = None
    """The weights of the best epoch so far, if validation images choose it."""


def save_state(state: State, folder: Path) -> None:
    """Write the state, whole or not at all, with a digest of all that it holds and of the training's recipe file."""
    held = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    seal = _digest(held, (folder / RECIPE).read_bytes())
    with atomic_file(folder / STATE) as file:
        try:
            torch.save({**held, _SEAL: seal}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # a full disk, which torch's writer hides
                raise error.__context__ from None
            raise


def read_state(folder: Path, device: torch.device) -> State | None:
    """The last saved state; None if the training has saved none yet.

    Raises ``UserError`` for a file that is damaged or belongs to another training.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        held: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        seal = held.pop(_SEAL)
        whole = seal == _digest(held, (folder / RECIPE).read_bytes())
        state = State(**held)
    except OSError:
        raise
    except Exception as error:  # torch fails in many ways on bytes that it did not write
        raise UserError(f"{path} cannot be read as a training's state: {_DAMAGED}") from error
    if not whole:
        raise UserError(f"{path} is not the state that was saved for {folder / RECIPE}: {_DAMAGED}")
    return state


def kept_step(folder: Path) -> int | None:
    """The step of the saved state; None if there is none."""
    state = read_state(folder, torch.device("cpu"))
    return None if state is None else state.step


def claim_folder(
    folder: Path, recipe: Recipe, images: Mapping[str, str], resume: bool, facts: Mapping[str, object] | None = None
) -> bool:
    """Claim the folder for this training, or check that it is its own.

    ``images`` are the digests of the training's data; ``facts`` are its ``start``, ``objective`` and ``hooks``, if they
    say more than the recipe.

    Returns whether the training was begun before. Raises ``UserError`` if the folder holds a training and ``resume`` is
    off, one with another recipe or other images, or one whose state is lost.
    """
    path = folder / RECIPE
    begun = any((folder / name).exists() for name in (STATE, WEIGHTS))
    if begun and not resume:
        raise UserError(f"{folder} already holds a training; resume it, or give another folder.")
    if not begun:
        asked: dict[str, object] = {"recipe": dataclasses.asdict(recipe), "images": dict(images)}
        asked |= facts or {}
        write_whole(path, json.dumps(asked, indent=2).encode())
        return False
    stored, known, others = _recipe(path)
    if differing := recipe.differences(stored):
        changes = ", ".join(differing)
        raise UserError(f"{folder} was begun with another recipe ({changes}); resume with the same, or begin anew.")
    for name in (*images, *known):
        if images.get(name) != known.get(name):
            other = {"training": "other images", "labels": "other labels"}.get(name, f"other {name} images")
            raise UserError(f"{folder} was begun with {other}; resume with the same, or begin anew.")
    now = json.loads(json.dumps(facts or {}))
    for name, what in _FACTS.items():
        if now.get(name) != others.get(name):
            raise UserError(f"{folder} was begun with {what}; resume with the same, or begin anew.")
    _refuse_lost_state(folder)
    return True


def _refuse_lost_state(folder: Path) -> None:
    """Raise ``UserError`` for weights of several epochs without a state, which a new start would overwrite.

    After the first epoch the weights are written just before the state; a new start leads to the same weights.
    """
    if (folder / STATE).exists():
        return
    epochs = (read_checkpoint(folder / WEIGHTS).training or {}).get("epochs")
    if epochs != 1:
        raise UserError(
            f"{folder / WEIGHTS} holds the weights after {epochs} epochs, but {folder / STATE}, which the training "
            "needs to resume, is missing; restore it, or begin anew in another folder."
        )


def _recipe(path: Path) -> tuple[Mapping[str, object], Mapping[str, object], Mapping[str, object]]:
    """What a training was begun with: its recipe's fields, the digests of its images, and the whole record."""
    try:
        found = json.loads(path.read_bytes())
        recipe, images = found["recipe"], found["images"]
        if not (isinstance(recipe, dict) and isinstance(images, dict)):
            raise TypeError
    except (FileNotFoundError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{path} does not say what its training was begun with: {_DAMAGED}") from error
    return cast("dict[str, object]", recipe), cast("dict[str, object]", images), cast("dict[str, object]", found)


def _digest(held: Mapping[str, object], recipe: bytes) -> str:
    found = hashlib.sha256(recipe)
    for part in _content_bytes(held):
        found.update(part)
    return found.hexdigest()


def _content_bytes(value: object) -> Iterator[bytes | memoryview]:
    """The content of nested mappings, sequences, tensors and numbers, as bytes."""
    if isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield tensor_bytes(value)
    elif isinstance(value, Mapping):
        for name, one in cast("Mapping[object, object]", value).items():
            yield repr(name).encode()
            yield from _content_bytes(one)
    elif isinstance(value, list | tuple):
        yield f"{len(cast('list[object]', value))}".encode()
        for one in cast("list[object]", value):
            yield from _content_bytes(one)
    else:
        yield repr(value).encode()
