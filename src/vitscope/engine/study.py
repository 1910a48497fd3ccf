"""``study``: diagnostics under a grid of interventions, what the subjects have in common computed once."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import xarray as xr
from typing_extensions import override

from vitscope.data import Images
from vitscope.engine.grid import STUDIES, AbstractStudy, StudyGrid
from vitscope.engine.gridded import drop_quantities, grid_results
from vitscope.engine.measure import check_subject, describe_units, fit_images, settings_of, subject_spec, why_empty
from vitscope.engine.plan import Plan, check_plan, count_kept, fold_work
from vitscope.engine.question import AbstractQuestion, Answer, carry_out
from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AnyDiagnostic, Scene
from vitscope.engine.reading.shard import ShardResult
from vitscope.engine.studying import StudyWork
from vitscope.engine.work.work import Amount
from vitscope.measurement.errors import UserError
from vitscope.models.state import buffers_kept
from vitscope.models.subject import Subject
from vitscope.runs.provenance import provenance
from vitscope.runs.registry import resolve_names, value_of
from vitscope.runs.run import Run, make_run
from vitscope.runs.spec import Spec

AsStudy = str | type[Any] | AbstractStudy
"""A study, or its name or class for the default settings."""
AsDiagnostic = str | type[Any] | AnyDiagnostic
"""A diagnostic other than curvature, or its name or class."""


def study(
    subject: Subject,
    images: Images,
    question: AsStudy | StudyGrid,
    diagnostics: AsDiagnostic | Iterable[AsDiagnostic] | None = None,
    plan: Plan | None = None,
) -> Run:
    """Measure diagnostics at every point of a grid of interventions, and for the intact subject.

    ``question`` is a study (``LesionStudy(of="head")``), the name of one for its default settings (``"lesion"``), or
    your own grid, which needs ``diagnostics``; these are given as to :func:`vitscope.measure`. Returns a run with one
    group for each diagnostic, named ``<study>-<diagnostic>``. It holds each quantity along the grid's axes,
    ``<quantity>_intact`` (nothing done) and, for means over images, the change from it, ``<quantity>_change``, whose
    standard error is that of the differences image by image. The subject is untouched. Cost: a forward pass for each
    setting, less what settings that share a module have in common. With ``plan.folder`` finished shards are saved at
    once. Raises ``UserError`` if the subject is random, or an intervention does not suit it.
    """
    plan = check_plan(plan)
    return carry_out(resolve_study(subject, images, question, diagnostics, plan), plan)


@dataclass(frozen=True)
class Words:
    """A study's name, title and the texts of its page."""

    name: str
    title: str
    question: str
    definition: str
    references: tuple[str, ...]
    headline: str


@dataclass(frozen=True)
class StudyQuestion(AbstractQuestion):
    """A study resolved for a subject and images: its texts, grid, diagnostics and notes."""

    subject: Subject
    images: Images
    words: Words
    grid: StudyGrid
    diagnostics: tuple[AnyDiagnostic, ...]
    notes: tuple[str, ...]

    @property
    @override
    def title(self) -> str:
        return self.words.title

    def make_spec(self) -> Spec:
        """The study on the subject and the images, with every setting of its grid."""
        settings: dict[str, object] = {
            "study": self.words.name,
            "axes": {axis.name: list(axis.values) for axis in self.grid.axes},
            "settings": [setting and [one.settings for one in setting] for setting in self.grid.settings],
            "diagnostics": {one.name: settings_of(one) for one in self.diagnostics},
        }
        if self.grid.facts:
            settings["facts"] = {fact.quantity.name: fact.quantity.meaning for fact in self.grid.facts}
        return subject_spec("study", self.subject, self.images, settings)

    def work(self, batch_size: int) -> StudyWork:
        """The work for executors."""
        settings = tuple(setting for setting in self.grid.settings if setting is not None)
        return StudyWork(self.subject, self.images, settings, self.diagnostics, batch_size)

    @property
    def total(self) -> Amount:
        """The total cost, in forward passes of one image."""
        return len(self.images) * sum(self.work(1).costs)

    def kept_amount(self, plan: Plan) -> Amount:
        """How many passes an interrupted attempt left in the plan's folder."""
        return count_kept(self.work(plan.batch_size), self.spec, plan)

    def answer(self, plan: Plan) -> Answer:
        """The run; what forward passes write into the module's buffers is undone."""
        with buffers_kept(self.subject.module):
            return Answer(self._study(plan))

    def _study(self, plan: Plan) -> Run:
        started = time.perf_counter()
        notes = check_subject(self.subject, self.images)
        work = self.work(plan.batch_size)
        results = fold_work(work, self.spec, plan, self.total)
        blocks = [
            reduce(ShardResult.merge, (result for shard, result in results.items() if shard.block == number))
            for number in range(len(work.blocks))
        ]
        self.images.check_broken(blocks[0].broken)
        told = (*notes, *(one.describe(self.subject) for one in blocks[0].wanting), *silent_settings(blocks))
        said = replace(self, notes=(*told, *self.notes))
        return _run(said, work, blocks, provenance(time.perf_counter() - started, plan.command))


