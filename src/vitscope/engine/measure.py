"""``measure``: one pass over images, any number of diagnostics, a run."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from typing import Any

import xarray as xr
from typing_extensions import override

from vitscope.data import Images
from vitscope.data.batch import Batch
from vitscope.engine.curvature.curvature import CURVATURES, AbstractCurvature, CurvatureWork
from vitscope.engine.curvature.hessian import refuse_without_loss, why_no_loss
from vitscope.engine.plan import Plan, check_plan, count_kept, fold_work
from vitscope.engine.question import AbstractQuestion, Answer, carry_out
from vitscope.engine.reading.activation import ActivationKind
from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AnyDiagnostic, Scene
from vitscope.engine.reading.failure import report_failures
from vitscope.engine.reading.finite import refuse_if_silent, wanting_weights
from vitscope.engine.reading.mistakes import MISTAKES, mistakes
from vitscope.engine.reading.scores import SCORES
from vitscope.engine.reading.shard import Pass, ShardResult
from vitscope.engine.work.work import Amount
from vitscope.measurement.errors import UserError
from vitscope.models.alone import notes_on_batches
from vitscope.models.anatomy import as_user_errors, refuse_if_changed
from vitscope.models.feed import input_like
from vitscope.models.state import buffers_kept
from vitscope.models.subject import Subject, refuse_if_random
from vitscope.models.unit import Place
from vitscope.runs.code import code_version
from vitscope.runs.provenance import provenance
from vitscope.runs.registry import resolve_names
from vitscope.runs.run import Run, make_run
from vitscope.runs.spec import Spec

Measurable = AnyDiagnostic | AbstractCurvature
"""What ``measure`` measures."""
AsMeasurable = str | type[Any] | Measurable
"""A diagnostic, or its name or class for the default settings."""


def measure(
    subject: Subject, images: Images, diagnostics: AsMeasurable | Iterable[AsMeasurable], plan: Plan | None = None
) -> Run:
    """Measure diagnostics of the subject on the images in one pass, then the curvature of its loss if requested.

    ``diagnostics`` are values (``HessianSpectrum(top=3)``), or the names that ``vitscope list`` shows, at their default
    settings: ``["accuracy", "fourier-spectrum"]``; a single one needs no list.
    Returns a run with one group for each diagnostic. A diagnostic that finds nothing to read is named in
    ``run.skipped`` with the reason. With ``plan.folder`` every finished shard is saved at once, so that an interrupt
    loses at most the shards under way, and the run is in the folder when this returns; a run that is already there is
    returned from it. Cost: the model's own forward passes plus, for attention diagnostics, one product of queries and
    keys, and for curvature its Hessian products; see ``benchmarks/``.

    Raises ``UserError`` if the subject is random, the labels do not fit it, too many images are broken, or only
    curvature is requested and there is no loss.
    """
    plan, question = check_plan(plan), Measurement.of(subject, images, diagnostics)
    if not question.diagnostics:
        raise UserError("No diagnostic was given; give one or more of the names that vitscope list shows.")
    return carry_out(question, plan)


@dataclass(frozen=True)
class Measurement(AbstractQuestion):
    """A resolved measurement of a subject on images: one pass, and the mini-batches of the curvature diagnostics."""

    subject: Subject
    images: Images
    diagnostics: tuple[Measurable, ...]

    @classmethod
    def of(cls, subject: Subject, images: Images, diagnostics: AsMeasurable | Iterable[AsMeasurable]) -> "Measurement":
        """The measurement, with the images' labels fitted to the model's classes."""
        asked_for = resolve_names(diagnostics, DIAGNOSTICS, CURVATURES)
        return cls(subject, fit_images(subject, images), asked_for)

    def make_spec(self) -> Spec:
        """The subject, the images, and the settings of each diagnostic."""
        settings = {one.name: settings_of(one) for one in self.diagnostics}
        return subject_spec("measure", self.subject, self.images, settings)

    @property
    @override
    def title(self) -> str:
        return "Curvature of the loss" if len(self.curvatures) == len(self.diagnostics) else "Diagnostics in one pass"

    @property
    def curvatures(self) -> tuple[AbstractCurvature, ...]:
        """The diagnostics of the loss as a function of the weights."""
        return tuple(one for one in self.diagnostics if isinstance(one, AbstractCurvature))

    @property
    def no_loss(self) -> str:
        """Why there is no loss to differentiate; empty if there is one."""
        return why_no_loss(self.subject, self.images.labels is not None)

    def reading(self, batch_size: int) -> Pass:
        """The pass of the diagnostics other than curvature."""
        plain = tuple(one for one in self.diagnostics if not isinstance(one, AbstractCurvature))
        return Pass(self.subject, self.images, plain, batch_size)

    @property
    def curving(self) -> CurvatureWork:
        """The mini-batches of the curvature diagnostics; none without a loss."""
        return CurvatureWork(self.subject, self.images, () if self.no_loss else self.curvatures)

    @property
    def read(self) -> int:
        """How many images the pass reads."""
        return len(self.images) if self.reading(1).diagnostics else 0

    @property
    def total(self) -> Amount:
        """The total work, in forward passes of one image."""
        return self.read + self.curving.cost

    def kept_amount(self, plan: Plan) -> Amount:
        """How many passes an interrupted attempt left in the plan's folder."""
        read = count_kept(self.reading(plan.batch_size), self.spec, plan)
        return read + count_kept(self.curving, self.spec, plan)

    def answer(self, plan: Plan) -> Answer:
        """The run; what forward passes write into the module's buffers is undone."""
        with buffers_kept(self.subject.module):
            return Answer(self._measure(plan))

    def _measure(self, plan: Plan) -> Run:
        started = time.perf_counter()
        notes = check_subject(self.subject, self.images)
        reading, curving = self.reading(plan.batch_size), self.curving
        if not reading.diagnostics and self.curvatures:
            refuse_without_loss(self.subject, self.images.labels is not None)
        results = fold_work(reading, self.spec, plan, self.total).values() if reading.diagnostics else ()
        nothing = ShardResult(0, (), tuple(one.init() for one in reading.diagnostics))
        result = reduce(ShardResult.merge, results, nothing)
        curved = curving.together(fold_work(curving, self.spec, plan.after(self.read), self.total).values())
        broken = tuple(dict.fromkeys((*result.broken, *curved.broken)))
        self.images.check_broken(broken)
        count = result.images if reading.diagnostics else min(curved.images, len(self.images))
        seen = replace(result, images=count, broken=broken)
        skipped = {one.name: self.no_loss for one in self.curvatures if self.no_loss} | curving.unseen(curved)
        notes = (*notes, *curving.notes(curved))
        groups = {**_prediction_groups(reading, seen), **curving.finish(curved)}
        origin = provenance(time.perf_counter() - started, plan.command)
        return _run(self.spec, reading, seen, origin, groups, skipped, notes)


