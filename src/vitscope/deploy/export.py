"""``export``: a subject, its edits included, as files that run elsewhere, each loaded again and compared."""

import os
import tempfile
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, cast, final

import torch

from vitscope.data import Images
from vitscope.deploy.export_readme import export_readme
from vitscope.deploy.exporting import BATCH, COMPARED, Batches, Comparison, ExportedFile, ExportJob, publish
from vitscope.deploy.onnx_file import refuse_without
from vitscope.deploy.own_process import logits_of_program
from vitscope.deploy.quantise import Quantisation, refuse_quantiser
from vitscope.deploy.recipe import Recipe, changes_nothing, recipe_lines, recipe_of, recipe_text
from vitscope.measurement.bounds import COUNT, check_number
from vitscope.measurement.errors import UserError
from vitscope.models.build import restore_module
from vitscope.models.checkpoint import Checkpoint, read_checkpoint
from vitscope.models.subject import Subject
from vitscope.runs.whole import local_path, write_whole

SUFFIXES = (".onnx", ".pt2", ".safetensors")
LIMIT = 500
"""Images that calibrate a static quantisation, at most, unless told otherwise."""


@final
@dataclass(frozen=True)
class ExportResult:
    """What an export wrote: the target, each file of a model in it, and sentences on what was left out."""

    path: Path
    files: tuple[ExportedFile, ...]
    notes: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        """The largest difference of logits of any file, as a share of the largest logit."""
        return max(one.difference for one in self.files)


def export(
    subject: Subject,
    target: str | os.PathLike[str],
    images: Images | None = None,
    quantise: Quantisation | None = None,
    limit: int = LIMIT,
    original: Subject | None = None,
) -> ExportResult:
    """Write the subject, its edits included, to a file or folder that runs elsewhere.

    ``target`` is a file that ends in ``.onnx`` (ONNX Runtime; preprocessing, classes and edits in its metadata),
    ``.pt2`` (PyTorch, by ``torch.export.load``) or ``.safetensors`` (:func:`~vitscope.models.saved.save`; ``original``
    as there); or a folder for all of them and a README that loads each. The first two need neither this project nor the
    model's library, and take batches of any size of images that are normalised as in :attr:`Subject.preprocessing`.

    Each file is loaded in a process of its own, and its logits for noise, and for up to 128 of the ``images``, are
    compared with the subject's: a difference above 1e-4 of the largest logit (more in half precision) raises
    ``UserError``, and nothing is written. ``quantise`` turns an ``.onnx`` file's weights to 8 bits: ``dynamic``, or
    ``static`` with ranges from up to ``limit`` images; its difference is reported, not limited. Raises ``UserError``
    also for edits and modules that a format cannot express, and for a missing package. Cost: some 10 to 60 s a file.
    """
    path = local_path(target, "An exported model is")
    check_number("limit", limit, COUNT)
    whole = path.is_dir() or os.fspath(target).endswith("/")
    _refuse_target(path, whole, quantise, images is not None)
    seen = () if images is None else _read(subject, images, limit if quantise == "static" else COMPARED)
    job = ExportJob(subject, original, Comparison.of(subject, seen), quantise, seen)
    with tempfile.TemporaryDirectory(prefix="vitscope-") as folder:
        if not whole and path.suffix in SUFFIXES:
            return ExportResult(path, (publish(job.make(Path(folder, path.name)), path),), tuple(job.notes))
        return _export_folder(job, Path(folder), path)


def _refuse_target(path: Path, whole: bool, quantise: Quantisation | None, shown: bool) -> None:
    if not whole and path.suffix not in SUFFIXES and (path.suffix or path.is_file()):
        raise UserError(
            f"{path.name} is no kind of file that a model is exported to; give .onnx, .pt2, .safetensors, or a folder "
            "for all of them."
        )
    if quantise is not None and path.suffix in (".pt2", ".safetensors"):
        raise UserError(f"Only .onnx files are quantised, and {path.name} is none; give a name that ends in .onnx.")
    if quantise == "static" and not shown:
        raise UserError("Static quantisation takes the ranges of activations from images; give images, or dynamic.")
    if path.suffix == ".onnx":
        refuse_without("onnxruntime", "onnxscript", why=f"{path.name}")
    if quantise is not None:
        refuse_quantiser()


