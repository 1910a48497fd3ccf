"""Quantities over one axis that is not depth: lines with errors, and bars for a distribution over the axis."""

from dataclasses import dataclass
from html import escape
from typing import Any, final

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from numpy.typing import NDArray
from typing_extensions import override

from vitscope.report.axis import axis_name, entries, is_categorical, is_logarithmic, places
from vitscope.report.colour import LIGHT, token
from vitscope.report.drawing.drawing import (
    AbstractDrawing,
    axis_words,
    coordinate_axis,
    figure,
    hover,
    numbers,
    set_coordinate_axis,
    set_vertical,
    vertical,
)
from vitscope.report.drawing.reference import Reference, reference
from vitscope.report.drawing.series import legend_layout
from vitscope.report.measured import MeasuredQuantity

_PROBABILITIES = ("confidence_bin",)
"""Axes of probabilities: a pure number over them is compared with the diagonal."""
_SYMBOLS = ("circle", "square", "diamond", "triangle-up")
_MARKERS = ("o", "s", "D", "^")
_MOST_MARKERS = 40
_LOWEST = 1e-6
"""Share of a long curve's peak below which the curve is cut, so that a logarithmic axis shows the rest."""
_DECADES = 1e3


@final
@dataclass(frozen=True)
class CoordinateLines(AbstractDrawing):
    """Axes: any one except depth. All quantities have the same axis and unit."""

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
    def how_to_read(self) -> str:
        bars = " Bars: shares, which add up to 1." if any(map(_is_distribution, self.quantities)) else ""
        diagonal = " Dashed: the diagonal, on which value and axis agree." if self._has_diagonal else ""
        against = " Dashed: the intact model." if self._against else ""
        if self._long:
            cut = f" A curve is cut off below {_LOWEST:g} of its peak." if self._cut else ""
            return f"A curve: the mean.{cut}{bars}{diagonal}{against}"
        drawn = "Hollow" if self._mode == "markers" else "Dashed, without markers"
        theory = f" {drawn}: predicted." if any(one.is_predicted for one in self.quantities) else ""
        return f"A point: the mean, with ± 1 standard error.{bars}{diagonal}{against}{theory}"

    @property
    def _axis(self) -> str:
        return self.quantities[0].dims[0]

    @property
    def _has_diagonal(self) -> bool:
        return self._axis in _PROBABILITIES and self.quantities[0].unit == "1"

    @property
    def _against(self) -> Reference | None:
        return reference(self.quantities[0]) if len(self.quantities) == 1 else None

    @property
    def _long(self) -> bool:
        """Whether there are too many points for markers."""
        return self.quantities[0].mean.size > _MOST_MARKERS

    @property
    def _cut(self) -> bool:
        """Whether long, non-negative curves fall over decades and need a logarithmic axis."""
        values = np.concatenate([quantity.mean.values for quantity in self.quantities])
        finite = values[np.isfinite(values)]
        falls = finite.max() > _DECADES * max(float(np.median(finite)), 1e-300)
        return bool(self._long and finite.min() >= 0 and falls)

    def _values(self, quantity: MeasuredQuantity) -> NDArray[np.float64]:
        """The means, without what is cut."""
        means = quantity.mean.values.astype(np.float64)
        return np.where(means >= _LOWEST * np.nanmax(means), means, np.nan) if self._cut else means

    def interactive(self) -> go.Figure:
        """Bars at the back, then the diagonal, then the lines."""
        bars = [self._bars(quantity) for quantity in self.quantities if _is_distribution(quantity)]
        lines = [quantity for quantity in self.quantities if not _is_distribution(quantity)]
        traces = [*bars, *self._diagonal(), *(self._line(quantity, i) for i, quantity in enumerate(lines))]
        values = np.concatenate([self._values(quantity) for quantity in self.quantities])
        x = places(self.quantities[0].mean, self._axis)
        ends = (float(x.min()), float(x.max()))
        against = [self._against.trace(ends)] if self._against else []
        linear = {"type": "linear", "rangemode": "tozero" if bars else "normal"}
        plain = bool(bars) or self._has_diagonal or bool(against)
        upright = vertical(values, self.quantities[0].limits) if self.quantities[0].limits or not plain else linear
        below = coordinate_axis(self.quantities[0].mean, self._axis)
        upright = {**upright, "rangemode": upright.get("rangemode", "normal")}
        note = self._against.note() if self._against else None
        shown = figure([*against, *traces], below, upright, axis_words(self.quantities), note)
        for gap in self._notes():
            shown.add_annotation(gap)
        legend = legend_layout(shown, [quantity.label for quantity in self.quantities], None, repeats=False)
        return shown.update_layout(hovermode="closest", **legend)

    def _bars(self, quantity: MeasuredQuantity) -> dict[str, object]:
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

    def _line(self, quantity: MeasuredQuantity, place: int) -> dict[str, object]:
        colour = token(f"series-{place % 4}")
        errors = numbers(np.nan_to_num(quantity.error.values))
        whiskers = {"type": "data", "array": errors, "color": colour, "thickness": 1, "width": 0}
        return {
            "type": "scatter",
            "name": quantity.label,
            "x": numbers(_places(quantity)),
            "y": numbers(self._values(quantity)),
            **({} if self._long else {"error_y": whiskers}),
            "mode": "lines" if self._bare(quantity) else self._mode,
            "line": {"color": colour, "width": 1.5, "dash": "dash" if quantity.is_predicted else "solid"},
            "marker": {"size": 7, "symbol": f"{_SYMBOLS[place % 4]}{'-open' * quantity.is_predicted}", "color": colour},
            "text": self._texts(quantity),
            "hovertemplate": "%{text}<extra></extra>",
        }

    def _bare(self, quantity: MeasuredQuantity) -> bool:
        """Whether it is a prediction drawn as a line, which needs no markers."""
        return quantity.is_predicted and quantity.mean.size > 1 and self._mode != "markers"

    @property
    def _mode(self) -> str:
        """Markers only between names, which have nothing between them; a line only for many points; else both."""
        values = self.quantities[0].mean
        if is_categorical(values, self._axis) and not values[self._axis].attrs.get("ordered", False):
            return "markers"
        return "lines" if self._long else "lines+markers"

    def _gaps(self) -> list[tuple[float, str]]:
        """The places of values that are missing for a known reason, and the reason."""
        lacking = [one for one in self.quantities if one.missing]
        return [(float(at), one.missing) for one in lacking for at in _places(one)[np.isnan(one.mean.values)]]

    def _notes(self) -> list[dict[str, object]]:
        """The gaps as notes at the top of the figure, one word per line."""
        log = is_logarithmic(self.quantities[0].mean, self._axis)
        top = {"y": 1, "yref": "paper", "yanchor": "top", "showarrow": False, "font": {"size": 11}}
        return [
            {**top, "x": float(np.log10(at)) if log else at, "text": escape(why).replace(" ", "<br>")}
            for at, why in self._gaps()
        ]

    def _diagonal(self) -> list[dict[str, object]]:
        line = {"color": token("soft"), "width": 1, "dash": "dash"}
        diagonal = {"type": "scatter", "x": [0, 1], "y": [0, 1], "mode": "lines", "line": line}
        return [{**diagonal, "hoverinfo": "skip", "showlegend": False}] if self._has_diagonal else []

    def _texts(self, quantity: MeasuredQuantity) -> list[str]:
        axis = axis_name(quantity.mean, self._axis)
        parts = (entries(quantity.mean, self._axis), quantity.mean.values, quantity.error.values, quantity.count.values)
        return [
            hover(f"{quantity.label}, {axis} {at}", quantity, mean, error, count)
            for at, mean, error, count in zip(*parts, strict=True)
        ]

    @override
    def paint(self, axes: Axes) -> None:
        lines = [quantity for quantity in self.quantities if not _is_distribution(quantity)]
        for quantity in self.quantities:
            if _is_distribution(quantity):
                x = _places(quantity)
                width = 0.8 * float(np.diff(x).min()) if x.size > 1 else 0.8
                axes.bar(x, quantity.mean.values, width, color=LIGHT["block"], alpha=0.35, label=quantity.label)
        if self._has_diagonal:
            axes.plot([0, 1], [0, 1], color=LIGHT["soft"], linewidth=0.7, linestyle="--")
        if self._against:
            self._against.paint(axes)
        for i, quantity in enumerate(lines):
            axes.errorbar(
                _places(quantity),
                self._values(quantity),
                None if self._long or quantity.is_predicted else np.nan_to_num(quantity.error.values),
                color=LIGHT[f"series-{i % 4}"],
                **self._paint(quantity, i),
                label=quantity.label,
                markersize=2.5,
                linewidth=0.9,
                elinewidth=0.6,
            )
        if len(lines) == len(self.quantities) and not self._has_diagonal and not self._against:
            set_vertical(axes, np.concatenate([self._values(quantity) for quantity in lines]))
        set_coordinate_axis(axes, self.quantities[0].mean, self._axis)
        for at, why in self._gaps():
            axes.annotate(why, (at, 0.98), xycoords=("data", "axes fraction"), rotation=90, ha="center", va="top",
                          color=LIGHT["soft"], fontsize=5)  # fmt: skip
        if len(self.quantities) > 1:
            axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0.1, labelspacing=0.25)

    def _paint(self, quantity: MeasuredQuantity, place: int) -> dict[str, Any]:
        """Marker and line style for matplotlib."""
        marker = "" if self._long or self._bare(quantity) else _MARKERS[place % 4]
        line = "none" if self._mode == "markers" else "--" if quantity.is_predicted else "-"
        return {"marker": marker, "linestyle": line, "markerfacecolor": "white" if quantity.is_predicted else None}


def _is_distribution(quantity: MeasuredQuantity) -> bool:
    values = quantity.mean.values
    return bool(values.size > 1 and (values >= 0).all() and abs(values.sum() - 1) < 1e-6 and quantity.unit == "1")


def _places(quantity: MeasuredQuantity) -> NDArray[np.float64]:
    return places(quantity.mean, quantity.dims[0])
