"""A training as a question: its answer is a run with the metrics and the model's predictions on the test images."""

import dataclasses
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from lightning_fabric import Fabric
from typing_extensions import override

from vitscope.data.image import Images
from vitscope.engine.measure import Measurement, describe_units, measure
from vitscope.engine.plan import Plan
from vitscope.engine.question import AbstractQuestion, Answer
from vitscope.engine.work.work import Amount
from vitscope.models.load import load
from vitscope.models.subject import Subject
from vitscope.runs.provenance import provenance
from vitscope.runs.run import Run, make_run
from vitscope.runs.spec import Spec
from vitscope.training.loop import run
from vitscope.training.metrics import save_metrics, with_test
from vitscope.training.noise import NOISE, flips
from vitscope.training.recipe import FREE
from vitscope.training.state import METRICS, RECIPE, STATE, WEIGHTS, claim_folder, kept_step
from vitscope.training.task import Task

TRAINING = "training"
"""The group of a run that holds a training's metrics along the axis ``epoch``."""


@dataclass(frozen=True)
class TrainQuestion(AbstractQuestion):
    """A fully specified training, and the images on which its model is tested once, at the end.

    It saves its own state in the plan's folder, which must be local, and can resume there after any step.
    """

    task: Task
    known: Mapping[str, str]
    """Digests of its images, and of labels from a file, by their role."""
    test: Images | None = None

    counted = "steps"

    @property
    @override
    def title(self) -> str:
        return "Training"

    @property
    def facts(self) -> dict[str, object]:
        """The training's identity besides its recipe: its start, objective and hooks, if they add anything."""
        task, objective = self.task, self.task.objective.facts()
        found: dict[str, object] = {} if task.start is None else {"start": task.start.fingerprint}
        found |= {"objective": objective} if set(objective) != {"name"} else {}
        return found | ({"hooks": [hook.facts() for hook in task.hooks]} if task.hooks else {})

    def make_spec(self) -> Spec:
        """The start, the recipe and the images: the test images if there are any, so that runs on them compare."""
        task = self.task
        recipe = {name: value for name, value in dataclasses.asdict(task.recipe).items() if name not in FREE}
        start = "random" if task.start is None else task.start.fingerprint
        model = {
            "name": task.model,
            "fingerprint": start,
            "weights": "trained from random ones" if task.start is None else "trained from a start's",
        }
        shown = self.test or task.images
        images = {"name": shown.name, "count": len(shown), "labels": shown.label_source}
        return Spec(
            "train",
            model,
            {**images, "fingerprint": shown.fingerprint},
            {"recipe": recipe, "images": dict(self.known), **self.facts},
        )

    @property
    def total(self) -> Amount:
        """The number of steps."""
        recipe = self.task.recipe
        return len(self.task.images) // recipe.batch * recipe.epochs

    def kept_amount(self, plan: Plan) -> Amount:
        """The step of the saved state."""
        return kept_step(self.task.folder) or 0

    def claim(self, resume: bool) -> bool:
        """Claim the folder for this training, or check that it is its own; return whether it was begun before."""
        return claim_folder(self.task.folder, self.task.recipe, self.known, resume, self.facts)

    def answer(self, plan: Plan) -> Answer:
        """Train, from the last state if the plan resumes, and test once."""
        started, folder = time.perf_counter(), self.task.folder
        begun = self.claim(plan.resume)
        try:
            device = launch(self.task)
        finally:
            if not begun and not any((folder / name).exists() for name in (STATE, WEIGHTS)):
                (folder / RECIPE).unlink(missing_ok=True)
        figures = _read_metrics(folder)
        with torch.random.fork_rng(devices=[]):  # building a model draws random weights
            subject = load(folder / WEIGHTS, device=device)
            tested = self._test(subject, plan)
        words = {"title": "Training", "question": "How did it learn?"}
        groups = {TRAINING: figures.assign_attrs(words), **({} if tested is None else _groups(tested))}
        if self.task.given is not None:
            groups[NOISE] = flips(self.task.images, self.task.given)
        finish_metrics(folder, tested)
        notes = [*self._notes(figures), *(() if tested is None else tested.notes)]
        count = len(self.task.images) if tested is None else int(tested.tree.attrs["images"])
        origin = provenance(time.perf_counter() - started, plan.command)
        units = describe_units(subject.places)
        return Answer(make_run(self.spec, groups, count, provenance=origin, anatomy=units, notes=notes))

    def _test(self, subject: Subject, plan: Plan) -> Run | None:
        """The model's run on the test images, which are seen only here."""
        if self.test is None:
            return None
        asked = Measurement.of(subject, self.test, ["accuracy"])
        alone = Plan(plan.batch_size, plan.executor, command=plan.command)
        return measure(subject, self.test, asked.diagnostics, alone)

    def _notes(self, figures: xr.Dataset) -> list[str]:
        """What a reader of its numbers must know."""
        task, said = self.task, [*(() if self.task.start is None else self.task.start.notes)]
        if task.validation is not None:
            said.append(f"{len(task.validation):,} of the training images chose the epoch, and were not trained on.")
        if task.given is not None and task.images.labels is not None:
            wrong = int((np.asarray(task.images.labels) != task.given).sum())
            said.append(f"{wrong:,} of {len(task.given):,} training images were given another class on purpose.")
        if figures.sizes["epoch"] < task.recipe.epochs:
            said.append(f"The training ended after {figures.sizes['epoch']} of {task.recipe.epochs} epochs.")
        return said


def launch(task: Task) -> str:
    """Train on the recipe's devices, from the last state; return the kind of device, for the test."""
    recipe = task.recipe
    strategy = "auto" if recipe.devices == 1 else "ddp_spawn" if recipe.strategy == "auto" else recipe.strategy
    fabric = Fabric(
        accelerator=recipe.accelerator, devices=recipe.devices, strategy=strategy, precision=recipe.precision
    )
    fabric.launch(partial(run, task=task))
    return fabric.device.type


def is_follower(recipe_devices: int, strategy: str) -> bool:
    """Whether this process is one of the further ones that run the same command, once per device, after the first."""
    if recipe_devices == 1 or strategy != "ddp":  # here a batch system's rank does not count devices
        return False
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdecimal()), 0) > 0


def finish_metrics(folder: Path, tested: Run | None) -> None:
    """Add the test figures to the metrics of the epochs."""
    if tested is not None and "accuracy" in tested:
        save_metrics(with_test(_read_metrics(folder), tested.tree["accuracy"].to_dataset()), folder / METRICS)


def _groups(tested: Run) -> dict[str, xr.Dataset]:
    return {str(name): node.to_dataset() for name, node in tested.tree.children.items()}


def _read_metrics(folder: Path) -> xr.Dataset:
    return xr.load_dataset(folder / METRICS, engine="h5netcdf")
