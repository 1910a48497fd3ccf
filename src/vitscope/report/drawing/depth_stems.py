"""One value for each unit that was changed on its own: a stem over depth, from the reference value."""

from dataclasses import dataclass
from typing import final

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from numpy.typing import NDArray
from typing_extensions import override

from vitscope.report.axis import axis_name
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
from vitscope.report.strip import Strip


@final
@dataclass(frozen=True)
class DepthStems(AbstractDrawing):
    """Axes: one over units that is not ``layer``, such as ``lesion``. A unit that was not changed has no stem.

    The entries are not a path through the model, so no line joins them.
    """

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
        quantity = self.quantities[0]
        what = "change" if quantity.is_change else "mean"
        stems = " Dashed: the intact model." if reference(quantity) else ""
        return (
            f"A point: the {what} for one {axis_name(quantity.mean, 'layer')}, in the unit's colour; units that were "
            f"not changed have none. Whisker: ± 1 standard error.{stems}"
        )

    @property
    def _parts(self) -> tuple[NDArray[np.float64], ...]:
        quantity = self.quantities[0]
        parts = (quantity.mean["layer"], quantity.mean, quantity.error, quantity.count)
        return tuple(part.values.astype(np.float64)[np.isfinite(quantity.mean.values)] for part in parts)

    def interactive(self) -> go.Figure:
        """The reference line, the stems from it, and the points."""
        quantity = self.quantities[0]
        x, mean, error, count = self._parts
        against = reference(quantity)
        texts = [
            hover(self.strip.describe(int(i)), quantity, m, e, n)
            for i, m, e, n in zip(x, mean, error, count, strict=True)
        ]
        points = {
            "type": "scatter",
            "x": numbers(x),
            "y": numbers(mean),
            "mode": "markers",
            "cliponaxis": False,
            "marker": {"size": 8, "color": kind_tokens([self.strip.cells[int(i)].kind for i in x]), "opacity": 1},
            "error_y": {"type": "data", "array": numbers(np.nan_to_num(error)), "color": token("ink"), "width": 0,
                        "thickness": 1.2},
            "text": texts,
            "hovertemplate": "%{text}<extra></extra>",
        }  # fmt: skip
        lines = [against.trace(self.strip.bounds), self._stems(x, mean, against.value)] if against else []
        shown = figure(
            [*lines, points],
            depth_axis(self.strip.ticks, self.strip.bounds),
            vertical(visible_values(mean - np.nan_to_num(error), against), quantity.limits),
            axis_words(self.quantities),
            against.note() if against else None,
        )
        shown.update_layout(hovermode="x", shapes=self.strip.shapes())
        return shown.add_annotation(axis_note(self.strip.division))

    def _stems(self, x: NDArray[np.float64], mean: NDArray[np.float64], start: float) -> dict[str, object]:
        at = np.stack([x, x, np.full_like(x, np.nan)], axis=1).ravel()
        up = np.stack([np.full_like(mean, start), mean, np.full_like(x, np.nan)], axis=1).ravel()
        line = {"color": token("line"), "width": 1}
        return {"type": "scatter", "x": numbers(at), "y": numbers(up), "mode": "lines", "line": line,
                "hoverinfo": "skip", "cliponaxis": False}  # fmt: skip

    @override
    def paint(self, axes: Axes) -> None:
        x, mean, error, _ = self._parts
        against = reference(self.quantities[0])
        if against:
            against.paint(axes)
            axes.vlines(x, against.value, mean, color=LIGHT["line"], linewidth=0.6, zorder=1)
        colours = [LIGHT[self.strip.cells[int(i)].colour] for i in x]
        axes.errorbar(x, mean, np.nan_to_num(error), fmt="none", ecolor=LIGHT["ink"], elinewidth=0.6, zorder=2)
        axes.scatter(x, mean, c=colours, s=9, zorder=3, linewidth=0)
        set_vertical(axes, visible_values(mean - np.nan_to_num(error), against))
        self.strip.paint(axes)
