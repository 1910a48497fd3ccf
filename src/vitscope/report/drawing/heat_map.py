"""Two axes as a heat map, over depth if one of them is depth."""

from dataclasses import dataclass
from html import escape
from typing import final

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray
from typing_extensions import override

from vitscope.report.axis import axis_name, axis_title, entries, is_categorical, is_logarithmic, places, shorten
from vitscope.report.colour import LIGHT, STOPS, scale
from vitscope.report.drawing.drawing import (
    COLOUR_BAR,
    AbstractDrawing,
    axis_note,
    axis_words,
    below_bar,
    break_axis_words,
    colours_of,
    coordinate_axis,
    depth_axis,
    figure,
    hover,
    numbers,
    set_coordinate_axis,
)
from vitscope.report.measured import MeasuredQuantity
from vitscope.report.strip import Strip

_NAME = 20
"""Height in pixels of a row with a name."""


@final
@dataclass(frozen=True)
class HeatMap(AbstractDrawing):
    """Axes: any two. ``layer``, or else the first, is horizontal; the other is vertical, as are names."""

    strip: Strip

    @property
    @override
    def name(self) -> str:
        return "map"

    @property
    def over_depth(self) -> bool:
        """Whether it has depth and the model's anatomy is known."""
        return "layer" in self.quantities[0].dims and bool(self.strip.cells)

    @property
    def height(self) -> int:
        """Room for each name on the vertical axis; otherwise the page decides."""
        values = self.quantities[0].mean
        _, up = self._axes(self.quantities[0])
        return _NAME * values.sizes[up] + 110 if is_categorical(values, up) else 0

    @property
    @override
    def how_to_read(self) -> str:
        across, up = self._axes(self.quantities[0])
        values = self.quantities[0].mean
        across = "the units" if self.over_depth else axis_name(values, across)
        up = f"{axis_name(values, up)}{', by its layer' if f'{up}_unit' in values.coords else ''}"
        return (
            f"Horizontal: {across}. Vertical: {up}. Colour: the {'change' if self.quantities[0].is_change else 'mean'}."
        )

    def interactive(self) -> go.Figure:
        """The map, with its colour bar above it."""
        quantity = self.quantities[0]
        across, up = self._axes(quantity)
        x, y, means, errors, counts = self._grid(quantity, across, up)
        columns, rows = self._entry_texts(across, x), self._entry_texts(up, y)
        texts = [
            [hover(f"{at}, {above}", quantity, m, e, n) for at, m, e, n in zip(columns, ms, es, ns, strict=True)]
            for above, ms, es, ns in zip(rows, means, errors, counts, strict=True)
        ]
        name, limit = colours_of(quantity, means)
        heat = {
            "type": "heatmap",
            "x": numbers(x),
            "y": numbers(y),
            "z": [numbers(row) for row in means],
            "colorscale": scale(name),
            "zmid": limit,
            **_shared_ends(quantity, limit),
            "text": texts,
            "hovertemplate": "%{text}<extra></extra>",
            "hoverongaps": False,
            "colorbar": COLOUR_BAR,
            "showscale": not quantity.repeats,
        }
        below = coordinate_axis(quantity.mean, across) if across in quantity.mean.dims and not self.over_depth else None
        horizontal = below if below is not None else depth_axis(self.strip.ticks, self.strip.bounds)
        shown = figure([heat], horizontal, self._vertical(up, y), axis_words(self.quantities))
        shown.update_layout(hovermode="closest", **({} if quantity.repeats else below_bar(shown)))
        if self.over_depth:
            shapes = [shape for shape in self.strip.shapes() if shape.get("layer") != "below"]
            shown.update_layout(shapes=shapes)
            shown.add_annotation(axis_note(self.strip.division))
        return shown

    @override
    def paint(self, axes: Axes) -> None:
        quantity = self.quantities[0]
        across, up = self._axes(quantity)
        x, y, means, _, _ = self._grid(quantity, across, up)
        name, middle = colours_of(quantity, means)
        colours = LinearSegmentedColormap.from_list(name, [LIGHT[f"{name}-{stop}"] for stop in STOPS])
        low, high = quantity.limits or (float(np.nanmin(means)), float(np.nanmax(means)))
        reach = max(abs(low), abs(high))
        low, high = (low, high) if middle is None else (-reach, reach)
        edges = [_edges(at, is_logarithmic(quantity.mean, dim)) for at, dim in ((x, across), (y, up))]
        mesh = axes.pcolormesh(*edges, means, cmap=colours, vmin=low, vmax=high, rasterized=True)
        if axes.figure:
            bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02, aspect=30, label=break_axis_words(self.quantities))
            bar.outline.set_linewidth(0)  # pyright: ignore[reportCallIssue]
        axes.set_ylabel(axis_title(quantity.mean, up))
        if is_categorical(quantity.mean, up):
            axes.set_yticks(y, [shorten(entry) for entry in entries(quantity.mean, up)], fontsize=5)
            axes.invert_yaxis()
        if is_logarithmic(quantity.mean, up):
            axes.set_yscale("log")
            axes.set_yticks(y, entries(quantity.mean, up))
            axes.yaxis.set_minor_formatter(lambda value, _: "")
        if self.over_depth:
            self.strip.paint(axes)
        else:
            set_coordinate_axis(axes, quantity.mean, across)

    def _vertical(self, up: str, at: NDArray[np.float64]) -> dict[str, object]:
        """The vertical axis, with names and logarithmic entries as tick labels."""
        values = self.quantities[0].mean
        axis: dict[str, object] = {"showgrid": False, "title": {"text": escape(axis_title(values, up)), "standoff": 4}}
        if is_categorical(values, up) or is_logarithmic(values, up):
            names = [escape(shorten(entry)) for entry in entries(values, up)]
            axis |= {"tickmode": "array", "tickvals": numbers(at), "ticktext": names, "automargin": True}
        if is_categorical(values, up):
            axis["autorange"] = "reversed"
        return {**axis, "type": "log"} if is_logarithmic(values, up) else axis

    def _axes(self, quantity: MeasuredQuantity) -> tuple[str, str]:
        first, second = quantity.dims
        names_across = is_categorical(quantity.mean, first) and not is_categorical(quantity.mean, second)
        return (second, first) if second == "layer" or (first != "layer" and names_across) else (first, second)

    def _entry_texts(self, dim: str, at: NDArray[np.float64]) -> list[str]:
        """The entries of an axis in words, for hover texts."""
        if dim == "layer" and self.over_depth:
            return [self.strip.describe(int(layer)) for layer in at]
        values = self.quantities[0].mean
        return [f"{axis_name(values, dim)} {entry}" for entry in entries(values, dim)]

    def _grid(self, quantity: MeasuredQuantity, across: str, up: str) -> tuple[NDArray[np.float64], ...]:
        parts = [part.transpose(up, across) for part in (quantity.mean, quantity.error, quantity.count)]
        if self.over_depth:
            parts = [part.reindex(layer=np.arange(len(self.strip.cells))) for part in parts]
        x, y = (places(parts[0], dim) for dim in (across, up))
        return x, y, *(part.values.astype(np.float64) for part in parts)


def _edges(at: NDArray[np.float64], logarithmic: bool) -> NDArray[np.float64]:
    """The edges of the cells around these places: halfway between them, geometrically on a logarithmic axis."""
    middles = np.log(at) if logarithmic else at
    steps = np.diff(middles) / 2 if len(at) > 1 else np.full(1, 0.5)
    between = middles[: len(steps)] + steps if len(at) > 1 else middles[:0]
    edges = np.concatenate([middles[:1] - steps[:1], between, middles[-1:] + steps[-1:]])
    return np.exp(edges) if logarithmic else edges


def _shared_ends(quantity: MeasuredQuantity, middle: float | None) -> dict[str, object]:
    """The ends of the colour scale, if several maps share it."""
    if quantity.limits is None:
        return {}
    low, high = quantity.limits
    reach = max(abs(low), abs(high))
    return {"zmin": low, "zmax": high} if middle is None else {"zmin": -reach, "zmax": reach}
