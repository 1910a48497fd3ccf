"""Pictures and maps over them, side by side: a row for each example, a column for each quantity."""

from dataclasses import dataclass
from html import escape
from itertools import product
from typing import Any, final

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray
from typing_extensions import override

from vitscope.report.axis import PIXELS, axis_name, entries
from vitscope.report.colour import LIGHT, STOPS, scale
from vitscope.report.drawing.drawing import AbstractDrawing, colours_of, figure, numbers
from vitscope.report.measured import MeasuredQuantity
from vitscope.report.number import with_unit

_ROW, _HEAD, _GAP = 104, 44, 0.03
_GREY = ("#000000", "#ffffff")
"""Colour scale of pictures: black to white, in light and dark mode."""


@dataclass(frozen=True)
class _ExampleColumn:
    """One quantity, at one entry of its further axes, for all examples."""

    quantity: MeasuredQuantity
    title: str
    values: NDArray[np.float64]

    @property
    def is_pixels(self) -> bool:
        """Whether the column shows the pictures themselves."""
        return self.quantity.dims[-2:] == PIXELS

    @property
    def colours(self) -> tuple[str, float, float]:
        """The colour scale and its ends, shared by all rows."""
        low, high = float(np.nanmin(self.values)), float(np.nanmax(self.values))
        name, middle = colours_of(self.quantity, self.values)
        reach = max(abs(low), abs(high))
        return (name, low, high) if middle is None else (name, -reach, reach)


@final
@dataclass(frozen=True)
class Pictures(AbstractDrawing):
    """Axes: examples first, rows and columns last; axes in between have a column for each entry."""

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
        return _ROW * self.quantities[0].mean.shape[0] + _HEAD

    @property
    @override
    def how_to_read(self) -> str:
        across = axis_name(self.quantities[0].mean, self.quantities[0].dims[0])
        return f"A row: one {across}. Each column has its own colour scale; two-sided scales are pale at 0."

    @property
    def _columns(self) -> list[_ExampleColumn]:
        found: list[_ExampleColumn] = []
        for quantity in self.quantities:
            between = quantity.dims[1:-2]
            for at in product(*(range(quantity.mean.sizes[dim]) for dim in between)):
                place = dict(zip(between, at, strict=True))
                words = [
                    f"{axis_name(quantity.mean, dim)} {entries(quantity.mean, dim)[i]}" for dim, i in place.items()
                ]
                values = quantity.mean.isel(place).values.astype(np.float64)
                found.append(_ExampleColumn(quantity, ", ".join(words) or quantity.label, values))
        return found

    @property
    def _rows(self) -> list[str]:
        values: xr.DataArray = self.quantities[0].mean
        return entries(values, self.quantities[0].dims[0])

    def interactive(self) -> go.Figure:
        """Small maps, each with its own hidden axes."""
        columns, rows = self._columns, self._rows
        width, height = 1 / len(columns), 1 / len(rows)
        traces: list[dict[str, object]] = []
        axes: dict[str, Any] = {}
        for i, (row, column) in enumerate(product(range(len(rows)), range(len(columns))), start=1):
            chosen = columns[column]
            number = "" if i == 1 else str(i)
            traces.append({**_map(chosen, rows[row], row), "xaxis": f"x{number}", "yaxis": f"y{number}"})
            hidden = {"visible": False, "fixedrange": True, "constrain": "domain"}
            across = [(column + _GAP) * width, (column + 1 - _GAP) * width]
            up = [1 - (row + 0.84) * height, 1 - row * height]
            axes[f"xaxis{number}"] = {**hidden, "domain": across, "anchor": f"y{number}"}
            upright = {"scaleanchor": f"x{number}", "autorange": "reversed"}
            axes[f"yaxis{number}"] = {**hidden, **upright, "domain": up, "anchor": f"x{number}"}
        shown = figure(traces, {}, {})
        shown.update_layout(hovermode="closest", margin={"l": 4, "r": 4, "t": _HEAD, "b": 0}, **axes)
        for at, one in enumerate(columns):
            shown.add_annotation(_text(_break_title(one.title), (at + 0.5) * width, 1.0, "center", "bottom", 4))
        for at, name in enumerate(rows):
            shown.add_annotation(_text(escape(name), 0.5 * width, 1 - (at + 0.84) * height, "center", "top", 0))
        return shown

    @override
    def paint(self, axes: Axes) -> None:
        columns, rows = self._columns, self._rows
        axes.set_axis_off()
        for (row, name), (column, chosen) in product(enumerate(rows), enumerate(columns)):
            place = (column / len(columns), 1 - (row + 1) / len(rows), 0.92 / len(columns), 0.8 / len(rows))
            panel = axes.inset_axes(place)
            colour, low, high = chosen.colours
            stops = _GREY if chosen.is_pixels else [LIGHT[f"{colour}-{stop}"] for stop in STOPS]
            panel.imshow(chosen.values[row], cmap=LinearSegmentedColormap.from_list(colour, stops), vmin=low, vmax=high)
            panel.set_axis_off()
            words = [chosen.title] if row == 0 else []
            panel.set_title("\n".join([*words, name] if column == 0 else words), fontsize=4, pad=1)


def _map(column: _ExampleColumn, name: str, row: int) -> dict[str, object]:
    colour, low, high = column.colours
    hover = f"{escape(name)}, {escape(column.title)}<br><b>{with_unit('%{z:.3g}', escape(column.quantity.unit))}</b>"
    return {
        "type": "heatmap",
        "z": [numbers(line) for line in column.values[row]],
        "colorscale": [[0, _GREY[0]], [1, _GREY[1]]] if column.is_pixels else scale(colour),
        "zmin": 0.0 if column.is_pixels else low,
        "zmax": high,
        "showscale": False,
        "hovertemplate": f"{hover}<extra></extra>",
    }


def _text(words: str, x: float, y: float, xanchor: str, yanchor: str, up: int) -> dict[str, object]:
    place = {"xref": "paper", "yref": "paper", "x": x, "y": y, "xanchor": xanchor, "yanchor": yanchor}
    return {**place, "yshift": up, "text": words, "showarrow": False, "font": {"size": 11}, "align": "center"}


def _break_title(title: str) -> str:
    """A title on at most two lines."""
    words = escape(title).split()
    half = len(words) // 2 + len(words) % 2
    return " ".join(words) if len(title) <= 12 else f"{' '.join(words[:half])}<br>{' '.join(words[half:])}"
