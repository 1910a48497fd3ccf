"""``study``: diagnostics under a grid of interventions, what the subjects have in common computed once."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import torch
import xarray as xr

from vitscope.data import Images
from vitscope.data.batch import Batch
from vitscope.engine.grid import STUDIES, AbstractStudy, Grid, Setting
from vitscope.engine.gridded import gridded, without
from vitscope.engine.measure import checked, describe_units, fitted, settings_of, subject_spec, why_empty
from vitscope.engine.plan import Plan, check_plan, count_kept, fold_work
from vitscope.engine.question import AbstractQuestion, Answer, carry_out
from vitscope.engine.reading.activation import Workspace
from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AnyDiagnostic, Scene, differences
from vitscope.engine.reading.failure import failures_told
from vitscope.engine.reading.finite import Wanting, counted, unpredicting, wanting
from vitscope.engine.reading.fold import Means, Observations
from vitscope.engine.reading.shard import Reading, ShardResult, batch_shards, predictions, present_classes
from vitscope.engine.reading.together import cost_together, walk_together
from vitscope.engine.work.work import AbstractSubjectWork, Advance, Amount, Shard
from vitscope.measurement.errors import UserError
from vitscope.models.feed import input_like
from vitscope.models.state import buffers_kept
from vitscope.models.subject import Composition, Subject
from vitscope.runs.provenance import provenance
from vitscope.runs.registry import resolve_names, value_of
from vitscope.runs.run import Run, make_run
from vitscope.runs.spec import Spec

WALKS_PER_BLOCK = 128
"""Settings that share a module are walked together, so many at most."""
MODULES_PER_BLOCK = 16
"""Settings with weights of their own, between two readings of the same images: what an interrupt can lose."""

AsStudy = str | type[Any] | AbstractStudy
"""A study, or the name or class of one, which stand for its default settings."""
AsDiagnostic = str | type[Any] | AnyDiagnostic
"""A diagnostic that is no curvature, or the name or class of one."""


def study(
    subject: Subject,
    images: Images,
    question: AsStudy | Grid,
    diagnostics: AsDiagnostic | Iterable[AsDiagnostic] | None = None,
    plan: Plan | None = None,
) -> Run:
    """Diagnostics at every point of a grid of interventions, and at the subject as it is.

    ``question`` is a study (``LesionStudy(of="head")``), the name of one at its default settings (``"lesion"``), or a
    grid of one's own, which needs ``diagnostics``; these are given as to :func:`vitscope.measure`. Returns a run with
    one group for each diagnostic, named ``<study>-<diagnostic>``: beside each quantity, along the grid's axes, stand
    ``<quantity>_intact`` (nothing done) and, for diagnostics that are means over images, ``<quantity>_change`` from
    it, whose standard error is of the differences image by image. The subject is untouched. Cost: a forward pass for
    each setting, less what settings that share a module have in common. With ``plan.folder`` finished pieces are kept
    at once. Raises ``UserError`` where the subject is random, or an intervention does not suit it.
    """
    plan = check_plan(plan)
    return carry_out(resolve_study(subject, images, question, diagnostics, plan), plan)


@dataclass(frozen=True)
class Words:
    """What a study is called, and what its page says of it."""

    name: str
    title: str
    question: str
    definition: str
    references: tuple[str, ...]
    headline: str


@dataclass(frozen=True)
class StudyQuestion(AbstractQuestion):
    """A study resolved for a subject and images: its words, its grid, its diagnostics, the notes beside it."""

    subject: Subject
    images: Images
    words: Words
    grid: Grid
    diagnostics: tuple[AnyDiagnostic, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """What it is called while it is answered."""
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

    def work(self, batch_size: int) -> "StudyWork":
        """What executors carry out."""
        settings = tuple(setting for setting in self.grid.settings if setting is not None)
        return StudyWork(self.subject, self.images, settings, self.diagnostics, batch_size)

    @property
    def total(self) -> Amount:
        """What it costs in forward passes of one image."""
        return len(self.images) * sum(self.work(1).costs)

    def kept(self, plan: Plan) -> Amount:
        """How many of the passes an interrupted attempt left in the plan's folder."""
        return count_kept(self.work(plan.batch_size), self.spec, plan)

    def answer(self, plan: Plan) -> Answer:
        """The run; what forward passes write into the module's buffers is undone."""
        with buffers_kept(self.subject.module):
            return Answer(self._study(plan))

    def _study(self, plan: Plan) -> Run:
        started = time.perf_counter()
        notes = checked(self.subject, self.images)
        work = self.work(plan.batch_size)
        results = fold_work(work, self.spec, plan, self.total)
        blocks = [
            reduce(ShardResult.merge, (result for shard, result in results.items() if shard.block == number))
            for number in range(len(work.blocks))
        ]
        self.images.check_broken(blocks[0].broken)
        told = (*notes, *(one.told(self.subject) for one in blocks[0].wanting), *silent_settings(blocks))
        said = replace(self, notes=(*told, *self.notes))
        return _run(said, work, blocks, provenance(time.perf_counter() - started, plan.command))


