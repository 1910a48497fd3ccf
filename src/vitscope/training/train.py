"""``train``: from a recipe and images to a trained subject and the run of its training."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int

from vitscope.data.image import Images
from vitscope.data.sampling import subset
from vitscope.engine.plan import Plan
from vitscope.engine.question import carry_out
from vitscope.measurement.errors import UserError
from vitscope.models.build import build_model, image_side
from vitscope.models.load import load
from vitscope.models.pixels import PixelInput
from vitscope.models.start import start_of
from vitscope.models.subject import Subject
from vitscope.runs.hold import hold_folder
from vitscope.runs.registry import resolve_names, value_of
from vitscope.runs.run import Run
from vitscope.runs.store import RunFolder, read_run
from vitscope.training.hook import HOOKS, AbstractHook
from vitscope.training.noise import labels_from, noisy_labels
from vitscope.training.objective import OBJECTIVES, AbstractObjective
from vitscope.training.observer import AbstractTrainingObserver, Silent
from vitscope.training.pixels import statistics
from vitscope.training.question import TrainQuestion, finish_metrics, is_follower, launch
from vitscope.training.recipe import Recipe
from vitscope.training.state import METRICS, WEIGHTS
from vitscope.training.task import Task

_SPLIT = 0x73706C6974
"""Salt of the validation split's seed."""


@dataclass(frozen=True)
class Training:
    """A finished training: its folder and the folder's content."""

    folder: Path
    notes: tuple[str, ...] = ()
    """What a reader of its numbers must know about its start and end."""

    @property
    def weights(self) -> Path:
        """The checkpoint, which ``vitscope.load`` takes."""
        return self.folder / WEIGHTS

    @cached_property
    def subject(self) -> Subject:
        """The trained model as a subject."""
        with torch.random.fork_rng(devices=[]):  # building a model draws random weights
            return load(self.weights)

    @cached_property
    def run(self) -> Run:
        """The run: the metrics (``training``), and accuracy and predictions on the test images."""
        return read_run(self.folder)

    @cached_property
    def metrics(self) -> xr.Dataset:
        """Loss, validation figures, learning rate and seconds of each epoch; the figures of the test."""
        return xr.load_dataset(self.folder / METRICS, engine="h5netcdf")


