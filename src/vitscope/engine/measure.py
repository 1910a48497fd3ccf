"""``measure``: one pass over images, any number of diagnostics, a run."""

import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, reduce
from typing import Any

import xarray as xr

from vitscope.data import Images
from vitscope.data.batch import Batch
from vitscope.engine.curvature.curvature import CURVATURES, AbstractCurvature, CurvatureWork
from vitscope.engine.curvature.hessian import refuse_without_loss, why_no_loss
from vitscope.engine.reading.activation import Kind
from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AnyDiagnostic, Scene
from vitscope.engine.reading.failure import failures_told
from vitscope.engine.reading.finite import refuse_if_silent, wanting_weights
from vitscope.engine.reading.mistakes import MISTAKES, mistakes
from vitscope.engine.reading.scores import SCORES
from vitscope.engine.reading.shard import Pass, ShardResult
from vitscope.engine.work.executor import AbstractExecutor, InProcess
from vitscope.engine.work.work import AbstractWork, Amount, Result, Shard
from vitscope.measurement.bounds import COUNT, check_number
from vitscope.measurement.errors import UserError
from vitscope.models.alone import notes_on_batches
from vitscope.models.anatomy import as_user_errors, refuse_if_changed
from vitscope.models.feed import input_like
from vitscope.models.state import buffers_kept
from vitscope.models.subject import Subject, refuse_if_random
from vitscope.runs.code import versioned
from vitscope.runs.provenance import provenance
from vitscope.runs.registry import chosen
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec
from vitscope.runs.store import RunFolder

Progress = Callable[[Amount, Amount], None]
"""Told how much is done and how much there is."""


Measurable = AnyDiagnostic | AbstractCurvature
"""What ``measure`` measures."""
AsMeasurable = str | type[Any] | Measurable
"""A diagnostic, or the name or class of one, which stand for its default settings."""


