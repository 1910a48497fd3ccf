"""``trials``: trainings at every point of a grid over the recipe, with several seeds each, as one run."""

import io
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, final

import xarray as xr
from typing_extensions import override

from vitscope.data import Images
from vitscope.engine.plan import Plan, check_plan, count_kept, fold_work
from vitscope.engine.question import AbstractQuestion, Answer, carry_out
from vitscope.engine.work.work import AbstractResult, AbstractWork, Advance, Amount, Shard
from vitscope.measurement.bounds import COUNT, check_number
from vitscope.measurement.errors import UserError
from vitscope.measurement.points import Points, Value, parse_points
from vitscope.models.subject import Subject
from vitscope.runs.provenance import provenance
from vitscope.runs.run import Run, make_run
from vitscope.runs.spec import Spec
from vitscope.training.diverged import Diverged
from vitscope.training.hook import AbstractHook
from vitscope.training.objective import AbstractObjective
from vitscope.training.observer import Silent, Step
from vitscope.training.recipe import FREE, Recipe
from vitscope.training.train import train
from vitscope.training.trial_results import Trials, describe_trials, judge_trials

FOLDER = "trials"
"""The subfolder of the run's folder that holds the trainings of a grid."""
DIVERGED = "diverged"
"""The attribute of a training's outcome that says why it has no result."""


