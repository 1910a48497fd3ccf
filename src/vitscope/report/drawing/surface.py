"""A landscape as a surface that can be turned."""

from dataclasses import dataclass
from html import escape
from typing import final

import plotly.graph_objects as go
from matplotlib.axes import Axes
from typing_extensions import override

from vitscope.report.colour import scale, token
from vitscope.report.drawing.contour import direction, grid
from vitscope.report.drawing.drawing import AbstractDrawing, axis_words, break_lines, figure, numbers


@final
@dataclass(frozen=True)
class Surface(AbstractDrawing):
    """Axes: two directions. Positions cannot be compared on a surface, so the contour map comes first."""

    @property
    @override
    def name(self) -> str:
        return "surface"

    @property
    @override
    def over_depth(self) -> bool:
        return False

    @property
    def height(self) -> int:
        """The height of the contour map."""
        return 390

    @property
    @override
    def square(self) -> bool:
        return True

    @property
    def on_paper(self) -> bool:
        """False: the contour map is on paper."""
        return False

    @property
    @override
    def how_to_read(self) -> str:
        return "The same values as a surface: drag to turn it."

    @override
    def interactive(self) -> go.Figure:
        quantity, seen = self.quantities[0], grid(self.quantities[0])
        surface = {
            "type": "surface",
            "x": numbers(seen.x),
            "y": numbers(seen.y),
            "z": [numbers(row) for row in seen.heights],
            "colorscale": scale("ramp"),
            "showscale": False,
            "text": seen.texts,
            "hovertemplate": "%{text}<extra></extra>",
            "contours": {"z": {"show": True, "color": token("rule"), "width": 1}},
            "lighting": {"ambient": 0.9, "diffuse": 0.2, "specular": 0.0},
        }
        shown = figure([surface], {}, {})
        quiet = {"gridcolor": token("rule"), "backgroundcolor": "rgba(0,0,0,0)", "zeroline": False,
                 "showspikes": False, "tickfont": {"size": 11}}  # fmt: skip
        across, up = (escape(direction(quantity, dim)) for dim in quantity.dims)
        name = "<br>".join(map(escape, break_lines(axis_words(self.quantities), 24)))
        scene = {
            "xaxis": {**quiet, "title": {"text": across}, "nticks": 5},
            "yaxis": {**quiet, "title": {"text": up}, "nticks": 5},
            "zaxis": {**quiet, "title": {"text": name}, **seen.ticks},
            "camera": {"eye": {"x": 1.75, "y": -1.75, "z": 1.05}, "center": {"x": 0, "y": 0, "z": -0.12}},
            "dragmode": "turntable",
        }
        return shown.update_layout(scene=scene, margin={"l": 0, "r": 0, "t": 0, "b": 0}, dragmode=None)

    def paint(self, axes: Axes) -> None:
        """Draw nothing: it is not for paper."""
