"""``vitscope checkup``: examine a model on images, keep the run, write its page."""

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.rim import INTERRUPTED, command_line, fail
from vitscope.cli.summary import print_summary
from vitscope.cli.terminal import ProgressBar, hint, waiting
from vitscope.measurement.errors import UserError

if TYPE_CHECKING:
    from vitscope.data import Images
    from vitscope.engine.diagnostic import AnyDiagnostic
    from vitscope.engine.executor import AbstractExecutor
    from vitscope.engine.measure import Plan
    from vitscope.models.subject import Subject
    from vitscope.runs.run import Run
    from vitscope.runs.spec import Spec

_MODEL_HELP = (
    "digits (embedded), vit-micro ... vit-base, timm/NAME, torchvision/NAME, transformers/NAME, a save_pretrained "
    "folder, or a checkpoint of vitscope train."
)
_IMAGES_HELP = "Folder, Parquet, .npz, glob, hub:OWNER/NAME, or digits (embedded)."


def checkup(
    model: Annotated[str, typer.Argument(help=_MODEL_HELP)] = "digits",
    images: Annotated[str | None, typer.Option(help=_IMAGES_HELP)] = None,
    split: Annotated[str | None, typer.Option(help="Which of several splits.")] = None,
    limit: Annotated[int | None, typer.Option(help="Take so many images, balanced by class.")] = None,
    seed: Annotated[int, typer.Option(help="Which images --limit takes.")] = 0,
    label: Annotated[str | None, typer.Option(help="Column or key of the labels.")] = None,
    label_map: Annotated[str | None, typer.Option(help="JSON file from the images' classes to the model's.")] = None,
    max_broken: Annotated[int, typer.Option(help="Unreadable images to put up with.")] = 0,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Load the library's trained weights.")] = False,
    weights: Annotated[str | None, typer.Option(help="Load weights from this .safetensors or .pt file.")] = None,
    crop: Annotated[
        float | None, typer.Option(help="Share of the picture the centre crop keeps (timm, torchvision).")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder or fsspec URL; checkups/MODEL-ADDRESS if left out.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted checkup ended.")] = False,
    only: Annotated[str | None, typer.Option(help="Only these diagnostics, with commas between.")] = None,
    skip: Annotated[str | None, typer.Option(help="All diagnostics but these.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 32,
    workers: Annotated[str, typer.Option(help="Worker processes, ray://HOST:PORT, or 'ray local'.")] = "1",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
) -> None:
    """Examine a model on images: every diagnostic in one pass, the findings, and a page.

    Without arguments the embedded model is examined on the embedded images.
    """
    with waiting("Loading the model and the images"):
        executor = executor_of(workers)
        diagnostics = chosen(only, skip)
        pictures = _images(model, images, split, limit, seed, label, label_map, max_broken)
        subject = load_model(model, pretrained, weights, device, crop)
        question = Question.of(subject, pictures, diagnostics)
    where = out or f"checkups/{_file_name(subject.name)}-{question.spec.address[:8]}"
    run = question.answer(where, resume, batch_size, executor, command_line())
    with waiting("Writing the page"):
        page = write_page(run, where)
    print_summary(run, page)


@dataclass(frozen=True)
class Question:
    """What is to be measured, with the address under which its answer is kept."""

    subject: "Subject"
    images: "Images"
    diagnostics: "tuple[AnyDiagnostic, ...]"
    spec: "Spec"

    @classmethod
    def of(cls, subject: "Subject", images: "Images", diagnostics: "tuple[AnyDiagnostic, ...]") -> "Question":
        """The question, its images' labels fitted to the model's classes."""
        from vitscope.engine.measure import spec_of

        fitted = images.for_classes(subject.class_count, subject.classes) if subject.class_count else images
        return cls(subject, fitted, diagnostics, spec_of(subject, fitted, diagnostics))

    def answer(self, where: str, resume: bool, batch_size: int, executor: "AbstractExecutor", command: str) -> "Run":
        """The run: the one that is kept there if it answers this question, or a new one."""
        from vitscope.engine.measure import Plan
        from vitscope.runs.store import RunFolder

        folder = RunFolder(where)
        held = folder.read()
        if held is None:
            if not resume and folder.parts(self.spec):
                hint(f"{where} holds a part of this very run; with --resume it would be used. Starting again.")
            return self._measured(Plan(batch_size, executor, folder, resume, command=command))
        if held.spec.address == self.spec.address:
            hint(f"{where} holds this very run already; only its page is made again.")
            return held
        other = f"{held.spec.model.get('name')} on {held.spec.images.get('name')}"
        raise UserError(
            f"{where} holds another run ({other}, {held.spec.address[:8]}), and runs are never overwritten; "
            "give another --out."
        )

    def _measured(self, plan: "Plan") -> "Run":
        from vitscope.findings.checkup import checkup as examine

        try:
            with ProgressBar("Measuring", len(self.images)) as progress:
                return examine(self.subject, self.images, self.diagnostics, replace(plan, progress=progress))
        except KeyboardInterrupt:
            kept, again = self._kept(plan), plan.command
            again = again if plan.resume else f"{again} --resume"
            fail(f"interrupted; {kept} of {len(self.images)} images are kept; go on with: {again}", INTERRUPTED, "")

    def _kept(self, plan: "Plan") -> int:
        from vitscope.engine.shard import ShardResult

        parts = plan.folder.parts(self.spec) if plan.folder else {}
        mine = [content for name, content in parts.items() if name.startswith(f"batch-{plan.batch_size}-")]
        results = [ShardResult.from_bytes(content) for content in mine]
        return sum(result.images + len(result.broken) for result in results)


def load_model(
    model: str, pretrained: bool, weights: str | None, device: str = "cpu", crop: float | None = None
) -> "Subject":
    """The subject, on a device that is there."""
    import torch

    from vitscope.models.load import load

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"The device {device!r} is not to be had here ({why}); give cpu, cuda, cuda:1 or mps."
        ) from error
    return load(model, pretrained=pretrained, weights=weights, device=device, crop=crop)


def _images(
    model: str,
    source: str | None,
    split: str | None,
    limit: int | None,
    seed: int,
    label: str | None,
    label_map: str | None,
    max_broken: int,
) -> "Images":
    from vitscope.data import images

    if source is None and model != "digits":
        raise UserError(f"Say on which images {model} is to be examined: --images FOLDER (or --images digits).")
    return images(
        source or "digits",
        split=split,
        limit=limit,
        seed=seed,
        label=label,
        label_map=label_map,
        max_broken=max_broken,
    )


def chosen(only: str | None, skip: str | None) -> "tuple[AnyDiagnostic, ...]":
    """The diagnostics that are asked for, in the registry's order."""
    from vitscope.diagnostics import default_diagnostics

    known = {diagnostic.name: diagnostic for diagnostic in default_diagnostics()}
    wanted, unwanted = (None if text is None else re.split(r"[,\s]+", text.strip(", ")) for text in (only, skip))
    for name in [*(wanted or ()), *(unwanted or ())]:
        if name not in known:
            raise UserError(f"There is no diagnostic named {name!r}; there are: {', '.join(known)}.")
    names = [name for name in known if (wanted is None or name in wanted) and name not in (unwanted or ())]
    if not names:
        raise UserError("--only and --skip leave no diagnostic to measure.")
    return tuple(known[name] for name in names)


def executor_of(workers: str) -> "AbstractExecutor":
    """Where shards are folded: here, in worker processes, or on a Ray cluster."""
    from vitscope.engine.executor import InProcess, Processes

    if workers.startswith("ray"):
        from vitscope.engine.ray_cluster import RayCluster

        if workers in ("ray", "ray local"):
            return RayCluster("local")
        if workers.startswith("ray://"):
            return RayCluster(workers)
    if not workers.isdecimal() or int(workers) < 1:
        raise UserError(f"--workers takes a number from 1, ray://HOST:PORT or 'ray local', not {workers!r}.")
    return InProcess() if int(workers) == 1 else Processes(int(workers))


def write_page(run: "Run", where: str) -> str:
    """Write the run's page beside it, and say where."""
    from vitscope.report import report

    if "://" not in where:
        return str(report((run,), Path(where) / "page.html"))
    import fsspec

    with tempfile.TemporaryDirectory() as folder:
        content = report((run,), Path(folder) / "page.html").read_bytes()
    target = f"{where.rstrip('/')}/page.html"
    fsspec.core.url_to_fs(target)[0].pipe_file(target, content)
    return target


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")
