"""Everything a training needs to go on as if it had not been interrupted."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitscope.measurement.errors import UserError
from vitscope.runs.whole import atomic_file
from vitscope.training.recipe import Recipe

STATE, RECIPE, WEIGHTS, METRICS = "state.pt", "recipe.json", "model.safetensors", "metrics.nc"


@dataclass(frozen=True)
class State:
    """What there is after ``step`` steps.

    Weights, their average, the optimiser, the loss scale; of the epoch under way, the steps' losses and the seconds;
    of those before, the metrics. Nothing random: that follows from seed and step.
    """

    step: int
    model: Mapping[str, Any]
    average: Mapping[str, Any] | None
    optimizer: Mapping[str, Any]
    scaler: Mapping[str, Any]
    losses: torch.Tensor
    seconds: float
    history: list[dict[str, float]]


def save_state(state: State, folder: Path) -> None:
    """Write the state, whole or not at all."""
    with atomic_file(folder / STATE) as file:
        torch.save({field.name: getattr(state, field.name) for field in dataclasses.fields(state)}, file)


def read_state(folder: Path, device: torch.device) -> State | None:
    """The last state that was saved; None where the training had not come so far."""
    if not (folder / STATE).exists():
        return None
    return State(**torch.load(folder / STATE, map_location=device, weights_only=True))


def claim_folder(folder: Path, recipe: Recipe, images: str, resume: bool) -> None:
    """Make the folder this training's own, or see that it is; ``images`` identifies what is trained on.

    Raises ``UserError`` where it holds a training and is not to be resumed, or one of another recipe or other images.
    """
    path = folder / RECIPE
    if not path.exists():
        with atomic_file(path) as file:
            file.write(json.dumps({"recipe": dataclasses.asdict(recipe), "images": images}, indent=2).encode())
        return
    if not resume:
        raise UserError(f"{folder} already holds a training; resume it, or give another folder.")
    found = json.loads(path.read_text())
    if differing := recipe.differences(before := Recipe(**found["recipe"])):
        changes = ", ".join(f"{name} {getattr(before, name)} -> {getattr(recipe, name)}" for name in differing)
        raise UserError(f"{folder} was begun with another recipe ({changes}); resume with the same, or begin anew.")
    if found["images"] != images:
        raise UserError(f"{folder} was begun with other images; resume with the same, or begin anew.")