def refuse_others(subject: object, images: object) -> None:
    """Raise ``UserError`` unless these are a loaded model and opened images; a name or path is neither."""
    if isinstance(subject, Images) and isinstance(images, Subject):
        raise UserError("The images were given before the model; give the model first, then the images.")
    if not isinstance(subject, Subject):
        shown = type(subject).__name__ if not isinstance(subject, str | os.PathLike) else repr(subject)
        raise UserError(f"The model is {shown}, which is not loaded yet; load it with vitscope.load(...).")
    if not isinstance(images, Images):
        shown = type(images).__name__ if not isinstance(images, str | os.PathLike) else repr(images)
        raise UserError(f"The images are {shown}, which is not opened yet; open it with vitscope.images(...).")


def fit_images(subject: Subject, images: Images) -> Images:
    """The images with their labels as numbers of the model's classes, if both have them.

    Raises ``UserError`` if the classes cannot be matched with certainty, or a single output meets labels.
    """
    refuse_others(subject, images)
    if subject.class_count == 1 and images.labels is not None:
        raise UserError(
            f"{subject.name} has one output, a score rather than a choice among classes, so it cannot be compared "
            "with the images' labels: return torch.stack([0 * z, z], 1) for its score z, or leave out the labels "
            "(--label none)."
        )
    return images.for_classes(subject.class_count, subject.classes) if subject.class_count else images


def settings_of(diagnostic: Measurable) -> dict[str, object]:
    """A diagnostic's fields for a run's spec, with the code's version if it is not the project's own."""
    return {**asdict(diagnostic), **code_version(diagnostic)}  # pyright: ignore[reportArgumentType]


