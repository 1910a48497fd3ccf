"""Quantities over one axis that is not depth: lines with their errors; a distribution over the axis as bars."""

from dataclasses import dataclass
from typing import final

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vitscope.report.colour import LIGHT, token
from vitscope.report.drawing.drawing import MARGIN_TOP, AbstractDrawing, figure, hover, numbers, set_vertical, vertical
from vitscope.report.measured import Measured

_PROBABILITIES = ("confidence_bin",)
"""Axes that are themselves probabilities: a pure number over them is compared with the diagonal."""
_SYMBOLS = ("circle", "square", "diamond", "triangle-up")
_MARKERS = ("o", "s", "D", "^")


@final
@dataclass(frozen=True)
class CoordinateLines(AbstractDrawing):
    """Axes: any one but depth, the same for all the quantities, which have the same unit."""

    @property
    def name(self) -> str:
        """The only drawing of its quantities."""
        return ""

    @property
    def over_depth(self) -> bool:
        """It is not."""
        return False

    @property
    def how_to_read(self) -> str:
        """Lines, bars, diagonal."""
        bars = " Bars: shares, which add up to 1." if any(map(_is_distribution, self.quantities)) else ""
        diagonal = " Dashed: where value and axis agree." if self._has_diagonal else ""
        return f"A point: the mean, with ± 1 standard error.{bars}{diagonal}"

    @property
    def _axis(self) -> str:
        return self.quantities[0].dims[0]

    @property
    def _has_diagonal(self) -> bool:
        return self._axis in _PROBABILITIES and self.quantities[0].unit == "1"

    def interactive(self) -> go.Figure:
        """Bars at the back, then the diagonal, then the lines."""
        bars = [self._bars(quantity) for quantity in self.quantities if _is_distribution(quantity)]
        lines = [quantity for quantity in self.quantities if not _is_distribution(quantity)]
        traces = [*bars, *self._diagonal(), *(self._line(quantity, i) for i, quantity in enumerate(lines))]
        values = np.concatenate([quantity.mean.values.ravel() for quantity in self.quantities])
        axis = {"title": {"text": self._axis.replace("_", " "), "standoff": 6}}
        kind = "linear" if bars or self._has_diagonal else vertical(values)
        shown = figure(
            traces, axis, {"type": kind, "rangemode": "tozero" if bars else "normal"}, self.quantities[0].unit
        )
        many = len(self.quantities) > 1
        legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "xanchor": "left", "font": {"size": 12}}
        return shown.update_layout(
            hovermode="closest",
            showlegend=many,
            legend=legend,
            margin={"t": MARGIN_TOP + 20 * len(self.quantities) if many else MARGIN_TOP},
            meta={"wide_margin": 48},
        )

    def _bars(self, quantity: Measured) -> dict[str, object]:
        return {
            "type": "bar",
            "name": quantity.label,
            "x": numbers(_places(quantity)),
            "y": numbers(quantity.mean.values),
            "marker": {"color": token("bar"), "line": {"width": 0}},
            "text": self._texts(quantity),
            "textposition": "none",
            "hovertemplate": "%{text}<extra></extra>",
        }

    def _line(self, quantity: Measured, place: int) -> dict[str, object]:
        colour = token(f"series-{place % 4}")
        return {
            "type": "scatter",
            "name": quantity.label,
            "x": numbers(_places(quantity)),
            "y": numbers(quantity.mean.values),
            "error_y": {
                "type": "data",
                "array": numbers(np.nan_to_num(quantity.error.values)),
                "color": colour,
                "thickness": 1,
                "width": 0,
            },
            "mode": "lines+markers",
            "line": {"color": colour, "width": 1.5},
            "marker": {"size": 7, "symbol": _SYMBOLS[place % 4], "color": colour},
            "text": self._texts(quantity),
            "hovertemplate": "%{text}<extra></extra>",
        }

    def _diagonal(self) -> list[dict[str, object]]:
        line = {"color": token("soft"), "width": 1, "dash": "dash"}
        diagonal = {"type": "scatter", "x": [0, 1], "y": [0, 1], "mode": "lines", "line": line}
        return [{**diagonal, "hoverinfo": "skip", "showlegend": False}] if self._has_diagonal else []

    def _texts(self, quantity: Measured) -> list[str]:
        axis = self._axis.replace("_", " ")
        parts = (_places(quantity), quantity.mean.values, quantity.error.values, quantity.count.values)
        return [
            hover(f"{quantity.label}, {axis} {at:.4g}", quantity, mean, error, count)
            for at, mean, error, count in zip(*parts, strict=True)
        ]

    def paint(self, axes: Axes) -> None:
        """The same."""
        lines = [quantity for quantity in self.quantities if not _is_distribution(quantity)]
        for quantity in self.quantities:
            if _is_distribution(quantity):
                x = _places(quantity)
                width = 0.8 * float(np.diff(x).min()) if x.size > 1 else 0.8
                axes.bar(x, quantity.mean.values, width, color=LIGHT["block"], alpha=0.35, label=quantity.label)
        if self._has_diagonal:
            axes.plot([0, 1], [0, 1], color=LIGHT["soft"], linewidth=0.7, linestyle="--")
        for i, quantity in enumerate(lines):
            axes.errorbar(
                _places(quantity),
                quantity.mean.values,
                np.nan_to_num(quantity.error.values),
                color=LIGHT[f"series-{i % 4}"],
                marker=_MARKERS[i % 4],
                label=quantity.label,
                markersize=2.5,
                linewidth=0.9,
                elinewidth=0.6,
            )
        if len(lines) == len(self.quantities) and not self._has_diagonal:
            set_vertical(axes, np.concatenate([quantity.mean.values for quantity in lines]))
        axes.set_xlabel(self._axis.replace("_", " "))
        if len(self.quantities) > 1:
            axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0.1, labelspacing=0.25)


def _is_distribution(quantity: Measured) -> bool:
    values = quantity.mean.values
    return bool(values.size > 1 and (values >= 0).all() and abs(values.sum() - 1) < 1e-6 and quantity.unit == "1")


def _places(quantity: Measured) -> NDArray[np.float64]:
    axis = quantity.dims[0]
    values = quantity.mean[axis].values if axis in quantity.mean.coords else np.arange(quantity.mean.size)
    return (values if np.issubdtype(values.dtype, np.number) else np.arange(values.size)).astype(np.float64)
