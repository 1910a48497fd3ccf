"""``contrast``: diagnostics of two or more subjects on the same images, and their changes with paired errors."""

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce

import xarray as xr
from typing_extensions import override

from vitscope.data import Images
from vitscope.engine.contrasted import contrast_group, scores_of_all
from vitscope.engine.contrasting import ContrastResult, ContrastWork
from vitscope.engine.measure import check_subject, describe_units, fit_images, settings_of, subject_spec, why_empty
from vitscope.engine.plan import Plan, check_plan, count_kept, fold_work
from vitscope.engine.question import AbstractQuestion, Answer, carry_out
from vitscope.engine.reading.activation import ActivationKind
from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AnyDiagnostic
from vitscope.engine.reading.scores import SCORES
from vitscope.engine.study import AsDiagnostic
from vitscope.engine.work.work import Amount
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import tell_apart
from vitscope.models.state import buffers_kept
from vitscope.models.subject import Subject
from vitscope.runs.provenance import provenance
from vitscope.runs.registry import resolve_names
from vitscope.runs.run import Run, make_run
from vitscope.runs.spec import Spec


def contrast(
    before: Subject,
    after: Subject | Sequence[Subject],
    images: Images,
    diagnostics: AsDiagnostic | Iterable[AsDiagnostic],
    plan: Plan | None = None,
    labels: Sequence[str] | None = None,
) -> Run:
    """Measure diagnostics of several subjects on the same images, and their changes from the first, image by image.

    ``after`` is one subject or several; each is compared with ``before``. Subjects may differ in architecture, input
    size and preprocessing: each sees the same pictures through its own transform. Diagnostics of predictions are always
    compared; diagnostics measured after units are compared only for subjects with the same units as ``before``, and
    ``run.skipped`` and ``run.notes`` name the others. ``labels`` name the subjects, ``before`` first; the default is
    their own names. ``diagnostics`` are given as to :func:`vitscope.measure`, without curvature.

    Returns a run with one group for each diagnostic. Along ``subject`` it holds each quantity and ``<quantity>_change``
    with its standard error ``_error``, ``_count``, and the ends ``_low`` and ``_high`` of its 95 % interval. Difficulty
    that both subjects share cancels in these errors:

    * a share of images (accuracy): the exact interval of :class:`vitscope.measurement.exact.PairedShare`, from the
      numbers of images ``_gained`` and ``_lost``; ``_p`` is McNemar's exact p;
    * a mean over images: Student's t of the differences image by image, over images that have both numbers;
    * anything else (the expected calibration error): the jackknife over groups of images, the same for both subjects.

    Intervals are not corrected for their number: if nothing changed, 5 of 100 exclude 0. Group ``predictions`` holds
    the scores of each image. Cost: a forward pass of each image through every subject. With ``plan.folder`` finished
    shards are saved at once. Raises ``UserError`` if a subject is random, or the images do not fit one.
    """
    plan = check_plan(plan)
    return carry_out(resolve_contrast(before, after, images, diagnostics, labels), plan)


