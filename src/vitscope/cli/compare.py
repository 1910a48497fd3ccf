"""``vitscope compare``: several finished runs on one page."""

import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.report import page_at, read_runs, refuse_elsewhere
from vitscope.cli.terminal import stdout, waiting
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

    In the order given; differences are from the first run. Depth is aligned unit by unit where all models have the
    same units, by relative depth otherwise.
    """
    if len(runs) < 2:
        raise UserError(f"A comparison takes two runs at least; only {runs[0]} was given.")
    refuse_elsewhere(out)
    with waiting("Drawing"):
        from vitscope.report import compare

        where, found = zip(*read_runs(runs, least=2), strict=True)
        path = compare(found, page_at(out, "compare.html"), _labels(where, found))
    stdout().print(printable(str(path)), markup=False, highlight=False, soft_wrap=True)


def _labels(urls: Sequence[str], runs: "Sequence[Run]") -> list[str] | None:
    """The folders' names beside that of the model, if runs are of models of one name but no moments of one training."""
    from vitscope.report.side import is_training, sides

    models = [run.spec.model.get("name") for run in runs]
    folders = [posixpath.basename(url.removesuffix("run.nc").rstrip("/")) for url in urls]
    if len(set(map(str, models))) == len(models) or len(set(folders)) < len(folders) or is_training(sides(runs)):
        return None
    return [f"{model}, {folder}" for model, folder in zip(models, folders, strict=True)]
