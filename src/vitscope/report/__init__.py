"""The page and the figures of a run. Knows no diagnostic by name: axes and attributes say how a quantity is shown.

Plotting is imported only when something is drawn.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from vitscope.report.page import AsRun, AsRuns

__all__ = ["compare", "figures", "report"]


def report(runs: "AsRuns", path: str | os.PathLike[str]) -> Path:
    """Write the page of a run, or of several one after another, and return its path.

    A run may be given by its folder, here and below. The file holds all it needs (plotly's library, figures,
    tables), loads nothing and can be sent as it is: some 5 MB. It is written whole or not at all; a page that was
    there is replaced. Raises ``UserError`` where there is no run.
    """
    from vitscope.report.page import write_page

    return write_page(runs, path)


def compare(runs: "AsRuns", path: str | os.PathLike[str], labels: Sequence[str] | None = None) -> Path:
    """Write one page that compares 2 to 12 runs, in the order given, and return its path.

    ``labels`` name the runs, one each; without them their models do, or their moments in one training.
    What two runs at least have is drawn once with a line for each run: unit by unit where all models have the same
    units (checkpoints of one model show a training), else aligned by relative depth. Differences are from the first
    run, their errors those of independent errors. The file is of the kind that :func:`report` writes. Raises
    ``UserError`` for fewer or more runs.
    """
    from vitscope.report.side_by_side import write_comparison

    return write_comparison(runs, path, labels)


def figures(
    run: "AsRun", folder: str | os.PathLike[str], format: Literal["pdf", "png", "svg"] = "png"
) -> tuple[Path, ...]:
    """Write every quantity with an axis as a figure of one column's width, without a title, and return the files.

    The files are named by what they show, ``<diagnostic>-<quantity>.<format>``; png has 400 dots an inch, pdf and svg
    keep their text as text. Each is written whole or not at all. Raises ``UserError`` for another format.
    """
    from vitscope.report.static import write_figures

    return write_figures(run, folder, format)