def silent(done: Amount, total: Amount) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Plan:
    """How a pass is carried out; no setting here changes what is measured."""

    batch_size: int = 32
    executor: AbstractExecutor = field(default_factory=InProcess)
    folder: RunFolder | str | os.PathLike[str] | None = None
    """Where finished shards and the run are kept, by path or URL; None keeps nothing."""
    resume: bool = False
    """Go on with the finished shards that an interrupted pass left in ``folder``."""
    progress: Progress = silent
    say: Callable[[str], None] = lambda _: None
    """Told what begins, and how long it will take."""
    command: str = ""
    """The command line or call that asks for this run, for its provenance."""

    def __post_init__(self) -> None:
        check_number("The batch size", self.batch_size, COUNT)

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep others out of the folder meanwhile, if there is one: whoever comes second is told."""
        with self.store.held() if self.store else nullcontext():
            yield

    @property
    def store(self) -> RunFolder | None:
        """The folder, as what reads and writes there."""
        return RunFolder(os.fspath(self.folder)) if isinstance(self.folder, str | os.PathLike) else self.folder


def measure(
    subject: Subject, images: Images, diagnostics: AsMeasurable | Iterable[AsMeasurable], plan: Plan | None = None
) -> Run:
    """What the subject does on the images: one pass, every diagnostic; then the curvature of its loss, if asked for.

    ``diagnostics`` are values (``HessianSpectrum(top=3)``), or the names that ``vitscope list`` shows, at their default
    settings: ``["accuracy", "fourier-spectrum"]``; one of them need not be in a list.
    Returns a run with one group a diagnostic, which :func:`keep` puts into ``plan.folder``. A diagnostic that finds
    nothing to read is named in ``run.skipped`` with the reason. With ``plan.folder`` every finished shard is kept at
    once, so that an interrupt loses at most the shards under way. Cost: the model's own forward passes plus, for
    attention diagnostics, one product of queries and keys, and for curvature its Hessian products; see
    ``benchmarks/``.

    Raises ``UserError`` where the subject is random, the labels do not fit it, too many images are broken, or nothing
    but curvature is asked for and there is no loss.
    """
    plan, asked_for = planned(plan), Measurement.of(subject, images, diagnostics)
    if not asked_for.diagnostics:
        raise UserError("No diagnostic was given; give the name of one or several, as vitscope list shows them.")
    return asked_for.answer(plan)


@dataclass(frozen=True)
class Measurement:
    """A measurement settled for a subject and images: one pass, and the mini-batches of the curvature diagnostics."""

    subject: Subject
    images: Images
    diagnostics: tuple[Measurable, ...]

    @classmethod
    def of(cls, subject: Subject, images: Images, diagnostics: AsMeasurable | Iterable[AsMeasurable]) -> "Measurement":
        """The measurement, its images' labels fitted to the model's classes."""
        asked_for = chosen(diagnostics, DIAGNOSTICS, CURVATURES)
        return cls(subject, fitted(subject, images), asked_for)

    @cached_property
    def spec(self) -> Spec:
        """The question that is asked."""
        settings = {one.name: settings_of(one) for one in self.diagnostics}
        return asked("measure", self.subject, self.images, settings)

    @property
    def title(self) -> str:
        """What it is called while it is done."""
        return "Curvature of the loss" if len(self.curvatures) == len(self.diagnostics) else "Diagnostics in one pass"

    @property
    def curvatures(self) -> tuple[AbstractCurvature, ...]:
        """The diagnostics of the loss as a function of the weights."""
        return tuple(one for one in self.diagnostics if isinstance(one, AbstractCurvature))

    @property
    def no_loss(self) -> str:
        """Why there is no loss to differentiate, or nothing."""
        return why_no_loss(self.subject, self.images.labels is not None)

    def reading(self, batch_size: int) -> Pass:
        """The pass of the other diagnostics."""
        plain = tuple(one for one in self.diagnostics if not isinstance(one, AbstractCurvature))
        return Pass(self.subject, self.images, plain, batch_size)

    @property
    def curving(self) -> CurvatureWork:
        """The mini-batches, if there is a loss."""
        return CurvatureWork(self.subject, self.images, () if self.no_loss else self.curvatures)

    @property
    def read(self) -> int:
        """How many images the pass has."""
        return len(self.images) if self.reading(1).diagnostics else 0

    @property
    def passes(self) -> Amount:
        """What there is to do in all, in forward passes of one image, which progress counts."""
        return self.read + self.curving.cost

    def kept(self, plan: Plan) -> Amount:
        """How many of the passes an interrupted attempt left in the plan's folder."""
        return kept(self.reading(plan.batch_size), self.spec, plan) + kept(self.curving, self.spec, plan)

    def answer(self, plan: Plan) -> Run:
        """The run; what forward passes write into the module's buffers is undone."""
        with buffers_kept(self.subject.module):
            return self._answered(plan)

    def _answered(self, plan: Plan) -> Run:
        started = time.perf_counter()
        notes = checked(self.subject, self.images)
        reading, curving = self.reading(plan.batch_size), self.curving
        if not reading.diagnostics and self.curvatures:
            refuse_without_loss(self.subject, self.images.labels is not None)
        results = folded(reading, self.spec, plan, self.passes).values() if reading.diagnostics else ()
        nothing = ShardResult(0, (), tuple(one.init() for one in reading.diagnostics))
        result = reduce(ShardResult.merge, results, nothing)
        curved = curving.together(folded(curving, self.spec, behind(plan, self.read), self.passes).values())
        broken = tuple(dict.fromkeys((*result.broken, *curved.broken)))
        self.images.check_broken(broken)
        count = result.images if reading.diagnostics else min(curved.images, len(self.images))
        seen = replace(result, images=count, broken=broken)
        skipped = {one.name: self.no_loss for one in self.curvatures if self.no_loss} | curving.unseen(curved)
        notes = (*notes, *curving.notes(curved))
        groups = {**_judged(reading, seen), **curving.finished(curved)}
        origin = provenance(time.perf_counter() - started, plan.command)
        return _run(self.spec, reading, seen, origin, groups, skipped, notes)


