"""``improve``: a better model, found on validation images, proven on test images, and written to files."""

import hashlib
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import ClassVar, final

from typing_extensions import override

from vitscope.data import Images
from vitscope.deploy.bench import bench
from vitscope.engine.measure import describe_units, fit_images, subject_spec
from vitscope.engine.plan import Plan, check_plan
from vitscope.engine.question import AbstractQuestion, Answer, carry_out
from vitscope.engine.work.work import Amount
from vitscope.improvement.figures import Figures, judge_on
from vitscope.improvement.goal import AbstractGoal, find_goal
from vitscope.improvement.prescription import PRESCRIPTIONS, AbstractPrescription
from vitscope.improvement.proof import Proof
from vitscope.improvement.results import describe_proof, describe_search, read_ratio
from vitscope.improvement.search import Candidate, GreedySearch
from vitscope.improvement.search import Path as Moves
from vitscope.improvement.splits import Splits, split_images
from vitscope.measurement.bounds import COUNT, SEED, check_number
from vitscope.measurement.errors import UserError
from vitscope.models.load import load
from vitscope.models.saved import save
from vitscope.models.subject import Subject
from vitscope.runs.provenance import provenance
from vitscope.runs.run import Run, make_run
from vitscope.runs.spec import Spec

MODEL = "model.safetensors"
"""The file of the better model, in the folder of its run."""
BATCHES = (1, 32)
"""Batch sizes at which the better model is timed; the last is that of the headline."""
TIMED = 25.0
"""Seconds that the timing takes."""
LINES = (f"Load it: vitscope.load('{MODEL}'). Export it: vitscope export {MODEL} better.onnx.",)
"""How the better model is used."""
TRIALS = 300
"""Trials of a search, at most, unless told otherwise."""


@final
@dataclass(frozen=True, eq=False)
class Improvement:
    """The better model, and the run of how it came about and what was proven."""

    subject: Subject
    run: Run


def improve(
    subject: Subject,
    images: Images,
    goal: str = "faster",
    give_up: float = 0.005,
    test: Images | None = None,
    tries: Sequence[str] = (),
    trials: int = TRIALS,
    seed: int = 0,
    plan: Plan | None = None,
) -> Improvement:
    """A model that is better at the goal and gives up at most ``give_up`` of top-1 accuracy, with the proof.

    ``goal`` is ``faster``, ``smaller``, ``calibrated`` or ``accurate``. The images are divided into three disjoint
    splits (:func:`~vitscope.improvement.splits.split_images`); with ``test`` those are tested on, and ``images`` give
    the other two. ``tries`` names the kinds of edits to try, such as ``tokens`` or ``units``; by default those that
    serve the goal. With a folder in the plan the better model, the run and every trial are saved there, and
    ``plan.resume`` continues. The original is untouched. Cost: up to ``trials`` passes over 512 images, one pass over
    the validation images for each step, three over the test images. Raises ``UserError`` for images without labels, or
    too few.
    """
    splits = split_images(fit_images(subject, images), None if test is None else fit_images(subject, test), seed)
    chosen = resolve_tries(find_goal(goal), tries)
    question = ImproveQuestion(subject, splits, find_goal(goal), give_up, chosen, trials, seed)
    plan = check_plan(plan)
    with tempfile.TemporaryDirectory() if plan.store is None else nullcontext(plan.store.url) as folder:
        run = carry_out(question, plan if plan.store else replace(plan, folder=folder))
        return Improvement(load(Path(folder, MODEL)), run)


def resolve_tries(goal: AbstractGoal, tries: Sequence[str]) -> tuple[AbstractPrescription, ...]:
    """The prescriptions of these names, or those that serve the goal if none is named."""
    known = dict(PRESCRIPTIONS.items())
    return tuple(PRESCRIPTIONS[name]() for name in tries or [n for n, one in known.items() if goal.name in one.goals])


def describe_steps(path: Moves) -> list[str]:
    """The steps that were taken, one sentence for each run of equal ones."""
    said: list[str] = []
    for label, group in groupby(enumerate(path, start=1), key=lambda one: one[1].label):
        numbers = [number for number, _ in group]
        steps = f"Step {numbers[0]}" if len(numbers) == 1 else f"Steps {numbers[0]} to {numbers[-1]}"
        said.append(f"{steps}: {label}.")
    return said