@dataclass(frozen=True)
class ContrastQuestion(AbstractQuestion):
    """A resolved contrast: the subjects, and for each its label and the images fitted to its classes."""

    subjects: tuple[Subject, ...]
    labels: tuple[str, ...]
    images: tuple[Images, ...]
    diagnostics: tuple[AnyDiagnostic, ...]

    @property
    @override
    def title(self) -> str:
        return "Contrast"

    def make_spec(self) -> Spec:
        """All subjects, the images as fitted to the first, and the settings of each diagnostic."""
        specs = [
            subject_spec("contrast", subject, images, {})
            for subject, images in zip(self.subjects, self.images, strict=True)
        ]
        apart = {
            label: {name: value for name, value in spec.model.items() if name != "weights"}
            for label, spec in zip(self.labels, specs, strict=True)
        }
        model = {
            "name": " against ".join(self.labels),
            "weights": ", ".join(str(spec.model["weights"]) for spec in specs),
            "subjects": apart,
        }
        settings = {one.name: settings_of(one) for one in self.diagnostics}
        return Spec("contrast", model, specs[0].images, settings)

    def work(self, batch_size: int) -> ContrastWork:
        """The work for executors."""
        return ContrastWork(
            self.subjects[0], self.images[0], self.subjects[1:], self.images[1:], self.diagnostics, batch_size
        )

    @property
    def total(self) -> Amount:
        """A forward pass of each image through every subject."""
        return len(self.images[0]) * len(self.subjects)

    def kept_amount(self, plan: Plan) -> Amount:
        """How many passes an interrupted attempt left in the plan's folder."""
        return count_kept(self.work(plan.batch_size), self.spec, plan)

    def answer(self, plan: Plan) -> Answer:
        """The run; what forward passes write into the modules' buffers is undone."""
        with ExitStack() as stack:
            for module in {id(subject.module): subject.module for subject in self.subjects}.values():
                stack.enter_context(buffers_kept(module))
            return Answer(self._contrast(plan))

    def _contrast(self, plan: Plan) -> Run:
        started = time.perf_counter()
        notes = [
            f"{label}: {note}"
            for label, subject, images in zip(self.labels, self.subjects, self.images, strict=True)
            for note in (*subject.notes, *check_subject(subject, images))
        ]
        work = self.work(plan.batch_size)
        result = reduce(ContrastResult.merge, fold_work(work, self.spec, plan, self.total).values())
        self.images[0].check_broken(result.broken)
        for label, subject, values in zip(self.labels, self.subjects, result.values, strict=True):
            notes += [f"{label}: {one.describe(subject)}" for one in values.wanting]
        notes += [f"{broken.name} was left out: {broken.reason}" for broken in result.broken]
        origin = provenance(time.perf_counter() - started, plan.command)
        return self._run(work, result, origin, [*dict.fromkeys(n for i in self.images for n in i.notes), *notes])

    def _run(self, work: ContrastWork, result: ContrastResult, origin: str, notes: list[str]) -> Run:
        groups: dict[str, xr.Dataset] = {}
        skipped: dict[str, str] = {}
        for index, diagnostic in enumerate(self.diagnostics):
            found = contrast_group(work, result, index, self.labels)
            if found is not None:
                groups[diagnostic.name] = found
            else:
                skipped[diagnostic.name] = self._why_empty(work, diagnostic, result.images)
        apart = [label for label, alike in zip(self.labels, work.alike, strict=True) if not alike]
        layered = [
            one.title for one in self.diagnostics if one.reads is not ActivationKind.PREDICTIONS and one.name in groups
        ]
        if apart and layered:
            notes = [*notes, f"{', '.join(layered)}: without {', '.join(apart)}, whose units differ."]
        if any(one.reads is ActivationKind.PREDICTIONS for one in self.diagnostics):
            scores = scores_of_all(result, self.labels, self.images)
            groups |= {} if scores is None else {SCORES: scores}
        units = describe_units(work.subject.places) if all(work.alike) else ()
        return make_run(
            self.spec, groups, result.images, provenance=origin, anatomy=units, skipped=skipped, notes=notes
        )

    def _why_empty(self, work: ContrastWork, diagnostic: AnyDiagnostic, read: int) -> str:
        if diagnostic.reads is not ActivationKind.PREDICTIONS and not any(work.alike[1:]):
            others = ", ".join(self.labels[1:])
            return f"it is measured after each unit, and the units of {self.labels[0]} and {others} differ"
        return next(
            why
            for subject in self.subjects
            if (why := why_empty(diagnostic.reads, subject, read)) or subject is self.subjects[-1]
        )


def resolve_contrast(
    before: Subject,
    after: Subject | Sequence[Subject],
    images: Images,
    diagnostics: AsDiagnostic | Iterable[AsDiagnostic],
    labels: Sequence[str] | None = None,
) -> ContrastQuestion:
    """The contrast, with the images' labels fitted to each subject's classes; reads no image."""
    subjects = (before, *((after,) if isinstance(after, Subject | str | os.PathLike) else after))
    if len(subjects) < 2:
        raise UserError("A contrast needs at least two models; only one was given.")
    measured = resolve_names(diagnostics, DIAGNOSTICS)
    if not measured:
        raise UserError("No diagnostic was given; give one or more of the names that vitscope list shows.")
    known: dict[object, Images] = {}
    shown = tuple(
        known.setdefault((subject.class_count, subject.classes), fit_images(subject, images)) for subject in subjects
    )
    return ContrastQuestion(subjects, _names(subjects, labels), shown, measured)


def _names(subjects: Sequence[Subject], labels: Sequence[str] | None) -> tuple[str, ...]:
    """The given labels, or the subjects' names, made unique by their edits or their position."""
    if isinstance(labels, str) or (labels is not None and len(set(labels)) != len(subjects)):
        raise UserError(f"{len(subjects)} models were given the labels {labels!r}; give each model its own label.")
    if labels is not None:
        return tuple(labels)
    edited = [", ".join((subject.name, *map(repr, subject.edits))) for subject in subjects]
    return tell_apart([subject.name for subject in subjects], edited)