def behind(plan: Plan, done: Amount) -> Plan:
    """The plan of what comes after ``done`` passes of the same progress."""

    def progress(more: Amount, total: Amount) -> None:
        plan.progress(done + more, total)

    return replace(plan, progress=progress)


def keep(run: Run, plan: Plan, steps: Iterable[Spec] = ()) -> Run:
    """The run, put into the plan's folder if it has one; what was kept of it and of its ``steps`` is dropped there."""
    if plan.store is not None:
        plan.store.write(run, steps)
    return run


def planned(plan: Plan | None) -> Plan:
    """The plan, or the usual one. ``UserError`` for what is none, such as the folder by itself."""
    if plan is None or isinstance(plan, Plan):  # pyright: ignore[reportUnnecessaryIsInstance] - people hand in anything
        return plan or Plan()
    raise UserError(f"{plan!r:.60} is no plan; give vitscope.Plan(folder=..., batch_size=...).")


def refuse_others(subject: object, images: object) -> None:
    """Raise ``UserError`` for what is no model under study, or no images, such as the name or the path of one."""
    if isinstance(subject, Images) and isinstance(images, Subject):
        raise UserError("The images were given before the model; give the model first, then the images.")
    if not isinstance(subject, Subject):
        shown = type(subject).__name__ if not isinstance(subject, str | os.PathLike) else repr(subject)
        raise UserError(f"The model is {shown}, which is not loaded yet; give vitscope.load(...) of it.")
    if not isinstance(images, Images):
        shown = type(images).__name__ if not isinstance(images, str | os.PathLike) else repr(images)
        raise UserError(f"The images are {shown}, which is not opened yet; give vitscope.images(...) of it.")


def fitted(subject: Subject, images: Images) -> Images:
    """The images with their labels as numbers of the model's classes, if both have them.

    Raises ``UserError`` if that cannot be done with certainty, or a single output is to be compared with labels.
    """
    refuse_others(subject, images)
    if subject.class_count == 1 and images.labels is not None:
        raise UserError(
            f"{subject.name} has one output, which is a score and no choice among classes, so it cannot be compared "
            "with the images' labels: let it return torch.stack([0 * z, z], 1) of its score z, or leave the labels out "
            "(--label none)."
        )
    return images.for_classes(subject.class_count, subject.classes) if subject.class_count else images


def settings_of(diagnostic: Measurable) -> dict[str, object]:
    """Its fields for a run's spec, and the version of the code of one that is not the project's."""
    return {**asdict(diagnostic), **versioned(diagnostic)}  # pyright: ignore[reportArgumentType]


def asked(verb: str, subject: Subject, images: Images, settings: Mapping[str, object]) -> Spec:
    """A question about a subject and images."""
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


def folded(work: AbstractWork[Result], spec: Spec, plan: Plan, total: Amount) -> dict[Shard, Result]:
    """All shards' results in order, those of an interrupted attempt included; each is kept as soon as it is there.

    ``total`` is how much there is to do in all, for the progress.
    """
    shards = work.shards()
    results = _resumed(work, spec, shards, plan)
    done = sum(work.passes(shard) * result.done for shard, result in results.items())
    plan.progress(done, total)

    def advance(more: Amount) -> None:
        nonlocal done
        done += more
        plan.progress(done, total)

    missing = [shard for shard in shards if shard not in results]
    with plan.held(), closing(plan.executor.fold(work, missing, advance)) as finished:
        for shard, result in finished:
            results[shard] = result
            if plan.store is not None:
                plan.store.write_part(spec, _part(shard, plan), result.to_bytes())
    return {shard: results[shard] for shard in shards}


def kept(work: AbstractWork[Result], spec: Spec, plan: Plan) -> Amount:
    """How many of the work's passes an interrupted attempt left in the plan's folder."""
    results = _resumed(work, spec, work.shards(), replace(plan, resume=True))
    return sum(work.passes(shard) * result.done for shard, result in results.items())


