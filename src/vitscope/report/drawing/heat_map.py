"""Two axes as a heat map, over depth wherever one of them is depth."""

from dataclasses import dataclass
from typing import final

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from vitscope.report.colour import LIGHT, STOPS, scale
from vitscope.report.drawing.drawing import AbstractDrawing, axis_note, depth_axis, figure, hover, in_two_lines, numbers
from vitscope.report.measured import Measured
from vitscope.report.strip import Strip

_COLOUR_BAR = {
    "orientation": "h",
    "x": 1,
    "xanchor": "right",
    "y": 1.0,
    "ypad": 4,
    "yanchor": "bottom",
    "thickness": 8,
    "len": 0.45,
    "outlinewidth": 0,
    "nticks": 4,
}
"""Above the map, so that the map keeps the width of the strip."""


@final
@dataclass(frozen=True)
class HeatMap(AbstractDrawing):
    """Axes: any two. ``layer`` lies along the strip, otherwise the first is across; the other goes up."""

    strip: Strip

    @property
    def name(self) -> str:
        """There are curves of the same quantity."""
        return "map"

    @property
    def over_depth(self) -> bool:
        """Where it has depth and the model's anatomy is known."""
        return "layer" in self.quantities[0].dims and bool(self.strip.cells)

    @property
    def how_to_read(self) -> str:
        """Colour, axes."""
        across, up = self._axes(self.quantities[0])
        across = "the units" if self.over_depth else across.replace("_", " ")
        return f"Across: {across}. Up: {up.replace('_', ' ')}. Colour: the mean."

    def interactive(self) -> go.Figure:
        """The map, its colour bar above it."""
        quantity = self.quantities[0]
        across, up = self._axes(quantity)
        x, y, means, errors, counts = self._grid(quantity, across, up)
        texts = [
            [hover(self._title(across, i, up, j), quantity, m, e, n) for i, m, e, n in zip(x, ms, es, ns, strict=True)]
            for j, ms, es, ns in zip(y, means, errors, counts, strict=True)
        ]
        name, limit = _scale(means)
        heat = {
            "type": "heatmap",
            "x": numbers(x),
            "y": numbers(y),
            "z": [numbers(row) for row in means],
            "colorscale": scale(name),
            "zmid": limit,
            "text": texts,
            "hovertemplate": "%{text}<extra></extra>",
            "hoverongaps": False,
            "colorbar": _COLOUR_BAR,
        }
        horizontal = depth_axis(self.strip.ticks, self.strip.bounds) if self.over_depth else {}
        shown = figure([heat], horizontal, {"showgrid": False}, quantity.unit)
        shown.update_layout(hovermode="closest", margin={"t": 48})
        if self.over_depth:
            shapes = [shape for shape in self.strip.shapes() if shape.get("layer") != "below"]
            shown.update_layout(shapes=shapes)
            shown.add_annotation(axis_note(self.strip.division))
        return shown

    def paint(self, axes: Axes) -> None:
        """The same."""
        quantity = self.quantities[0]
        across, up = self._axes(quantity)
        x, y, means, _, _ = self._grid(quantity, across, up)
        name, middle = _scale(means)
        colours = LinearSegmentedColormap.from_list(name, [LIGHT[f"{name}-{stop}"] for stop in STOPS])
        reach = float(np.nanmax(np.abs(means))) if middle is not None else None
        low = -reach if reach is not None else None
        mesh = axes.pcolormesh(x, y, means, cmap=colours, vmin=low, vmax=reach, shading="nearest", rasterized=True)
        if axes.figure:
            bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02, aspect=30, label=in_two_lines(quantity))
            bar.outline.set_linewidth(0)  # pyright: ignore[reportCallIssue]
        axes.set_ylabel(up.replace("_", " "))
        if self.over_depth:
            self.strip.paint(axes)

    def _axes(self, quantity: Measured) -> tuple[str, str]:
        first, second = quantity.dims
        return (first, second) if second != "layer" else (second, first)

    def _title(self, across: str, i: float, up: str, j: float) -> str:
        place = self.strip.described(int(i)) if self.over_depth else f"{across} {i:.4g}"
        return f"{place}, {up.replace('_', ' ')} {j:.4g}"

    def _grid(self, quantity: Measured, across: str, up: str) -> tuple[NDArray[np.float64], ...]:
        parts = [part.transpose(up, across) for part in (quantity.mean, quantity.error, quantity.count)]
        if self.over_depth:
            parts = [part.reindex(layer=np.arange(len(self.strip.cells))) for part in parts]
        x, y = (_numbers_of(parts[0], dim) for dim in (across, up))
        return x, y, *(part.values.astype(np.float64) for part in parts)


def _numbers_of(values: xr.DataArray, dim: str) -> NDArray[np.float64]:
    coordinate = values[dim].values if dim in values.coords else np.arange(values.sizes[dim])
    numeric = np.issubdtype(coordinate.dtype, np.number)
    return (coordinate if numeric else np.arange(coordinate.size)).astype(np.float64)


def _scale(means: NDArray[np.float64]) -> tuple[str, float | None]:
    """Two-sided about 0 where the values lie on both sides of it."""
    return ("both", 0.0) if np.nanmin(means) < 0 < np.nanmax(means) else ("ramp", None)
