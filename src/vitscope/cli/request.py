"""The flags of every measuring command: a model, images, and where the run is saved."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vitscope.cli.error_reporting import INTERRUPTED, command_line, fail
from vitscope.cli.model import ModelRequest
from vitscope.cli.paths import refuse_absent
from vitscope.cli.summary import print_summary
from vitscope.cli.terminal import ProgressBar, waiting
from vitscope.cli.workers import Workers
from vitscope.measurement.bounds import SEED, check_number
from vitscope.measurement.errors import UserError

if TYPE_CHECKING:
    from vitscope.data import Images
    from vitscope.engine.plan import Plan
    from vitscope.engine.question import AbstractQuestion
    from vitscope.runs.run import Run
    from vitscope.runs.spec import Spec


@dataclass(frozen=True)
class Request(ModelRequest):
    """The model, the images, and how and where the run is made; each field is a flag."""

    images: str | None = None
    """Folder, Parquet, .npz, .tar, .csv, glob, hub:OWNER/NAME, or digits (embedded)."""
    split: str | None = None
    """Which of several splits."""
    limit: int | None = None
    """Take this many images, each class in proportion to its size."""
    seed: int = 0
    """Seed of the images that --limit takes, and of everything else that is random."""
    label: str | None = None
    """Column or key of the labels; none to go without, folder if folders that might be splits are classes."""
    label_map: str | None = None
    """JSON file that maps the images' classes to the model's."""
    label_order: Literal["text", "natural"] | None = None
    """How a model that names no classes numbers them: text (10 before 2), as torchvision sorts, or natural, as timm."""
    root: str | None = None
    """Folder that the paths in a table start from and may not leave; the table's own if left out."""
    bits: int | None = None
    """Bit depth of samples that are stored in 16 bits, such as 12."""
    max_pixels: int = 178_956_970
    """Pixels of the largest picture that is read."""
    augment: Literal["none", "weak", "strong"] = "none"
    """Augment the images as in training, the same way each time: weak is crop and mirror; strong adds RandAugment,
    Mixup and CutMix."""
    max_broken: int = 0
    """Unreadable images to tolerate."""
    out: str | None = None
    """Folder or fsspec URL; checkups/, studies/ or measured/ MODEL-ADDRESS if left out."""
    resume: bool = False
    """Continue an interrupted run."""
    batch_size: int = 32
    """Images at a time."""

    def __post_init__(self) -> None:
        """Refuse what is known to be wrong before anything heavy is imported."""
        if self.images is None and self.model not in (None, "digits"):
            raise UserError(
                f"No images were given to examine {self.model} on; give --images FOLDER (or --images digits)."
            )
        if self.model is None and self.images not in (None, "digits"):
            raise UserError(
                f"No model was given to examine on {self.images}; give MODEL --images {self.images}, such as "
                "timm/NAME. The embedded model, which classifies digits, is the default for the embedded images only."
            )
        refuse_absent(self.images, "--images")
        check_number("--seed", self.seed, SEED)
        super().__post_init__()

    def pictures(self, split: str | None = None) -> "Images":
        """The images, of ``split`` if it is given, else of --split."""
        from vitscope.data import images

        found = images(
            "digits" if self.images is None else self.images,
            split=split or self.split,
            limit=self.limit,
            seed=self.seed,
            label=self.label,
            label_map=self.label_map,
            label_order=self.label_order,
            root=self.root,
            bits=self.bits,
            max_pixels=self.max_pixels,
            max_broken=self.max_broken,
        )
        if self.augment == "none":
            return found
        from vitscope.data.augmented import STRONG, WEAK

        return found.augment({"weak": WEAK, "strong": STRONG}[self.augment], self.seed)

    def plan(self, workers: Workers) -> "Plan":
        """How the work is carried out, except where it is saved."""
        from vitscope.engine.plan import Plan

        return Plan(self.batch_size, workers.executor, None, self.resume, command=command_line())


def first_split(splits: Iterable[str | None], read: "Callable[[str | None], Images]") -> "Images | None":
    """The images of the first of these splits that exists; None if none does."""
    for split in splits:
        try:
            return read(split)
        except UserError as error:
            if error.splits is None:
                raise
    return None


def answer(
    question: "AbstractQuestion",
    folder: str,
    out: str | None,
    plan: "Plan",
    show: "Callable[[Run, str], None]" = print_summary,
) -> None:
    """Carry out the question, save its run in ``out`` or in a folder of its own under ``folder``, and show both.

    An interrupt reports how much is saved and how to continue.
    """
    from vitscope.engine.question import carry_out
    from vitscope.runs.store import RunFolder

    where = out or place_of(folder, question.name, question.spec)
    plan = replace(plan, folder=RunFolder(where))
    with RunFolder(where).hold():
        try:
            with ProgressBar("Running" if question.counted else "Measuring", question.total, question.counted) as bar:
                run = carry_out(question, replace(plan, progress=bar, say=bar.say, tell=bar.at))
        except KeyboardInterrupt:
            unfinished = question.make_unfinished(plan)
            if unfinished is not None:
                write_page(unfinished, where)
            again = plan.command if plan.resume else f"{plan.command} --resume"
            fail(f"interrupted; {question.describe_kept(plan)}; continue with: {again}", INTERRUPTED, "")
        page = page_of(run, where)
    show(run, page)


def place_of(folder: str, model: str, spec: "Spec") -> str:
    """Where a run is saved by default: ``folder/MODEL-ADDRESS``."""
    return f"{folder}/{_file_name(model)}-{spec.address[:8]}"


def page_of(run: "Run", where: str) -> str:
    """Write the page of the run saved in ``where``; an interrupt reports that and how to make the page."""
    try:
        with waiting("Writing the page"):
            return write_page(run, where)
    except KeyboardInterrupt:
        fail(f"interrupted; the run is saved in {where}; make its page with: vitscope report {where}", INTERRUPTED, "")


def write_page(run: "Run", where: str) -> str:
    """Write the run's page beside it; returns its path or URL."""
    from vitscope.report import report

    if "://" not in where:
        return str(report((run,), Path(where) / "page.html"))
    from vitscope.report.page import encode, page
    from vitscope.runs.store import RunFolder

    return RunFolder(where).write_beside("page.html", encode(page((run,))))


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")