def resolve_study(
    subject: Subject,
    images: Images,
    question: AsStudy | Grid,
    diagnostics: AsDiagnostic | Iterable[AsDiagnostic] | None,
    plan: Plan,
) -> StudyQuestion:
    """The study that ``question`` stands for; reads data only if its grid depends on them."""
    measured = None if diagnostics is None else resolve_names(diagnostics, DIAGNOSTICS)
    images = fitted(subject, images)
    if isinstance(question, Grid):
        if not measured:
            raise UserError("A grid of one's own is studied by diagnostics of one's own: give at least one.")
        words = Words("grid", "Grid of interventions", "What does it depend on?", "", (), "")
        return StudyQuestion(subject, images, words, question, measured, ())
    asked_for = value_of(question, STUDIES)
    given, images = images, asked_for.chosen(subject, images, plan)
    definition = (type(asked_for).__doc__ or "").strip()
    said = (asked_for.name, asked_for.title, asked_for.question, definition, asked_for.references, asked_for.headline)
    grid = asked_for.grid(subject, images, plan)
    notes = asked_for.notes(subject)
    if len(images) < len(given):
        notes = (*notes, f"Measured on {len(images)} of the {len(given)} images.")
    return StudyQuestion(subject, images, Words(*said), grid, measured or asked_for.diagnostics(), notes)


@dataclass(frozen=True)
class StudyWork(AbstractSubjectWork[ShardResult]):
    """All settings of a study over images, in blocks; a block's result has states for the intact subject first."""

    settings: tuple[Setting, ...]
    diagnostics: tuple[AnyDiagnostic, ...]
    batch_size: int

    @cached_property
    def blocks(self) -> tuple[tuple[Setting, ...], ...]:
        """Settings that are done together: those that share the subject's module, and others a few at a time."""
        blocks: list[list[Setting]] = []
        for setting in self.settings:
            heavy = changes_weights(setting)
            most = MODULES_PER_BLOCK if heavy else WALKS_PER_BLOCK
            if not blocks or len(blocks[-1]) == most or changes_weights(blocks[-1][0]) != heavy:
                blocks.append([])
            blocks[-1].append(setting)
        return tuple(map(tuple, blocks))

    def shards(self) -> tuple[Shard, ...]:
        """A few batches each, for every block."""
        count = self.images.batch_count(self.batch_size)
        return tuple(shard for block in range(len(self.blocks)) for shard in batch_shards(count, block))

    @cached_property
    def costs(self) -> tuple[Amount, ...]:
        """What each block costs an image, in forward passes."""
        return tuple(sum(cost_together(subjects) for _, subjects in self._together(block)) for block in self.blocks)

    def passes(self, shard: Shard) -> Amount:
        """What the block's settings and the intact subject have not in common."""
        return self.costs[shard.block]

    def read(self, content: bytes) -> ShardResult:
        """The result whose ``to_bytes`` these are."""
        return ShardResult.from_bytes(content)

    def fold(self, shard: Shard, advance: Advance) -> ShardResult:
        """For the intact subject, then every setting: each diagnostic's state, and that of its changes."""
        transform = self.subject.preprocessing.transform
        batches = list(self.images.batches(transform, self.batch_size, shard.start, shard.stop))
        states = [[(Means(), Means()) for _ in self.diagnostics] for _ in range(len(self.blocks[shard.block]) + 1)]
        intact: list[list[Observations]] = []
        wanted, quiet = list[Wanting](), [0] * len(states)
        for walks, subjects in self._together(self.blocks[shard.block]):
            cost = cost_together(subjects)
            for number, batch in enumerate(batches):
                with failures_told(self.subject, self.images, batch):
                    seen, silent = self._observed(subjects, batch)
                if walks[0] == 0:
                    intact.append(seen[0])
                    wanted.extend(wanting(self.subject, self.images, batch) if silent[0] else ())
                for walk, found, count in zip(walks, seen, silent, strict=True):
                    quiet[walk] += count
                    states[walk] = self._updated(states[walk], found, intact[number])
                advance(cost * (len(batch.indices) + len(batch.broken)))
        flat = tuple(state for walk in states for pair in walk for state in pair)
        broken = tuple(one for batch in batches for one in batch.broken)
        return ShardResult(sum(map(len, batches)), broken, flat, None, counted(wanted), tuple(quiet))

    def _together(self, settings: Sequence[Setting]) -> Iterator[tuple[tuple[int, ...], tuple[Subject, ...]]]:
        """The block's subjects by number, 0 the intact one: those that share its module, then each of the others."""
        numbered = list(enumerate(settings, start=1))
        light = [(number, setting) for number, setting in numbered if not changes_weights(setting)]
        subjects = (self.subject, *(touched(self.subject, setting) for _, setting in light))
        yield (0, *(number for number, _ in light)), subjects  # the intact one first: the others are compared with it
        for number, setting in numbered:
            if changes_weights(setting):
                yield (number,), (touched(self.subject, setting),)

    def _observed(self, subjects: Sequence[Subject], batch: Batch) -> tuple[list[list[Observations]], list[int]]:
        """For each subject, what every diagnostic sees on the batch, and of how many images the logits say nothing."""
        if not len(batch.indices):
            return [[{} for _ in self.diagnostics] for _ in subjects], [0] * len(subjects)
        device = input_like(self.subject.module).device
        present = present_classes(self.images, self.subject.class_count, device)
        pixels = batch.pixels.to(device)
        with torch.no_grad():
            walked = _walked(subjects, pixels, lambda: self._reading(pixels))
            for logits, reading in walked:
                if batch.labels is not None and self.subject.class_count:
                    reading.predictions(predictions(batch, logits, present))
        silent = [int(unpredicting(logits, self.subject.class_count).sum()) for logits, _ in walked]
        return [list(reading.results()) for _, reading in walked], silent

    def _reading(self, pixels: torch.Tensor) -> Reading:
        image = (pixels.shape[2], pixels.shape[3])
        return Reading(self.diagnostics, self.subject.places, image, Workspace())

    def _updated(
        self, states: Sequence[tuple[Means, Means]], found: Sequence[Observations], intact: Sequence[Observations]
    ) -> list[tuple[Means, Means]]:
        return [
            (one.update(values, seen), changes.update(differences(one, seen, before)))
            for one, (values, changes), seen, before in zip(self.diagnostics, states, found, intact, strict=True)
        ]