@final
@dataclass(frozen=True)
class Grid:
    """A recipe, and the values of some of its fields to try in every combination.

    ``Grid(Recipe(epochs=5), images, {"learning_rate": (5e-4, 1e-3)})``. ``test`` are the images that each finished
    training is tested on; ``start`` is what all trainings begin from, random weights if it is None; ``objective`` and
    ``hooks`` are as for :func:`vitscope.train`.
    """

    recipe: Recipe
    images: Images
    values: Mapping[str, tuple[Value, ...]] = field(default_factory=dict[str, tuple[Value, ...]])
    test: Images | None = None
    start: Subject | None = None
    objective: AbstractObjective | None = None
    hooks: tuple[AbstractHook, ...] = ()

    def __post_init__(self) -> None:
        known = [one.name for one in fields(Recipe) if one.name not in (*FREE, "seed")]
        for name, values in self.values.items():
            if name not in known:
                more = "; seeds=3 gives several seeds" if name == "seed" else ""
                raise UserError(f"A grid cannot vary {name}; it can vary: {', '.join(known)}{more}.")
            if not values:
                raise UserError(f"{name} has no values; give at least one.")
        _ = self.recipes  # refuses values that do not go together

    @property
    def points(self) -> Points:
        """Every combination of the values."""
        return Points(self.values)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipe at each point."""
        return tuple(replace(self.recipe, **settings) for settings in self.points.settings)


def parse_grid(texts: Iterable[str]) -> Mapping[str, tuple[Value, ...]]:
    """The values of a grid written as text: ``learning_rate=5e-4,1e-3 mixup=0,0.8``."""
    given: dict[str, str] = {}
    for one in texts:
        name, equals, values = one.partition("=")
        if not equals or not values or name in given:
            raise UserError(f"--grid takes settings and values once each, as in learning_rate=5e-4,1e-3; not {one!r}.")
        given[name.strip().replace("-", "_")] = values
    names = {one.name: one.name for one in fields(Recipe) if one.name not in (*FREE, "seed")}
    return parse_points("A recipe", Recipe, names, given).values


def trials(grid: Grid, seeds: int = 1, plan: Plan | None = None) -> Run:
    """Train at every point of the grid with ``seeds`` seeds, counted up from the recipe's own, as one run.

    Every point has the same seeds, and each seed the same order of images, so points are compared in pairs. The run
    has ``trials`` (along the grid's axes and ``seed``, errors over images), ``learning-curves`` (along ``point`` and
    ``epoch``, errors over seeds) and ``trial-differences`` (each point less the first, by seed and by image); its
    claim says whether one point is the best. The plan's executor distributes the trainings; with a folder, each is
    saved with its weights in ``trials/POINT-SEED`` and resumes from its own last state. Cost: that of all trainings.
    Raises ``UserError`` for a grid that does not fit the recipe.
    """
    return carry_out(TrialsQuestion(grid, seeds), check_plan(plan))


@final
@dataclass(frozen=True)
class TrialsQuestion(AbstractQuestion):
    """A grid of trainings with several seeds."""

    grid: Grid
    seeds: int = 1
    counted: ClassVar[str] = "passes over an image"

    def __post_init__(self) -> None:
        check_number("seeds", self.seeds, COUNT)

    @property
    @override
    def title(self) -> str:
        return "Trials"

    @property
    def name(self) -> str:
        """The model that is trained."""
        return self.grid.recipe.model or (self.grid.start.name if self.grid.start else "vit-micro")

    def make_spec(self) -> Spec:
        """The recipe without what the grid varies, the grid, the seeds, the images and the start."""
        grid = self.grid
        model: dict[str, object] = {"name": self.name}
        if grid.start is not None:
            model["fingerprint"] = grid.start.fingerprint
        plain = {name: value for name, value in asdict(grid.recipe).items() if name not in (*FREE, *grid.values)}
        varied = {name: list(values) for name, values in grid.values.items()}
        images: dict[str, object] = {"name": grid.images.name, "count": len(grid.images)}
        images["of"] = f"images of {grid.images.name}"
        images |= {"labels": grid.images.label_source, "fingerprint": grid.images.fingerprint}
        if grid.test is not None:
            images |= {"test": grid.test.name, "fingerprint": f"{grid.images.fingerprint} {grid.test.fingerprint}"}
        settings: dict[str, object] = {"recipe": plain, "grid": varied, "seeds": self.seeds}
        if grid.objective is not None:
            settings["objective"] = grid.objective.facts()
        if grid.hooks:
            settings["hooks"] = [hook.facts() for hook in grid.hooks]
        return Spec("trials", model, images, settings)

    def work(self, plan: Plan) -> "TrialWork":
        """The trainings, as work for executors."""
        folder = None if plan.store is None else plan.store.url
        if folder is not None and "://" in folder:
            raise UserError(f"Trainings are saved in a local folder, and {folder} is not one; give another.")
        first = self.grid.recipe.seed
        each = [(recipe, first + seed) for recipe in self.grid.recipes for seed in range(self.seeds)]
        recipes = tuple(replace(recipe, seed=seed) for recipe, seed in each)
        return TrialWork(self.grid, recipes, folder, self.seeds)

    @property
    def total(self) -> Amount:
        """Passes of one image through the model, over all trainings."""
        return self.seeds * sum(recipe.epochs * len(self.grid.images) for recipe in self.grid.recipes)

    def kept_amount(self, plan: Plan) -> Amount:
        """Passes of the finished trainings; unfinished ones also keep their last state, which is not counted."""
        return count_kept(self.work(plan), self.spec, plan)

    def answer(self, plan: Plan) -> Answer:
        """The run of all trainings, with its claim."""
        began = time.perf_counter()
        work = self.work(plan)
        work.refuse_begun(plan.resume)
        found = fold_work(work, self.spec, plan, self.total)
        outcomes = [found[shard] for shard in sorted(found, key=lambda shard: shard.start)]
        seeds = [self.grid.recipe.seed + number for number in range(self.seeds)]
        ends = [(outcome.groups, outcome.diverged) for outcome in outcomes]
        all_trials = Trials(self.grid.points, seeds, *zip(*ends, strict=True))
        groups, notes = describe_trials(all_trials)
        origin = provenance(time.perf_counter() - began, plan.command)
        if self.grid.test is None:
            notes = (*notes, "No test images were given: accuracies are those of the validation images.")
        run = make_run(self.spec, groups, len(self.grid.images), provenance=origin, notes=notes)
        return Answer(run.with_claims(judge_trials(all_trials)))


@final
@dataclass(frozen=True, eq=False)
class FinishedTrial(AbstractResult):
    """The outcome of a training: the groups of its run."""

    groups: Mapping[str, xr.Dataset]
    diverged: str = ""
    """Why the training ended without a result, if it diverged."""

    @property
    def done(self) -> int:
        """One training."""
        return 1

    def to_bytes(self) -> bytes:
        """The groups as netCDF."""
        tree = xr.DataTree.from_dict(dict(self.groups))
        tree.attrs[DIVERGED] = self.diverged
        return bytes(tree.to_netcdf(engine="h5netcdf"))


@final
@dataclass(frozen=True)
class TrialWork(AbstractWork[FinishedTrial]):
    """Trainings, one per shard, the longest first; ``recipes`` go point by point, seeds fastest."""

    grid: Grid
    recipes: tuple[Recipe, ...]
    folder: str | None
    seeds: int

    @cached_property
    def costs(self) -> tuple[int, ...]:
        """Passes of one image through the model, for each training."""
        return tuple(recipe.epochs * len(self.grid.images) for recipe in self.recipes)

    def shards(self) -> tuple[Shard, ...]:
        """One shard for each training, the longest first."""
        order = sorted(range(len(self.recipes)), key=lambda number: -self.costs[number])
        return tuple(Shard(number, number + 1) for number in order)

    def passes(self, shard: Shard) -> Amount:
        """What the training costs."""
        return self.costs[shard.start]

    def place(self, number: int) -> Path | None:
        """The folder of a training; None if nothing is saved."""
        name = f"{number // self.seeds + 1:03d}-seed-{self.recipes[number].seed}"
        return None if self.folder is None else Path(self.folder, FOLDER, name)

    def refuse_begun(self, resume: bool) -> None:
        """Raise ``UserError`` if the folder holds trainings and ``resume`` is off: they are never overwritten."""
        begun = self.folder is not None and os.path.isdir(Path(self.folder, FOLDER))
        if begun and not resume:
            raise UserError(f"{self.folder} already holds trainings of a grid; resume them, or give another folder.")

    def fold(self, shard: Shard, advance: Advance) -> FinishedTrial:
        """Run one training, from its last state if it was begun."""
        kept = self.place(shard.start)
        with tempfile.TemporaryDirectory() if kept is None else nullcontext(str(kept)) as folder:
            grid, watch = self.grid, _Counting(advance, self.costs[shard.start])
            recipe = self.recipes[shard.start]
            try:
                made = train(
                    recipe, grid.images, folder, grid.test, True, watch, grid.start, grid.objective, grid.hooks
                )
            except Diverged as error:
                watch.reach(1.0)
                return FinishedTrial({}, str(error))
            watch.reach(1.0)
            groups = {"training": made.metrics.load()}
            if "predictions" in made.run:
                groups["predictions"] = made.run.tree["predictions"].to_dataset()
            return FinishedTrial(groups)

    @override
    def read(self, content: bytes) -> FinishedTrial:
        with xr.open_datatree(io.BytesIO(content), engine="h5netcdf") as tree:
            groups = {name: node.to_dataset() for name, node in tree.load().children.items()}
            return FinishedTrial(groups, str(tree.attrs.get(DIVERGED, "")))


class _Counting(Silent):
    """Reports the share of a training's cost that is spent, including the steps of an interrupted attempt."""

    def __init__(self, advance: Advance, cost: Amount) -> None:
        self._advance, self._cost, self._told = advance, cost, 0.0

    @override
    def step(self, step: Step) -> None:
        self.reach(step.number / step.steps)

    def reach(self, share: float) -> None:
        """Report ``share`` of the training as done; one that ends early or had finished before is done at once."""
        now = share * self._cost
        if now > self._told:
            self._advance(now - self._told)
            self._told = now