@final
@dataclass(frozen=True, eq=False)
class ImproveQuestion(AbstractQuestion):
    """A search for a better model and its proof."""

    subject: Subject
    splits: Splits
    goal: AbstractGoal
    give_up: float
    prescriptions: tuple[AbstractPrescription, ...]
    trials: int = TRIALS
    seed: int = 0
    counted: ClassVar[str] = "trials"

    def __post_init__(self) -> None:
        check_number("trials", self.trials, COUNT)
        check_number("seed", self.seed, SEED)
        if not 0 <= self.give_up < 1:
            raise UserError(
                f"give_up is {self.give_up:g}; it is a share of accuracy from 0 to below 1 (0.005: half a point)."
            )

    @property
    @override
    def title(self) -> str:
        return f"Looking for a {'more ' if self.goal.name in ('calibrated', 'accurate') else ''}{self.goal.name} model"

    @override
    def make_spec(self) -> Spec:
        settings = {
            "goal": self.goal.name,
            "give_up": self.give_up,
            "tries": {one.name: vars(one) for one in self.prescriptions},
            "trials": self.trials,
            "seed": self.seed,
            "splits": self.splits.facts,
        }
        return subject_spec("improve", self.subject, self.splits.test, settings)

    @property
    @override
    def total(self) -> Amount:
        return self.trials

    @override
    def kept_amount(self, plan: Plan) -> Amount:
        return min(len(_Judge(self, plan).held), self.trials)

    @override
    def answer(self, plan: Plan) -> Answer:
        began = time.perf_counter()
        folder = _local(plan)
        judge = _Judge(self, plan)
        search = GreedySearch(self.goal, self.prescriptions, self.splits, judge, self.give_up, self.trials)
        taken = list(search.run(self.subject))
        plan.say(f"{len(taken) - 1} steps were taken; the last is proven on {len(self.splits.test):,} test images.")
        saved = save(taken[-1].subject, folder / MODEL)
        loaded = load(saved.path)
        proof = self._prove(taken, loaded, judge)
        timing = self._time(loaded, plan) if proof.steps else None
        proof = replace(proof, time=None if timing is None else read_ratio(timing))
        groups = {**describe_search(taken, search.tried, self.goal), **describe_proof(proof)}
        claims = proof.claims()
        if timing is not None:
            groups |= {name: timing.tree[name].to_dataset() for name in ("timing", "time-ratio", "operations")}
            claims = (*claims, *(replace(one, weight=one.weight / 2) for one in timing.claims))
        plan.progress(self.total, self.total)
        run = make_run(
            self.spec,
            groups,
            len(self.splits.test),
            provenance=provenance(time.perf_counter() - began, plan.command),
            anatomy=describe_units(self.subject.places),
            notes=[*describe_steps(taken[-1].path), *LINES],
        )
        return Answer(run.with_claims(claims))

    def _time(self, loaded: Subject, plan: Plan) -> Run:
        """The original and the file that was written, timed in turns."""
        plan.say("The original and the better model are timed against each other, which takes half a minute.")
        each = [replace(self.subject, name="original"), replace(loaded, name="better")]
        return bench(each, BATCHES, seconds=TIMED, memory=False, seed=self.seed)

    def _prove(self, taken: list[Candidate], loaded: Subject, judge: "_Judge") -> Proof:
        """The figures on the test images of the original, the file that was written, and a random removal."""
        path = taken[-1].path
        controls: dict[str, Figures] = {}
        if path:
            moves = self._random_path(path)
            if moves != path:
                controls["random removal"] = judge.test("random", self._apply(moves))
        original, candidate = judge.test("original", self.subject), judge.test("candidate", loaded)
        validation = taken[-1].figures.change_of_accuracy(taken[0].figures)
        return Proof(self.goal, self.give_up, original, candidate, controls, validation, len(path))

    def _random_path(self, path: Moves) -> Moves:
        subject, found = self.subject, ()
        for number, move in enumerate(path):
            other = move.at_random(subject, self.seed + number)
            subject, found = other.apply(subject, self.splits), (*found, other)
        return found

    def _apply(self, path: Moves) -> Subject:
        subject = self.subject
        for move in path:
            subject = move.apply(subject, self.splits)
        return subject


def _local(plan: Plan) -> Path:
    assert plan.store is not None, "improve gives every plan a folder"
    if not plan.store.is_local:
        raise UserError(f"A better model is written to a folder of this machine, and {plan.store.url} is not one.")
    Path(plan.store.url).mkdir(parents=True, exist_ok=True)
    return Path(plan.store.url)


@dataclass(eq=False)
class _Judge:
    """Judges subjects on the splits, and keeps every figure in the plan's folder."""

    question: ImproveQuestion
    plan: Plan
    held: dict[str, Figures] = field(default_factory=dict[str, Figures])
    tried: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        if self.plan.store is not None and self.plan.resume:
            self.held.update(self.plan.store.parts(self.question.spec, Figures.from_bytes))

    def __call__(self, path: Moves, subject: Subject, screen: bool) -> Figures:
        splits = self.question.splits
        role = "screen" if screen else "validation"
        name = hashlib.sha256("\n".join([role, *(move.label for move in path)]).encode()).hexdigest()[:16]
        if screen and path and name not in self.tried:
            self.tried.add(name)
            self.plan.progress(min(len(self.tried), self.question.trials), self.question.trials)
            self.plan.tell(path[-1].label)
        return self._keep(f"{role}-{name}", subject, splits.screen if screen else splits.validation)

    def test(self, name: str, subject: Subject) -> Figures:
        """The figures on the test images."""
        return self._keep(f"test-{name}", subject, self.question.splits.test)

    def _keep(self, name: str, subject: Subject, images: Images) -> Figures:
        name = f"batch-{self.plan.batch_size}-{name}"
        if name not in self.held:
            self.held[name] = judge_on(subject, images, self.plan.batch_size)
            if self.plan.store is not None:
                self.plan.store.write_part(self.question.spec, name, self.held[name].to_bytes())
        return self.held[name]
