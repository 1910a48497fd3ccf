"""Several values per unit, such as one per head: a dot for each over depth, and a line through the units' means."""

from dataclasses import dataclass
from itertools import product
from typing import final

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import NDArray
from typing_extensions import override

from vitscope.report.axis import axis_name, entries
from vitscope.report.colour import LIGHT, kind_tokens, token
from vitscope.report.drawing.drawing import (
    AbstractDrawing,
    axis_note,
    axis_words,
    depth_axis,
    figure,
    hover,
    numbers,
    set_vertical,
    vertical,
)
from vitscope.report.drawing.reference import reference, visible_values
from vitscope.report.measured import MeasuredQuantity
from vitscope.report.strip import Strip

_SPREAD = 0.6
"""Share of a unit's width over which its dots are spread, so that equal values do not hide one another."""


@final
@dataclass(frozen=True)
class DepthDots(AbstractDrawing):
    """Axes: ``layer`` with ``head``, or with ``minibatch`` and ``rank``; NaN, for what a unit lacks, has no dot."""

    strip: Strip

    @property
    @override
    def name(self) -> str:
        return ""

    @property
    @override
    def over_depth(self) -> bool:
        return True

    @property
    @override
    def how_to_read(self) -> str:
        others = [axis_name(self._values[0], dim) for dim in self.quantities[0].dims if dim != "layer"]
        what = " and ".join(f"one {other}" for other in others)
        against = " Dashed: the intact model." if reference(self.quantities[0]) else ""
        return f"A dot: the value of {what}, in order from left to right. Line: the mean of a unit's dots.{against}"

    @property
    def _values(self) -> tuple[xr.DataArray, ...]:
        """Mean, error and count with ``layer`` first."""
        quantity = self.quantities[0]
        return tuple(part.transpose("layer", ...) for part in (quantity.mean, quantity.error, quantity.count))

    @override
    def interactive(self) -> go.Figure:
        quantity = self.quantities[0]
        layers = self._values[0]["layer"].values.astype(np.float64)
        means = _flat(self._values[0])
        against = reference(quantity)
        line = {
            "type": "scatter",
            "x": numbers(layers),
            "y": numbers(_across(means)),
            "mode": "lines",
            "connectgaps": quantity.over == "layer",
            "line": {"color": token("line"), "width": 1.5},
            "hoverinfo": "skip",
        }
        shown = figure(
            [*([against.trace(self.strip.bounds)] if against else []), line, self._dots(quantity, layers, means)],
            depth_axis(self.strip.ticks, self.strip.bounds),
            vertical(visible_values(means, against), quantity.limits),
            axis_words(self.quantities),
            against.note() if against else None,
        )
        shown.update_layout(hovermode="closest", shapes=self.strip.shapes())
        return shown.add_annotation(axis_note(self.strip.division))

    def _dots(
        self, quantity: MeasuredQuantity, layers: NDArray[np.float64], means: NDArray[np.float64]
    ) -> dict[str, object]:
        rows, columns = np.nonzero(np.isfinite(means))
        error, count = (_flat(part) for part in self._values[1:])
        dots = _names(self._values[0])
        texts = [
            hover(
                f"{self.strip.describe(int(layers[r]))}, {dots[c]}",
                quantity,
                means[r, c],
                error[r, c],
                count[r, c],
            )
            for r, c in zip(rows, columns, strict=True)
        ]
        return {
            "type": "scatter",
            "x": numbers(_places(layers, means)),
            "y": numbers(means[rows, columns]),
            "mode": "markers",
            "cliponaxis": False,
            "marker": {
                "size": 6,
                "opacity": 0.75,
                "color": kind_tokens([self.strip.cells[int(layers[row])].kind for row in rows]),
            },
            "text": texts,
            "hovertemplate": "%{text}<extra></extra>",
        }

    @override
    def paint(self, axes: Axes) -> None:
        layers, means = self._values[0]["layer"].values.astype(np.float64), _flat(self._values[0])
        against = reference(self.quantities[0])
        if against:
            against.paint(axes)
        axes.plot(layers, _across(means), color=LIGHT["line"], linewidth=0.9)
        rows, columns = np.nonzero(np.isfinite(means))
        colours = [LIGHT[self.strip.cells[int(layers[row])].colour] for row in rows]
        axes.scatter(_places(layers, means), means[rows, columns], c=colours, s=5, alpha=0.75, linewidth=0, zorder=3)
        set_vertical(axes, visible_values(means, against))
        self.strip.paint(axes)


def _flat(values: xr.DataArray) -> NDArray[np.float64]:
    """A row for each layer, all other axes in one."""
    return values.values.astype(np.float64).reshape(values.sizes["layer"], -1)


def _names(values: xr.DataArray) -> list[str]:
    """The names of the columns of :func:`_flat`."""
    others = [str(dim) for dim in values.dims if dim != "layer"]
    axis_words = ([f"{axis_name(values, dim)} {entry}" for entry in entries(values, dim)] for dim in others)
    return [", ".join(parts) for parts in product(*axis_words)]


def _across(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each row's known entries; NaN for a row without any."""
    known = np.isfinite(means)
    counts = known.sum(axis=1)
    return np.where(counts > 0, np.where(known, means, 0.0).sum(axis=1) / np.maximum(counts, 1), np.nan)


def _places(layers: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """The horizontal positions of the known entries: a unit's heads side by side within its width."""
    known = np.isfinite(means)
    counts = known.sum(axis=1, keepdims=True)
    rank = np.cumsum(known, axis=1) - 0.5
    offsets = (rank / np.maximum(counts, 1) - 0.5) * _SPREAD
    return (layers[:, None] + offsets)[known]