def train(
    recipe: Recipe,
    images: Images,
    folder: str | os.PathLike[str] | None = None,
    test: Images | None = None,
    resume: bool = False,
    observer: AbstractTrainingObserver | None = None,
    start: Subject | None = None,
    objective: AbstractObjective | None = None,
    hooks: str | AbstractHook | Sequence[str | AbstractHook] = (),
    command: str = "",
) -> Training:
    """Train a model on images, test it on others once, at the end, and save it in ``folder``.

    The model begins with random weights, or with those of ``start``, any subject of the project's own models or timm's.
    The start's head stays if its classes are those of the images in the same order, and is replaced if not; its input
    is resampled to ``recipe.image`` pixels; its normalisation stays (:func:`~vitscope.models.start.start_of`).

    ``objective`` is what the training minimises: by default the one that the recipe names, or a value such as
    ``Distillation(teacher)``. ``hooks`` act besides the steps, by name or value: ``keep-zeros``,
    ``EarlyStop(patience=5)``. With ``recipe.validation``, that share of the images chooses the epoch whose weights are
    saved; otherwise those of the last epoch are.

    The folder then holds ``model.safetensors`` (weights, architecture, classes, input, recipe), ``metrics.nc``,
    ``run.nc``, ``recipe.json`` and ``state.pt``, each written whole or not at all. With ``resume``, a training that was
    interrupted at any moment goes on from its last state, or from the beginning if there is none yet, and ends with the
    same weights as an uninterrupted one: bit for bit on a CPU with the same number of threads, up to the rounding of
    the kernels elsewhere. Without a folder nothing is saved: subject, run and metrics are in memory. Raises
    ``UserError`` for what cannot be trained or resumed.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="vitscope-") as place:
            how = (test, False, observer, start, objective, hooks, command)
            made = train(recipe, images, place, *how)
            _ = made.subject, made.run, made.metrics  # read now, while the folder exists
            return made
    if "://" in os.fspath(folder):
        raise UserError(f"A training is saved in a local folder, and {os.fspath(folder)} is not one; give another.")
    folder = Path(folder).expanduser()
    question = _question(recipe, images, folder, test, observer or Silent(), start, objective, hooks)
    if is_follower(recipe.devices, recipe.strategy):  # the process of another device; the first has claimed the folder
        launch(question.task)
        return Training(folder)
    return Training(folder, _run_of(question, resume, command).notes)


def _run_of(question: TrainQuestion, resume: bool, command: str) -> Run:
    """The run; if the training had finished before, its other files are written again in case they were lost."""
    folder, store = question.task.folder, RunFolder(str(question.task.folder))
    with hold_folder(folder):
        finished = store.exists() and question.claim(resume)
        run = carry_out(question, Plan(folder=store, resume=resume, command=command))
        if finished:
            launch(question.task)
            finish_metrics(folder, run)
    return run


def _question(
    recipe: Recipe,
    images: Images,
    folder: Path,
    test: Images | None,
    observer: AbstractTrainingObserver,
    start: Subject | None,
    objective: AbstractObjective | None,
    hooks: str | AbstractHook | Sequence[str | AbstractHook],
) -> TrainQuestion:
    if objective is not None:
        recipe = replace(recipe, objective=objective.name)
    aim = value_of(recipe.objective, OBJECTIVES) if objective is None else objective
    doing = resolve_names(hooks, HOOKS) if hooks else ()
    classes = aim.classes(images)
    test = None if test is None else test.for_classes(len(classes), classes)
    known = {"training": images.fingerprint, **({} if test is None else {"test": test.fingerprint})}
    given = _given_labels(recipe, images, classes)
    if recipe.labels_from is not None and given is not None:
        known["labels"] = hashlib.sha256(given.tobytes()).hexdigest()
    shown, validation = _split(recipe, images)
    decided = _model(recipe, shown, classes, start)
    task = Task(
        **decided,
        classes=classes,
        images=shown,
        validation=None if validation is None else images.take(validation),
        given=given if given is None or validation is None else np.delete(given, validation),
        objective=aim,
        hooks=doing,
        folder=folder,
        observer=observer,
    )
    return TrainQuestion(task, known, test)


def _split(recipe: Recipe, images: Images) -> tuple[Images, Int[np.ndarray, " validation"] | None]:
    """The training images, and the numbers of the validation images, drawn by the seed in proportion to each class."""
    if not recipe.validation:
        return images, None
    count = round(recipe.validation * len(images))
    if not 0 < count < len(images):
        raise UserError(
            f"validation is {recipe.validation:g} of {len(images)} images, which is {count}; "
            "give a share that leaves images on both sides."
        )
    seed = int(np.random.SeedSequence([recipe.seed, _SPLIT]).generate_state(1)[0])
    kept = subset(images.labels, len(images), count, seed)
    return images.take(np.setdiff1d(np.arange(len(images)), kept)), kept


def _given_labels(recipe: Recipe, images: Images, classes: tuple[str, ...]) -> Int[np.ndarray, " images"] | None:
    """The labels that replace the images' own, if the recipe sets any."""
    if images.labels is None or not (recipe.label_noise or recipe.labels_from):
        return None
    if recipe.labels_from:
        return labels_from(recipe.labels_from, images, classes)
    own = np.asarray(images.labels, np.int64)
    return noisy_labels(own, classes, recipe.label_noise, recipe.noise_kind, recipe.seed)


def _model(recipe: Recipe, images: Images, classes: tuple[str, ...], start: Subject | None) -> dict[str, Any]:
    """The fields of a task that define the model and its input."""
    if start is None:
        recipe = recipe.resolve()
        model, channels = cast("tuple[str, int]", (recipe.model, recipe.channels))
        plain = recipe.arguments(len(classes), (0.5,), (0.5,))
        side = recipe.image or _side(model, plain, classes)
        mean, std = statistics(images, PixelInput(side, channels, (0.5,), (0.5,)))
        begin, input = None, PixelInput(side, channels, mean, std)
        arguments = recipe.arguments(len(classes), mean, std)
    else:
        size = None if recipe.image is None else (recipe.image, recipe.image)
        begin = start_of(start, classes, size, recipe.drop_path)
        input, arguments = begin.input, dict(begin.arguments)
        recipe = recipe.resolve((begin.model, input.channels))
    crop = recipe.crop if recipe.crop != "auto" else "padded" if max(input.shape[1:]) <= 64 else "resized"
    return {"recipe": recipe, "arguments": arguments, "input": input, "crop": crop, "start": begin}


def _side(model: str, arguments: dict[str, object], classes: tuple[str, ...]) -> int:
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return image_side(build_model(model, arguments, classes))