def subject_spec(verb: str, subject: Subject, images: Images, settings: Mapping[str, object]) -> Spec:
    """The spec of a question about a subject and images."""
    model: dict[str, object] = {
        "name": subject.name,
        "family": subject.family,
        "weights": subject.weights,
        "input": subject.preprocessing.text,
        "parameters": subject.parameter_count,
        "fingerprint": subject.fingerprint,
        "units": [place.name for place in subject.places],
    }
    if subject.edits:
        model["edits"] = [repr(edit) for edit in subject.edits]
    pictures: dict[str, object] = {"name": images.name, "count": len(images), "labels": images.label_source}
    if images.augmentation is not None:
        pictures["augmentation"] = asdict(images.augmentation)
    return Spec(verb, model, {**pictures, "fingerprint": images.fingerprint}, settings)


def check_subject(subject: Subject, images: Images) -> tuple[str, ...]:
    """Check the subject's weights and logits, the latter on the first two readable images; returns notes.

    Raises ``UserError`` if no result could be trusted: the subject is random, its logits depend on the batch, it was
    changed since it was loaded, or weights that are not finite spoil the logits of every image tried.
    """
    weights = wanting_weights(subject.module)
    notes = tuple(f"Weights that are not finite: {text}." for text in weights)
    device = input_like(subject.module).device
    refuse_if_changed(subject)
    if weights:
        refuse_if_silent(subject, images, weights)
    batch = _first_pair(images, subject)
    if batch is not None:
        pixels = batch.pixels.to(device)
        with report_failures(subject, images, batch):
            refuse_if_random(subject, pixels)
        with as_user_errors(subject.module, subject.preprocessing.shape):
            notes += notes_on_batches(subject, pixels)
    return notes


def _first_pair(images: Images, subject: Subject) -> Batch | None:
    """The first batch of two readable images; else one of a single image; None if none can be read."""
    found = None
    for batch in images.batches(subject.preprocessing.transform, 2):
        if len(batch) > (0 if found is None else len(found)):
            found = batch
        if found is not None and len(found) == 2:
            break
    return found


def _prediction_groups(work: Pass, result: ShardResult) -> dict[str, xr.Dataset]:
    """The model's scores for each image and its mistakes, if any diagnostic reads predictions."""
    if result.scores is None or not any(one.reads is ActivationKind.PREDICTIONS for one in work.diagnostics):
        return {}
    names = work.subject.classes or work.images.classes
    return {
        SCORES: result.scores.dataset(work.images),
        MISTAKES: mistakes(result.scores, work.images, names),
    }


def _run(
    spec: Spec,
    work: Pass,
    result: ShardResult,
    origin: str,
    further: Mapping[str, xr.Dataset],
    uncurved: Mapping[str, str],
    notes: Sequence[str],
) -> Run:
    places = work.subject.places
    scene = Scene(places)
    finished = {d.name: d.finish(s, scene) for d, s in zip(work.diagnostics, result.states, strict=True)}
    said = [*work.subject.notes, *work.images.notes, *notes, *(one.describe(work.subject) for one in result.wanting)]
    said += [f"{broken.name} was left out: {broken.reason}" for broken in result.broken]
    said += [note for dataset in further.values() for note in dataset.attrs.pop("notes", ())]
    skipped = {
        d.name: why_empty(d.reads, work.subject, result.images) for d in work.diagnostics if not finished[d.name]
    }
    groups = {**{name: found for name, found in finished.items() if found}, **further}
    return make_run(
        spec,
        groups,
        result.images,
        provenance=origin,
        anatomy=describe_units(places),
        skipped={**skipped, **uncurved},
        notes=said,
    )


def describe_units(places: Sequence[Place]) -> list[dict[str, str | int]]:
    """The units for a run: name, kind, stage and block of each, in order."""
    return [{"unit": p.name, "kind": p.kind.value, "stage": p.stage, "block": p.block} for p in places]


def why_empty(kind: ActivationKind, subject: Subject, read: int) -> str:
    """Why a diagnostic that reads ``kind`` found nothing, when ``read`` images could be read."""
    if not read:
        return "none of the images could be read"
    kinds = ", ".join(sorted({place.kind.value for place in subject.places})) or "none"
    some = ", ".join([name for name, _ in subject.module.named_modules()][1:4])
    units = "" if subject.places else f"; load it with units=[...], submodules that return one (it has {some}, ...)"
    reasons = {
        ActivationKind.ATTENTION: f"{subject.name} has no attention that this reads (its units: {kinds})",
        ActivationKind.FEATURES: f"{subject.name} has no feature map that could be read (its units: {kinds}){units}",
        ActivationKind.PREDICTIONS: "the images have no labels"
        if subject.class_count
        else f"{subject.name} has no classifier",
    }
    return reasons[kind]