def _part(shard: Shard, plan: Plan) -> str:
    return f"batch-{plan.batch_size}-{shard.name}"


def _resumed(work: AbstractWork[Result], spec: Spec, shards: Sequence[Shard], plan: Plan) -> dict[Shard, Result]:
    if plan.store is None or not plan.resume:
        return {}
    names = {_part(shard, plan): shard for shard in shards}
    return {names[name]: result for name, result in plan.store.parts(spec, work.read, names).items()}


def checked(subject: Subject, images: Images) -> tuple[str, ...]:
    """What must be said of the subject's weights and logits, judged by the first two images that can be read.

    Raises ``UserError`` if nothing could be believed: it is random, its logits depend on the batch, it was changed
    since it was loaded, or weights that are not finite spoil the logits of images here and there.
    """
    weights = wanting_weights(subject.module)
    notes = tuple(f"The weights hold {text} that are not finite." for text in weights)
    device = input_like(subject.module).device
    refuse_if_changed(subject)
    if weights:
        refuse_if_silent(subject, images, weights)
    batch = _two(images, subject)
    if batch is not None:
        pixels = batch.pixels.to(device)
        with failures_told(subject, images, batch):
            refuse_if_random(subject, pixels)
        with as_user_errors(subject.module, subject.preprocessing.shape):
            notes += notes_on_batches(subject, pixels)
    return notes


def _two(images: Images, subject: Subject) -> Batch | None:
    """The first batch of two of which both images can be read; else of one; None if there is none."""
    found = None
    for batch in images.batches(subject.preprocessing.transform, 2):
        if len(batch) > (0 if found is None else len(found)):
            found = batch
        if found is not None and len(found) == 2:
            break
    return found


def _judged(work: Pass, result: ShardResult) -> dict[str, xr.Dataset]:
    """What the model said of each image and what of it is wrong, where predictions are read at all."""
    if result.scores is None or not any(one.reads is Kind.PREDICTIONS for one in work.diagnostics):
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
    said = [*work.subject.notes, *work.images.notes, *notes, *(one.told(work.subject) for one in result.wanting)]
    said += [f"{broken.name} was left out: {broken.reason}" for broken in result.broken]
    said += [note for dataset in further.values() for note in dataset.attrs.pop("notes", ())]
    anatomy = [{"unit": p.name, "kind": p.kind.value, "stage": p.stage, "block": p.block} for p in places]
    skipped = {
        d.name: why_empty(d.reads, work.subject, result.images) for d in work.diagnostics if not finished[d.name]
    }
    root = xr.Dataset(
        attrs={
            "spec": spec.text,
            "provenance": origin,
            "anatomy": json.dumps(anatomy),
            "skipped": json.dumps({**skipped, **uncurved}),
            "notes": json.dumps(said),
            "images": result.images,
        }
    )
    groups = {**{name: found for name, found in finished.items() if found}, **further}
    return Run(xr.DataTree.from_dict({"/": root, **groups}))


def why_empty(kind: Kind, subject: Subject, read: int) -> str:
    """Why a diagnostic that reads this found nothing, in so many images as could be read."""
    if not read:
        return "none of the images could be read"
    kinds = ", ".join(sorted({place.kind.value for place in subject.places})) or "none"
    some = ", ".join([name for name, _ in subject.module.named_modules()][1:4])
    units = "" if subject.places else f"; load it with units=[...], submodules that return one (it has {some}, ...)"
    reasons = {
        Kind.ATTENTION: f"{subject.name} has no attention that this reads (its units: {kinds})",
        Kind.FEATURES: f"{subject.name} has no feature map that could be read (its units: {kinds}){units}",
        Kind.PREDICTIONS: "the images have no labels" if subject.class_count else f"{subject.name} has no classifier",
    }
    return reasons[kind]
