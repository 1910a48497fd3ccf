"""One curve per layer over another axis, coloured by depth."""

from dataclasses import dataclass
from typing import final

import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from typing_extensions import override

from vitscope.report.axis import axis_name, entries, places
from vitscope.report.colour import LIGHT, token
from vitscope.report.drawing.drawing import (
    AbstractDrawing,
    axis_words,
    coordinate_axis,
    figure,
    hover,
    numbers,
    set_coordinate_axis,
    vertical,
)
from vitscope.report.strip import Strip

_FAINTEST = 25
"""Place of the first curve on the colour ramp, in percent: it must still be visible."""


@final
@dataclass(frozen=True)
class CurveFamily(AbstractDrawing):
    """Axes: ``layer`` and another one with an order, such as ``frequency``."""

    strip: Strip

    @property
    @override
    def name(self) -> str:
        return "curves"

    @property
    @override
    def over_depth(self) -> bool:
        return False

    @property
    @override
    def how_to_read(self) -> str:
        return "A curve: one unit; fainter curves are nearer to the stem."

    def interactive(self) -> go.Figure:
        """The curves; each carries its layer, so that the page can mark the unit elsewhere."""
        quantity = self.quantities[0]
        other = next(dim for dim in quantity.dims if dim != "layer")
        mean, error, count = (p.transpose("layer", other) for p in (quantity.mean, quantity.error, quantity.count))
        x, said = places(mean, other), [f"{axis_name(mean, other)} {entry}" for entry in entries(mean, other)]
        curves = [
            {
                "type": "scatter",
                "x": numbers(x),
                "y": numbers(mean.values[i]),
                "mode": "lines",
                "line": {"color": token(f"ramp-{self._shade(int(layer))}"), "width": 1.5},
                "customdata": [int(layer)] * x.size,
                "text": [
                    hover(f"{self._place(int(layer))}, {at}", quantity, m, e, n)
                    for at, m, e, n in zip(said, mean.values[i], error.values[i], count.values[i], strict=True)
                ],
                "hovertemplate": "%{text}<extra></extra>",
            }
            for i, layer in enumerate(mean["layer"].values)
        ]
        below = coordinate_axis(mean, other)
        upright = vertical(mean.values, quantity.limits) if quantity.limits else {}
        shown = figure(curves, below, upright, axis_words(self.quantities))
        return shown.update_layout(hovermode="closest")

    @override
    def paint(self, axes: Axes) -> None:
        quantity = self.quantities[0]
        other = next(dim for dim in quantity.dims if dim != "layer")
        mean = quantity.mean.transpose("layer", other)
        ramp = LinearSegmentedColormap.from_list("ramp", [LIGHT[f"ramp-{stop}"] for stop in (25, 50, 75, 100)])
        for layer, row in zip(mean["layer"].values, mean.values, strict=True):
            at = (self._shade(int(layer)) - _FAINTEST) / (100 - _FAINTEST)
            axes.plot(places(mean, other), row, color=ramp(at), linewidth=0.8)
        set_coordinate_axis(axes, mean, other)

    def _shade(self, layer: int) -> int:
        deepest = max(int(self.quantities[0].mean["layer"].max()), 1)
        return _FAINTEST + round((100 - _FAINTEST) * layer / deepest)

    def _place(self, layer: int) -> str:
        return self.strip.describe(layer) if self.strip.cells else f"layer {layer}"
