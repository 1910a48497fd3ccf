"""One line over depth for each of a few settings, models or moments."""

from dataclasses import dataclass
from typing import final

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from typing_extensions import override

from vitscope.report.axis import axis_name
from vitscope.report.drawing.drawing import (
    AbstractDrawing,
    axis_note,
    axis_words,
    depth_axis,
    figure,
    set_vertical,
    vertical,
)
from vitscope.report.drawing.reference import reference, visible_values
from vitscope.report.drawing.series import Series, legend_layout, paint_series, series_traces, split
from vitscope.report.strip import Strip


@final
@dataclass(frozen=True)
class DepthLines(AbstractDrawing):
    """Axes: ``layer`` and one of names, such as ``ranking`` or ``run``."""

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
    def _category(self) -> str:
        return next(dim for dim in self.quantities[0].dims if dim != "layer")

    @property
    @override
    def how_to_read(self) -> str:
        return f"Lines: {axis_name(self.quantities[0].mean, self._category)}. Errors: ± 1 standard error."

    @property
    def _series(self) -> list[Series]:
        quantity = self.quantities[0]
        layers = quantity.mean["layer"].values.astype(np.float64)
        return split(quantity, self._category, "layer", layers, [self.strip.describe(int(i)) for i in layers])

    @override
    def interactive(self) -> go.Figure:
        quantity, series = self.quantities[0], self._series
        against = reference(quantity)
        lowest = np.concatenate([one.mean - one.spread for one in series])
        shown = figure(
            [*([against.trace(self.strip.bounds)] if against else []), *series_traces(series, layers=True)],
            depth_axis(self.strip.ticks, self.strip.bounds),
            vertical(visible_values(lowest, against), quantity.limits),
            axis_words(self.quantities),
        )
        shown.update_layout(
            hovermode="closest",
            shapes=self.strip.shapes(),
            **legend_layout(shown, [one.label for one in series], against, quantity.repeats),
        )
        return shown.add_annotation(axis_note(self.strip.division))

    @override
    def paint(self, axes: Axes) -> None:
        series, against = self._series, reference(self.quantities[0])
        if against:
            against.paint(axes)
        paint_series(axes, series)
        set_vertical(axes, visible_values(np.concatenate([one.mean - one.spread for one in series]), against))
        self.strip.paint(axes)
        axes.legend(frameon=False, fontsize=6, ncols=2)