def silent_settings(blocks: Sequence[ShardResult]) -> tuple[str, ...]:
    """A sentence on the settings of which more images' logits say nothing than of the intact subject's, if any."""
    counts = [count for block in blocks for count in block.silent[1:]]
    more = [count for count in counts if count > blocks[0].silent[0]]
    if not more:
        return ()
    of = f"{len(more)} of {len(counts)} settings"
    many = f"up to {max(more):,} of {blocks[0].images:,} images"
    return (f"In {of} the logits of {many} are not finite: they count as wrong, and losses leave them out.",)


def touched(subject: Subject, setting: Setting) -> Subject:
    """The subject after all interventions of a setting."""
    return reduce(lambda current, intervention: intervention(current), setting, subject)


def changes_weights(setting: Setting) -> bool:
    """Whether the setting needs a module of its own."""
    return any(intervention.changes_weights for intervention in setting)


def _walked(
    subjects: Sequence[Subject], pixels: torch.Tensor, reading: Callable[[], Reading]
) -> Sequence[tuple[torch.Tensor, Reading]]:
    anatomies = [subject.anatomy for subject in subjects]
    compositions = [anatomy for anatomy in anatomies if isinstance(anatomy, Composition)]
    if len(compositions) == len(anatomies):
        return walk_together(compositions, pixels, reading)
    walked: list[tuple[torch.Tensor, Reading]] = []
    for anatomy in anatomies:
        own = reading()
        walked.append((anatomy.walk(pixels, own), own))
    return walked


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
        values = _placed(study.grid, [diagnostic.finish(state, scene) for state, _ in pairs])
        found = [without(diagnostic.finish(change, scene), diagnostic.nonlinear) for _, change in pairs]
        changes = _placed(study.grid, found)
        said = {
            "title": f"{words.title}: {diagnostic.title}",
            "question": words.question,
            "definition": "\n\n".join(filter(None, (words.definition, intact.attrs["definition"]))),
            "references": [*words.references, *diagnostic.references],
            **({"headline": words.headline} if words.headline in intact else {}),
        }
        groups[name] = gridded(study.grid, intact, values, changes, said)
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


def _placed(grid: Grid, results: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """The settings' results at the grid's points, an empty one where there is nothing to do."""
    found = iter(results)
    return [xr.Dataset() if setting is None else next(found) for setting in grid.settings] if results else []
