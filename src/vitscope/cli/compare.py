"""``vitscope compare``: several finished runs on one page."""

import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.report import page_at, read_runs, refuse_elsewhere
from vitscope.cli.terminal import stderr, stdout, waiting
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

if TYPE_CHECKING:
    from vitscope.runs.run import Run


def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Folders of finished runs, or their run.nc, 2 to 12.", metavar="RUN RUN...")
    ],
    out: Annotated[str, typer.Option(help="The page to write, or a folder for it.")] = "compare.html",
) -> None:
    """Compare runs side by side on one page: models, or the checkpoints of one.

    They appear in the order given; differences are from the first run. Runs over the same images are compared image by
    image: how many images only one of them gets right, and what follows for accuracy, loss and confidence. Depth is
    aligned unit by unit if all models have the same units, by relative depth otherwise.
    """
    if len(runs) < 2:
        raise UserError(f"A comparison needs at least two runs; only {runs[0]} was given.")
    refuse_elsewhere(out)
    with waiting("Drawing"):
        from vitscope.report import compare

        where, found = zip(*read_runs(runs, least=2), strict=True)
        labels = _labels(where, found)
        path = compare(found, page_at(out, "compare.html"), labels)
        told = _sentences(found, labels)
    for sentence in told:
        stderr().print(printable(sentence), markup=False, highlight=False)  # only the path is for other programs
    stdout().print(printable(str(path)), markup=False, highlight=False, soft_wrap=True)


def _sentences(runs: "Sequence[Run]", labels: Sequence[str] | None) -> tuple[str, ...]:
    """How the runs differ image by image, or why that cannot be computed."""
    from vitscope.report.pairing import pair
    from vitscope.report.side import sides

    pairings = pair(sides(runs, labels))
    return (*(sentence for one in pairings.found for sentence in one.sentences), *pairings.refusals)


def _labels(urls: Sequence[str], runs: "Sequence[Run]") -> list[str] | None:
    """The models' names with the folders', if several runs share a model's name but are not of one training."""
    from vitscope.report.side import is_training, sides

    models = [run.spec.model.get("name") for run in runs]
    folders = [posixpath.basename(url.removesuffix("run.nc").rstrip("/")) for url in urls]
    if len(set(map(str, models))) == len(models) or len(set(folders)) < len(folders) or is_training(sides(runs)):
        return None
    return [f"{model}, {folder}" for model, folder in zip(models, folders, strict=True)]
