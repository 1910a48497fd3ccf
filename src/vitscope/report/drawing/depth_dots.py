"""One value a head: a dot for each over depth, and a line through the mean of each unit's heads."""

from dataclasses import dataclass
from typing import final

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vitscope.report.colour import LIGHT, kind_tokens, token
from vitscope.report.drawing.drawing import (
    AbstractDrawing,
    axis_note,
    depth_axis,
    figure,
    hover,
    numbers,
    set_vertical,
    vertical,
)
from vitscope.report.measured import Measured
from vitscope.report.strip import Strip

_SPREAD = 0.6
"""How much of a unit's width its heads are spread over, so that equal values do not hide one another."""


@final
@dataclass(frozen=True)
class DepthDots(AbstractDrawing):
    """Axes: ``layer``, ``head``. A head that a unit does not have is NaN, and has no dot."""

    strip: Strip

    @property
    def name(self) -> str:
        """The only drawing of its quantity."""
        return ""

    @property
    def over_depth(self) -> bool:
        """It is."""
        return True

    @property
    def how_to_read(self) -> str:
        """Dots, line."""
        return "A dot: the mean of one head, heads from left to right. Line: the mean of a unit's heads."

    def interactive(self) -> go.Figure:
        """Dots and line."""
        quantity = self.quantities[0]
        values = quantity.mean.transpose("layer", "head")
        layers = values["layer"].values.astype(np.float64)
        means = values.values.astype(np.float64)
        line = {
            "type": "scatter",
            "x": numbers(layers),
            "y": numbers(_across(means)),
            "mode": "lines",
            "connectgaps": True,
            "line": {"color": token("line"), "width": 1.5},
            "hoverinfo": "skip",
        }
        shown = figure(
            [line, self._dots(quantity, layers, means)],
            depth_axis(self.strip.ticks, self.strip.bounds),
            vertical(means),
            quantity.unit,
        )
        shown.update_layout(hovermode="closest", shapes=self.strip.shapes())
        return shown.add_annotation(axis_note(self.strip.division))

    def _dots(self, quantity: Measured, layers: NDArray[np.float64], means: NDArray[np.float64]) -> dict[str, object]:
        rows, columns = np.nonzero(np.isfinite(means))
        error = quantity.error.transpose("layer", "head").values
        count = quantity.count.transpose("layer", "head").values
        heads = quantity.mean["head"].values if "head" in quantity.mean.coords else np.arange(means.shape[1])
        texts = [
            hover(
                f"{self.strip.described(int(layers[r]))}, head {heads[c]}",
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

    def paint(self, axes: Axes) -> None:
        """The same."""
        values = self.quantities[0].mean.transpose("layer", "head")
        layers, means = values["layer"].values.astype(np.float64), values.values
        axes.plot(layers, _across(means), color=LIGHT["line"], linewidth=0.9)
        rows, columns = np.nonzero(np.isfinite(means))
        colours = [LIGHT[self.strip.cells[int(layers[row])].colour] for row in rows]
        axes.scatter(_places(layers, means), means[rows, columns], c=colours, s=5, alpha=0.75, linewidth=0, zorder=3)
        set_vertical(axes, means)
        self.strip.paint(axes)


def _across(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each row's known entries, NaN for a row without any."""
    known = np.isfinite(means)
    counts = known.sum(axis=1)
    return np.where(counts > 0, np.where(known, means, 0.0).sum(axis=1) / np.maximum(counts, 1), np.nan)


def _places(layers: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the known entries' dots stand: a unit's heads side by side within its width."""
    known = np.isfinite(means)
    counts = known.sum(axis=1, keepdims=True)
    rank = np.cumsum(known, axis=1) - 0.5
    offsets = (rank / np.maximum(counts, 1) - 0.5) * _SPREAD
    return (layers[:, None] + offsets)[known]
