"""``train``: from a recipe and images to weights and how they came about."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import xarray as xr
from lightning_fabric import Fabric

from vitscope.data.image import Images
from vitscope.measurement.errors import UserError
from vitscope.models.build import build_model, image_side
from vitscope.models.pixels import PixelInput
from vitscope.models.start import start_of
from vitscope.models.subject import Subject
from vitscope.runs.hold import held
from vitscope.training.loop import Task, run
from vitscope.training.observer import AbstractTrainingObserver, Silent
from vitscope.training.pixels import statistics
from vitscope.training.recipe import Recipe
from vitscope.training.state import METRICS, RECIPE, STATE, WEIGHTS, claim_folder


@dataclass(frozen=True)
class Training:
    """A finished training: its folder, the checkpoint in it, and its metrics along the axis ``epoch``."""

    folder: Path
    weights: Path
    metrics: xr.Dataset
    notes: tuple[str, ...] = ()
    """What a reader of its numbers must know of how it began."""


def train(
    recipe: Recipe,
    images: Images,
    folder: str | os.PathLike[str],
    test: Images | None = None,
    resume: bool = False,
    observer: AbstractTrainingObserver | None = None,
    start: Subject | None = None,
) -> Training:
    """Train a model on labelled images, test it on others after each epoch, and keep it in ``folder``.

    The model has random weights, or those of ``start``, any subject of the project's own models or of timm: its head is
    kept if its classes are those of the images in the same order, and replaced by a new one if not; its input is
    resampled to ``recipe.image`` pixels; its normalisation stays its own (:func:`~vitscope.models.start.start_of`).

    The folder then holds ``model.safetensors`` (weights, architecture, classes, input, recipe), ``metrics.nc``,
    ``recipe.json`` and ``state.pt``, each written whole or not at all. With ``resume``, a training that was ended at
    any moment goes on from its last state, or from the beginning where there is none yet, and ends with the same
    weights as one that was not: bit for bit on a CPU with the same number of threads, to the rounding of the kernels
    elsewhere. Raises ``UserError`` for what cannot be trained, or resumed.
    """
    if "://" in os.fspath(folder):
        raise UserError(
            f"A training is kept in a folder of this machine, and {os.fspath(folder)} is not; give another."
        )
    folder, classes = Path(folder).expanduser(), _classes(images)
    if test is not None:
        test = test.for_classes(len(classes), images.classes)
    task = _task(recipe, images, classes, start, test=test, folder=folder, observer=observer or Silent())
    if _is_launched(recipe):  # another device of a training that was claimed
        return _launched(task)
    known = {"training": images.fingerprint, **({} if test is None else {"test": test.fingerprint})}
    with held(folder):
        begun = claim_folder(folder, task.recipe, known, resume, task.start and task.start.fingerprint)
        try:
            return _launched(task)
        finally:
            if not begun and not any((folder / name).exists() for name in (STATE, WEIGHTS)):
                (folder / RECIPE).unlink(missing_ok=True)


def _task(recipe: Recipe, images: Images, classes: tuple[str, ...], start: Subject | None, **rest: Any) -> Task:  # noqa: ANN401 - the fields of a task
    """All decided: what the model is made from, and what it is shown."""
    if start is None:
        recipe = recipe.resolve()
        model, channels = cast("tuple[str, int]", (recipe.model, recipe.channels))
        plain = recipe.arguments(len(classes), (0.5,), (0.5,))
        side = recipe.image or image_side(build_model(model, plain, classes))
        mean, std = statistics(images, PixelInput(side, channels, (0.5,), (0.5,)))
        begin, input = None, PixelInput(side, channels, mean, std)
        arguments = recipe.arguments(len(classes), mean, std)
    else:
        size = None if recipe.image is None else (recipe.image, recipe.image)
        begin = start_of(start, classes, size, recipe.drop_path)
        input, arguments = begin.input, dict(begin.arguments)
        recipe = recipe.resolve((begin.model, input.channels))
    crop = recipe.crop if recipe.crop != "auto" else "padded" if max(input.shape[1:]) <= 64 else "resized"
    return Task(recipe, arguments, classes, input, crop, images, start=begin, **rest)


def _launched(task: Task) -> Training:
    recipe, folder = task.recipe, task.folder
    strategy = "auto" if recipe.devices == 1 else "ddp_spawn" if recipe.strategy == "auto" else recipe.strategy
    fabric = Fabric(
        accelerator=recipe.accelerator, devices=recipe.devices, strategy=strategy, precision=recipe.precision
    )
    fabric.launch(partial(run, task=task))
    notes = () if task.start is None else task.start.notes
    return Training(folder, folder / WEIGHTS, xr.load_dataset(folder / METRICS, engine="h5netcdf"), notes)


def _is_launched(recipe: Recipe) -> bool:
    """Whether this process is one of those after the first that run the same command, once for each device."""
    if recipe.devices == 1 or recipe.strategy != "ddp":  # a batch system's number says nothing of them
        return False
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdecimal()), 0) > 0


def _classes(images: Images) -> tuple[str, ...]:
    if images.labels is None:
        raise UserError(f"{images.name} has no labels, which training needs; give class folders or a label column.")
    return images.classes or tuple(str(label) for label in range(int(images.labels.max()) + 1))
