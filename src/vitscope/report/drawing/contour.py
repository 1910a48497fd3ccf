"""A landscape seen from above: contours over two directions, with the unchanged model in the middle."""

from dataclasses import dataclass
from html import escape
from typing import final

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray
from typing_extensions import override

from vitscope.report.axis import axis_name, axis_title, places
from vitscope.report.colour import LIGHT, STOPS, scale, token
from vitscope.report.drawing.drawing import (
    COLOUR_BAR,
    AbstractDrawing,
    axis_words,
    below_bar,
    break_axis_words,
    colours_of,
    figure,
    hover,
    numbers,
    scale_type,
)
from vitscope.report.measured import MeasuredQuantity
from vitscope.report.number import plain, with_unit

_SIDE = 390
"""Height of the map in pixels."""
_LEVELS = 14
_LONGEST_NAME = 28


@dataclass(frozen=True)
class HeightGrid:
    """A quantity over two directions; rows run along the second. Colours show the ``heights``."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    mean: NDArray[np.float64]
    texts: list[list[str]]
    decades: bool

    @property
    def heights(self) -> NDArray[np.float64]:
        """The values, or their decimal logarithms if they span decades."""
        return np.log10(self.mean) if self.decades else self.mean

    @property
    def ticks(self) -> dict[str, object]:
        """Ticks of a colour bar or vertical axis over :attr:`heights`."""
        if not self.decades:
            return {"nticks": 5}
        low, high = np.nanmin(self.heights), np.nanmax(self.heights)
        marks = [(m, e) for e in range(int(np.floor(low)), int(np.ceil(high)) + 1) for m in (1, 2, 5)]
        inside = [(np.log10(m) + e, f"{m * 10.0**e:g}") for m, e in marks if low <= np.log10(m) + e <= high]
        kept = [mark for mark in inside if mark[1].lstrip("0.").startswith("1")] if len(inside) > 7 else inside
        return {"tickmode": "array", "tickvals": [at for at, _ in kept], "ticktext": [text for _, text in kept]}


def grid(quantity: MeasuredQuantity) -> HeightGrid:
    """The quantity on its grid."""
    across, up = quantity.dims
    parts = [part.transpose(up, across).values for part in (quantity.mean, quantity.error, quantity.count)]
    x, y = places(quantity.mean, across), places(quantity.mean, up)
    names = axis_name(quantity.mean, across), axis_name(quantity.mean, up)
    texts = [
        [hover(f"{names[0]} {at:.3g}, {names[1]} {above:.3g}", quantity, m, e, n)
         for at, m, e, n in zip(x, *rows, strict=True)]
        for above, *rows in zip(y, *parts, strict=True)
    ]  # fmt: skip
    return HeightGrid(x, y, parts[0], texts, scale_type(parts[0]) == "log")


def direction(quantity: MeasuredQuantity, dim: str) -> str:
    """A direction's name, short enough for an axis of the map."""
    name = axis_title(quantity.mean, dim)
    return name if len(name) <= _LONGEST_NAME else f"{dim} direction"


def uncertainty(quantity: MeasuredQuantity) -> str:
    """How large the standard errors are, in a sentence; empty if there are none."""
    errors = quantity.error.values[np.isfinite(quantity.error.values)]
    if not errors.size or not errors.max() > 0:
        return ""
    low, high = (with_unit(plain(float(value)), quantity.unit) for value in (errors.min(), errors.max()))
    return f" Standard errors: from {low} to {high}; point at a place to see its own."


@final
@dataclass(frozen=True)
class Contour(AbstractDrawing):
    """Axes: two directions, ``first`` horizontal and ``second`` vertical."""

    @property
    @override
    def name(self) -> str:
        return "contour"

    @property
    @override
    def over_depth(self) -> bool:
        return False

    @property
    @override
    def height(self) -> int:
        return _SIDE

    @property
    @override
    def square(self) -> bool:
        return True

    @property
    @override
    def how_to_read(self) -> str:
        quantity = self.quantities[0]
        decades = " on a logarithmic scale" if grid(quantity).decades else ""
        across, up = (axis_name(quantity.mean, dim) for dim in quantity.dims)
        axes = f"Horizontal: {across}. Vertical: {up}. Cross: the unchanged model."
        return f"{axes} Colour: the mean{decades}.{uncertainty(quantity)}"

    def interactive(self) -> go.Figure:
        """The contour map with its centre and its colour bar."""
        quantity, seen = self.quantities[0], grid(self.quantities[0])
        across, up = quantity.dims
        name = _name(quantity, seen)
        contours = {
            "type": "contour",
            "x": numbers(seen.x),
            "y": numbers(seen.y),
            "z": [numbers(row) for row in seen.heights],
            "colorscale": scale(name),
            "zmid": 0 if name == "both" else None,
            "ncontours": _LEVELS,
            "line": {"width": 0.7, "color": token("soft")},
            "text": seen.texts,
            "hovertemplate": "%{text}<extra></extra>",
            "colorbar": {**COLOUR_BAR, **seen.ticks},
            "showscale": not quantity.repeats,
        }
        horizontal = {"title": {"text": escape(direction(quantity, across)), "standoff": 6}, "constrain": "domain",
                      "constraintoward": "left"}  # fmt: skip
        vertical = {"title": {"text": escape(direction(quantity, up)), "standoff": 4}, "showgrid": False,
                    "scaleanchor": "x", "constrain": "domain", "automargin": True}  # fmt: skip
        shown = figure([contours, _centre()], horizontal, vertical, axis_words(self.quantities))
        return shown.update_layout(hovermode="closest", **({} if quantity.repeats else below_bar(shown)))

    @override
    def paint(self, axes: Axes) -> None:
        quantity, seen = self.quantities[0], grid(self.quantities[0])
        name = _name(quantity, seen)
        colours = LinearSegmentedColormap.from_list(name, [LIGHT[f"{name}-{stop}"] for stop in STOPS])
        reach = float(np.nanmax(np.abs(seen.heights))) if name == "both" else None
        low = -reach if reach is not None else None
        filled = axes.contourf(seen.x, seen.y, seen.heights, _LEVELS, cmap=colours, vmin=low, vmax=reach)
        axes.contour(seen.x, seen.y, seen.heights, _LEVELS, colors=LIGHT["soft"], linewidths=0.3, linestyles="solid")
        axes.plot([0], [0], marker="+", color=LIGHT["ink"], markersize=6)
        if axes.figure:
            bar = axes.figure.colorbar(filled, ax=axes, pad=0.02, aspect=30, label=break_axis_words(self.quantities))
            bar.outline.set_linewidth(0)  # pyright: ignore[reportCallIssue]
            if "tickvals" in seen.ticks:
                bar.set_ticks(seen.ticks["tickvals"], labels=seen.ticks["ticktext"])  # pyright: ignore
        axes.set_xlabel(direction(quantity, quantity.dims[0]))
        axes.set_ylabel(direction(quantity, quantity.dims[1]))
        axes.set_aspect("equal")
        axes.grid(visible=False)


def _name(quantity: MeasuredQuantity, seen: HeightGrid) -> str:
    return "ramp" if seen.decades else colours_of(quantity, seen.mean)[0]


def _centre() -> dict[str, object]:
    marker = {"symbol": "cross-thin", "size": 13, "line": {"width": 2, "color": token("ink")}}
    return {"type": "scatter", "x": [0], "y": [0], "mode": "markers", "marker": marker, "hoverinfo": "skip"}
