"""The page and the figures of a run. Axes and attributes decide how a quantity is shown, never a diagnostic's name.

Plotting libraries are imported only when something is drawn.
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

    A run may be given by its folder, here and below. The file holds all it needs (plotly's library, figures, tables),
    loads nothing else and can be shared as a single file of some 5 MB. It is written whole or not at all; an existing
    page is replaced. Raises ``UserError`` if there is no run.
    """
    from vitscope.report.page import write_page

    return write_page(runs, path)


def compare(runs: "AsRuns", path: str | os.PathLike[str], labels: Sequence[str] | None = None) -> Path:
    """Write one page that compares 2 to 12 runs, in the order given, and return its path.

    ``labels`` name the runs, one each; the default names are their models, or their moments in one training. What at
    least two runs have is drawn once with a line for each run: unit by unit if all models have the same units
    (checkpoints of one model show a training), otherwise aligned by relative depth. Differences are from the first
    run; errors are those of independent runs, but paired for accuracy, loss and confidence if the runs hold scores of
    the same images. The file is like that of :func:`report`. Raises ``UserError`` for fewer or more runs.
    """
    from vitscope.report.side_by_side import write_comparison

    return write_comparison(runs, path, labels)


def figures(
    run: "AsRun", folder: str | os.PathLike[str], format: Literal["pdf", "png", "svg"] = "png"
) -> tuple[Path, ...]:
    """Write every quantity with an axis as a figure of one column's width, without a title, and return the files.

    The files are named after what they show, ``<diagnostic>-<quantity>.<format>``; png has 400 dots per inch, pdf and
    svg keep text as text. Each is written whole or not at all. Raises ``UserError`` for another format.
    """
    from vitscope.report.static import write_figures

    return write_figures(run, folder, format)