def resolve_study(
    subject: Subject,
    images: Images,
    question: AsStudy | StudyGrid,
    diagnostics: AsDiagnostic | Iterable[AsDiagnostic] | None,
    plan: Plan,
) -> StudyQuestion:
    """Resolve ``question`` for the subject and images; reads data only if the grid depends on them."""
    measured = None if diagnostics is None else resolve_names(diagnostics, DIAGNOSTICS)
    images = fit_images(subject, images)
    if isinstance(question, StudyGrid):
        if not measured:
            raise UserError("A grid has no default diagnostics; give at least one diagnostic.")
        words = Words("grid", "Grid of interventions", "What does it depend on?", "", (), "")
        return StudyQuestion(subject, images, words, question, measured, ())
    asked_for = value_of(question, STUDIES)
    grid, measured_on = asked_for.lay_out(subject, images, plan)
    definition = (type(asked_for).__doc__ or "").strip()
    said = (asked_for.name, asked_for.title, asked_for.question, definition, asked_for.references, asked_for.headline)
    notes = asked_for.notes(subject)
    if len(measured_on) < len(images):
        notes = (*notes, f"Measured on {len(measured_on)} of the {len(images)} images.")
    return StudyQuestion(subject, measured_on, Words(*said), grid, measured or asked_for.diagnostics(), notes)


def silent_settings(blocks: Sequence[ShardResult]) -> tuple[str, ...]:
    """A sentence on the settings at which more images' logits predict nothing than for the intact subject, if any."""
    counts = [count for block in blocks for count in block.silent[1:]]
    more = [count for count in counts if count > blocks[0].silent[0]]
    if not more:
        return ()
    of = f"{len(more)} of {len(counts)} settings"
    many = f"up to {max(more):,} of {blocks[0].images:,} images"
    return (f"In {of} the logits of {many} are not finite: they count as wrong, and losses leave them out.",)


def _run(study: StudyQuestion, work: StudyWork, blocks: Sequence[ShardResult], origin: str) -> Run:
    scene, words = Scene(work.subject.places), study.words
    kinds = len(work.diagnostics)
    groups: dict[str, xr.Dataset] = {}
    skipped: dict[str, str] = {}
    for index, diagnostic in enumerate(work.diagnostics):
        name = f"{words.name}-{diagnostic.name}"
        pairs = [block.states[2 * (walk * kinds + index) :][:2]
                 for block, settings in zip(blocks, work.blocks, strict=True)
                 for walk in range(1, len(settings) + 1)]  # fmt: skip
        intact = diagnostic.finish(blocks[0].states[2 * index], scene)
        if not intact:
            skipped[name] = why_empty(diagnostic.reads, work.subject, blocks[0].images)
            continue
        values = _place_results(study.grid, [diagnostic.finish(state, scene) for state, _ in pairs])
        found = [drop_quantities(diagnostic.finish(change, scene), diagnostic.nonlinear) for _, change in pairs]
        changes = _place_results(study.grid, found)
        said = {
            "title": f"{words.title}: {diagnostic.title}",
            "question": words.question,
            "definition": "\n\n".join(filter(None, (words.definition, intact.attrs["definition"]))),
            "references": [*words.references, *diagnostic.references],
            **({"headline": words.headline} if words.headline in intact else {}),
        }
        groups[name] = grid_results(study.grid, intact, values, changes, said)
    left_out = [f"{broken.name} was left out: {broken.reason}" for broken in blocks[0].broken]
    return make_run(
        study.spec,
        groups,
        blocks[0].images,
        provenance=origin,
        anatomy=describe_units(work.subject.places),
        skipped=skipped,
        notes=[*study.subject.notes, *study.images.notes, *study.notes, *left_out],
    )


def _place_results(grid: StudyGrid, results: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """The settings' results at the grid's points, an empty one where there is nothing to do."""
    found = iter(results)
    return [xr.Dataset() if setting is None else next(found) for setting in grid.settings] if results else []
