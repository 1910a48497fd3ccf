"""``measure``: one pass over images, any number of diagnostics, a run."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce

import torch
import xarray as xr

from vitscope.data import Images
from vitscope.engine.activation import Kind
from vitscope.engine.diagnostic import AnyDiagnostic, Scene
from vitscope.engine.executor import AbstractExecutor, InProcess
from vitscope.engine.shard import Pass, ShardResult
from vitscope.engine.work import AbstractWork, Result, Shard
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Subject, refuse_if_random
from vitscope.runs.provenance import provenance
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec
from vitscope.runs.store import RunFolder

Progress = Callable[[int, int], None]
"""Told how many images are done, and how many there are."""


def silent(done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Plan:
    """How a pass is carried out; no setting here changes what is measured."""

    batch_size: int = 32
    executor: AbstractExecutor = field(default_factory=InProcess)
    folder: RunFolder | None = None
    """Where finished shards and the run are kept; None keeps nothing."""
    resume: bool = False
    """Go on with the finished shards that an interrupted pass left in ``folder``."""
    progress: Progress = silent
    command: str = ""
    """The command line or call that asks for this run, for its provenance."""


def measure(subject: Subject, images: Images, diagnostics: Sequence[AnyDiagnostic], plan: Plan | None = None) -> Run:
    """What the subject does on the images: one pass, every diagnostic.

    Returns a run with one group a diagnostic, which :func:`keep` puts into ``plan.folder``. A diagnostic that finds
    nothing to read is named in ``run.skipped`` with the reason. With ``plan.folder`` every finished shard is kept at
    once, so that an interrupt loses at most the shards under way. Cost: the model's own forward passes plus, for
    attention diagnostics, one product of queries and keys; see ``benchmarks/``.

    Raises ``UserError`` where the subject is random, the labels do not fit it, or too many images are broken.
    """
    plan = plan or Plan()
    if plan.batch_size < 1:
        raise UserError(f"The batch size is {plan.batch_size}; it must be at least 1.")
    images = images.for_classes(subject.class_count, subject.classes) if subject.class_count else images
    spec = spec_of(subject, images, diagnostics)
    started = time.perf_counter()
    refuse_unmeasurable(subject, images)
    work = Pass(subject, images, tuple(diagnostics), plan.batch_size)
    result = reduce(ShardResult.merge, folded(work, spec, plan, len(images)).values())
    images.check_broken(result.broken)
    return _run(spec, work, result, provenance(time.perf_counter() - started, plan.command))


def keep(run: Run, plan: Plan) -> Run:
    """The run, put into the plan's folder if it has one; its partial results are dropped there."""
    if plan.folder is not None:
        plan.folder.write(run)
    return run


def spec_of(subject: Subject, images: Images, diagnostics: Sequence[AnyDiagnostic]) -> Spec:
    """The question a pass asks."""
    settings = {diagnostic.name: asdict(diagnostic) for diagnostic in diagnostics}  # pyright: ignore[reportArgumentType]
    return asked("measure", subject, images, settings)


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
    pictures = {"name": images.name, "count": len(images), "labels": images.label_source}
    return Spec(verb, model, {**pictures, "fingerprint": images.fingerprint}, settings)


def folded(work: AbstractWork[Result], spec: Spec, plan: Plan, total: int) -> dict[Shard, Result]:
    """All shards' results in order, those of an interrupted attempt included; each is kept as soon as it is there.

    ``total`` is how many images there are to do, every setting counted, for the progress.
    """
    shards = work.shards()
    results = _resumed(work, spec, shards, plan)
    done = sum(work.passes(shard) * (result.images + len(result.broken)) for shard, result in results.items())
    plan.progress(done, total)

    def advance(images: int) -> None:
        nonlocal done
        done += images
        plan.progress(done, total)

    missing = [shard for shard in shards if shard not in results]
    for shard, result in plan.executor.fold(work, missing, advance):
        results[shard] = result
        if plan.folder is not None:
            plan.folder.write_part(spec, _part(shard, plan), result.to_bytes())
    return {shard: results[shard] for shard in shards}


def kept(work: AbstractWork[Result], spec: Spec, plan: Plan) -> int:
    """How many of the work's passes an interrupted attempt left in the plan's folder."""
    results = _resumed(work, spec, work.shards(), replace(plan, resume=True))
    return sum(work.passes(shard) * (result.images + len(result.broken)) for shard, result in results.items())


def _part(shard: Shard, plan: Plan) -> str:
    return f"batch-{plan.batch_size}-{shard.name}"


def _resumed(work: AbstractWork[Result], spec: Spec, shards: Sequence[Shard], plan: Plan) -> dict[Shard, Result]:
    if plan.folder is None or not plan.resume:
        return {}
    kept = plan.folder.parts(spec)
    return {shard: work.read(kept[_part(shard, plan)]) for shard in shards if _part(shard, plan) in kept}


def refuse_unmeasurable(subject: Subject, images: Images) -> None:
    """Raise ``UserError`` where the subject is random, judged by the first two images."""
    parameter = next(iter(subject.module.parameters()), torch.empty(0))
    for batch in images.batches(subject.preprocessing.transform, 2, 0, 1):
        if len(batch.indices):
            refuse_if_random(subject, batch.pixels.to(parameter.device))


def _run(spec: Spec, work: Pass, result: ShardResult, origin: str) -> Run:
    places = work.subject.places
    scene = Scene(places)
    finished = {d.name: d.finish(s, scene) for d, s in zip(work.diagnostics, result.states, strict=True)}
    notes = [f"{broken.name} was left out: {broken.reason}" for broken in result.broken]
    anatomy = [{"unit": p.name, "kind": p.kind.value, "stage": p.stage, "block": p.block} for p in places]
    root = xr.Dataset(
        attrs={
            "spec": spec.text,
            "provenance": origin,
            "anatomy": json.dumps(anatomy),
            "skipped": json.dumps(
                {d.name: why_empty(d.reads, work.subject) for d in work.diagnostics if not finished[d.name]}
            ),
            "notes": json.dumps(notes),
            "images": result.images,
        }
    )
    return Run(xr.DataTree.from_dict({"/": root, **{name: d for name, d in finished.items() if d}}))


def why_empty(kind: Kind, subject: Subject) -> str:
    """Why a diagnostic that reads this found nothing."""
    kinds = ", ".join(sorted({place.kind.value for place in subject.places})) or "none"
    reasons = {
        Kind.ATTENTION: f"{subject.name} has no attention that this reads (its units: {kinds})",
        Kind.FEATURES: f"{subject.name} has no feature map that could be read (its units: {kinds})",
        Kind.PREDICTIONS: "the images have no labels" if subject.class_count else f"{subject.name} has no classifier",
    }
    return reasons[kind]
