"""``figures``: a run's figures as files for a paper, one column wide."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import matplotlib
from matplotlib.figure import Figure

from vitscope.measurement.errors import UserError
from vitscope.report.colour import LIGHT
from vitscope.report.drawing import AbstractDrawing, drawings
from vitscope.report.drawing.drawing import break_axis_words
from vitscope.report.measured import quantities_of
from vitscope.report.page import AsRun, runs_of
from vitscope.report.strip import strip
from vitscope.runs.run import Run
from vitscope.runs.whole import local_path, write_whole

Format = Literal["pdf", "png", "svg"]

_WIDTH, _HEIGHT = 3.3, 2.1
"""Inches; the width is that of a column of a two-column page."""
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "font.family": "sans-serif",
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.edgecolor": LIGHT["soft"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LIGHT["rule"],
    "grid.linewidth": 0.4,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "vitscope",
}


_UNDATED: dict[Format, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Producer": None},
    "png": {"Software": None},
    "svg": {"Date": None},
}
"""Metadata to leave out, as they would differ from one day or version to the next."""


def write_figures(run: AsRun, folder: str | os.PathLike[str], format: Format) -> tuple[Path, ...]:
    """Write the figures, as :func:`vitscope.report.figures` says."""
    if format not in get_args(Format):
        raise UserError(f"There is no figure format {format!r}; there are: {', '.join(get_args(Format))}.")
    (found,) = runs_of(run)
    place = local_path(folder, "Figures are")
    return tuple(write_whole(place / f"{name}.{format}", _paint(drawing, format)) for name, drawing in _all(found))


def _all(run: Run) -> Iterator[tuple[str, AbstractDrawing]]:
    anatomy = strip(run.anatomy)
    for diagnostic, dataset in run.measured.items():
        for group in drawings(quantities_of(diagnostic, dataset), anatomy):
            yield from ((drawing.file, drawing) for drawing in group if drawing.on_paper)


def _paint(drawing: AbstractDrawing, format: Format) -> bytes:
    first = drawing.quantities[0]
    target = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        axes.set_ylabel(break_axis_words(drawing.quantities))
        if first.entry:
            axes.set_title(first.entry, fontsize=7)
        drawing.paint(axes)
        figure.savefig(target, format=format, dpi=400, metadata=_UNDATED[format])
    return target.getvalue()