def _read(subject: Subject, images: Images, count: int) -> Batches:
    """The first images as the model takes them, in batches."""
    batches = images.batches(subject.preprocessing.transform, min(BATCH, count))
    found = [batch.pixels for batch in islice(batches, -(-count // BATCH)) if len(batch.indices)]
    if not found:
        raise UserError(f"None of the first {count} images of {images.name} could be read.")
    return tuple(torch.cat(found)[:count].split(BATCH))


def _export_folder(job: ExportJob, folder: Path, target: Path) -> ExportResult:
    """All files, made before the first is put in its place."""
    made, programs = list[ExportedFile](), dict[str, str]()
    for suffix in SUFFIXES[::-1]:
        path = folder / f"model{suffix}"
        try:
            _refuse_target(path, False, None, False)
            made.append(job.make(path))
        except UserError as error:
            path.unlink(missing_ok=True)
            job.notes.append(f"{path.name} was left out: {str(error)[:1].lower()}{str(error)[1:]}")
    if not made:
        raise UserError(f"Nothing was exported. {' '.join(job.notes)}")
    if (folder / "model.safetensors").exists():
        programs = _add_plain(job, folder, made)
    files = tuple(publish(one, target / one.path.name) for one in made)
    readme = export_readme(job.subject, files, programs, tuple(job.notes))
    write_whole(target / "README.md", readme.encode())
    return ExportResult(target, files, tuple(job.notes))


def _add_plain(job: ExportJob, folder: Path, made: list[ExportedFile]) -> dict[str, str]:
    """Add what makes the model without this project, if its library can; programs by the file that they read."""
    checkpoint = read_checkpoint(folder / "model.safetensors")
    library, _, name = (checkpoint.model or "").partition("/")
    programs: dict[str, str] = {}
    if library == "transformers" and checkpoint.amendment is None:
        _save_folder(job, checkpoint, folder / "transformers")
        program = f'import transformers\n\nmodel = transformers.{name}.from_pretrained("transformers").eval()\n'
        _try_program(job, folder / "transformers", program, made, programs)
        return programs
    recipe = recipe_of(job.subject, checkpoint)
    if recipe is None:
        return programs
    held = folder / ("model.safetensors" if _is_plain(recipe) else "recipe.json")
    if held.suffix == ".json":
        held.write_text(recipe_text(recipe))
    _try_program(job, held, recipe_lines(recipe), made, programs)
    return programs


def _is_plain(recipe: Recipe) -> bool:
    return changes_nothing(recipe) and recipe["library"] != "transformers"


def _save_folder(job: ExportJob, checkpoint: Checkpoint, path: Path) -> None:
    """A ``save_pretrained`` folder of transformers, with the image processor if the subject has one."""
    with torch.random.fork_rng(devices=[]):  # building a model draws random weights
        module = cast(Any, restore_module(checkpoint))
    if job.subject.classes is not None:
        module.config.id2label = dict(enumerate(job.subject.classes))
        module.config.label2id = {name: number for number, name in enumerate(job.subject.classes)}
    with redirect_stderr(StringIO()):  # transformers draws a progress bar
        module.save_pretrained(path)
    processor: Any = getattr(job.subject.preprocessing.transform, "processor", None)
    if processor is not None:
        processor.save_pretrained(path)


def _try_program(job: ExportJob, held: Path, program: str, made: list[ExportedFile], programs: dict[str, str]) -> None:
    """Keep the program, and what it reads, if it gives the subject's logits in a process without this project."""
    try:
        judged = job.comparison.judge(held, logits_of_program(program, held, job.comparison.batches), True)
    except UserError as error:
        job.notes.append(f"{held.name} is not written for use without vitscope: {error}")
        return
    programs[held.name] = program
    if held.name != "model.safetensors":
        made.append(judged)
