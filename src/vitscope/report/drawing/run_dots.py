"""One number per run: a row for each, with the number as a position."""

from dataclasses import dataclass
from html import escape
from typing import final

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from numpy.typing import NDArray
from typing_extensions import override

from vitscope.report.axis import axis_name, entries
from vitscope.report.colour import token
from vitscope.report.drawing.drawing import AbstractDrawing, axis_words, figure, hover, numbers, scale_type
from vitscope.report.drawing.series import Style, styles

_ROW, _MARGINS = 30, 70
"""Heights in pixels: a run's row, and the margins above and below all rows."""


@final
@dataclass(frozen=True)
class RunDots(AbstractDrawing):
    """Axes: ``run``, if runs have no order."""

    @property
    @override
    def name(self) -> str:
        return ""

    @property
    @override
    def over_depth(self) -> bool:
        return False

    @property
    @override
    def height(self) -> int:
        return _ROW * self.quantities[0].mean.size + _MARGINS

    @property
    @override
    def how_to_read(self) -> str:
        return f"A dot: the mean of one {axis_name(self.quantities[0].mean, 'run')}. Whisker: ± 1 standard error."

    @property
    def _rows(self) -> list[tuple[str, Style, NDArray[np.float64]]]:
        """Name, style, and mean, error and count of each run that has the number."""
        quantity = self.quantities[0]
        names = entries(quantity.mean, "run")
        parts = np.stack([part.values for part in (quantity.mean, quantity.error, quantity.count)], axis=1)
        rows = zip(names, styles(len(names), ordered=False), parts, strict=True)
        return [row for row in rows if np.isfinite(row[2][0])]

    def interactive(self) -> go.Figure:
        """The dots, the first run on top."""
        quantity, rows = self.quantities[0], self._rows
        dots = [
            {
                "type": "scatter",
                "x": numbers(part[:1]),
                "y": [row],
                "mode": "markers",
                "marker": {"size": 9, "symbol": style.symbol, "color": token(style.colour)},
                "error_x": {"type": "data", "array": numbers(np.nan_to_num(part[1:2])), "color": token(style.colour),
                            "thickness": 1.5, "width": 0},
                "text": [hover(name, quantity, *part)],
                "hovertemplate": "%{text}<extra></extra>",
            }
            for row, (name, style, part) in enumerate(rows)
        ]  # fmt: skip
        names = {"tickvals": list(range(len(rows))), "ticktext": [escape(name) for name, _, _ in rows]}
        vertical = {"tickmode": "array", **names, "range": [len(rows) - 0.5, -0.5], "automargin": True, "nticks": None}
        kind = scale_type(np.asarray([part[0] for _, _, part in rows]))
        title = {"text": escape(axis_words(self.quantities)), "standoff": 6}
        horizontal = {"type": kind, "title": title, "showgrid": True, "gridcolor": token("rule"), "nticks": 6}
        shown = figure(dots, horizontal, vertical)
        return shown.update_layout(hovermode="closest")

    @override
    def paint(self, axes: Axes) -> None:
        rows = self._rows
        for row, (_, style, part) in enumerate(rows):
            colour, _, marker = style.matplotlib_style
            axes.errorbar(part[:1], [row], xerr=np.nan_to_num(part[1:2]), color=colour, marker=marker, markersize=3)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        axes.set_xlabel(axis_words(self.quantities))
        axes.set_ylabel("")
        axes.invert_yaxis()
