"""One value per layer: a line over depth with a standard-error band and points in the colours of the units."""

from dataclasses import dataclass
from typing import final

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from typing_extensions import override

from vitscope.report.colour import LIGHT, kind_tokens, token
from vitscope.report.drawing.drawing import (
    AbstractDrawing,
    axis_note,
    axis_words,
    band,
    depth_axis,
    figure,
    hover,
    numbers,
    set_vertical,
    vertical,
)
from vitscope.report.strip import Strip


@final
@dataclass(frozen=True)
class DepthLine(AbstractDrawing):
    """Axes: ``layer``."""

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
        return "A point: the mean at a unit, in the unit's colour. Band: ± 1 standard error."

    @override
    def interactive(self) -> go.Figure:
        quantity = self.quantities[0]
        x = quantity.mean["layer"].values.astype(np.float64)
        mean, error, count = (
            part.values.astype(np.float64) for part in (quantity.mean, quantity.error, quantity.count)
        )
        spread = np.nan_to_num(error)
        line = {
            "type": "scatter",
            "x": numbers(x),
            "y": numbers(mean),
            "mode": "lines+markers",
            "connectgaps": True,
            "cliponaxis": False,
            "line": {"color": token("line"), "width": 1.5},
            "marker": {"size": 7, "color": kind_tokens([self.strip.cells[int(i)].kind for i in x]), "opacity": 1},
            "text": [
                hover(self.strip.describe(int(i)), quantity, m, e, n)
                for i, m, e, n in zip(x, mean, error, count, strict=True)
            ],
            "hovertemplate": "%{text}<extra></extra>",
        }
        shown = figure(
            [band(x, mean - spread, mean + spread), line],
            depth_axis(self.strip.ticks, self.strip.bounds),
            vertical(mean - spread, quantity.limits),
            axis_words(self.quantities),
        )
        shown.update_layout(hovermode="x", shapes=self.strip.shapes())
        return shown.add_annotation(axis_note(self.strip.division))

    @override
    def paint(self, axes: Axes) -> None:
        quantity = self.quantities[0]
        x, mean, error = quantity.mean["layer"].values, quantity.mean.values, np.nan_to_num(quantity.error.values)
        known = np.isfinite(mean)
        x, mean, error = x[known], mean[known], error[known]
        axes.fill_between(x, mean - error, mean + error, color=LIGHT["line"], alpha=0.25, linewidth=0)
        axes.plot(x, mean, color=LIGHT["line"], linewidth=0.9)
        axes.scatter(x, mean, c=[LIGHT[self.strip.cells[i].colour] for i in x], s=7, zorder=3, linewidth=0)
        set_vertical(axes, mean - error)
        self.strip.paint(axes)
