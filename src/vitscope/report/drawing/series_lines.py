"""One line over an axis of numbers for each entry of an axis of names."""

from dataclasses import dataclass
from typing import final

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from typing_extensions import override

from vitscope.report.axis import axis_name, entries, is_categorical, places
from vitscope.report.drawing.drawing import (
    AbstractDrawing,
    axis_words,
    coordinate_axis,
    figure,
    set_coordinate_axis,
    set_vertical,
    vertical,
)
from vitscope.report.drawing.reference import reference, visible_values
from vitscope.report.drawing.series import Series, legend_layout, paint_series, series_traces, split


@final
@dataclass(frozen=True)
class SeriesLines(AbstractDrawing):
    """Axes: one of numbers, such as ``keep``, and one of names, such as ``ranking``; or ``run`` and names."""

    @property
    @override
    def name(self) -> str:
        return ""

    @property
    @override
    def over_depth(self) -> bool:
        return False

    @property
    @override
    def how_to_read(self) -> str:
        values = self.quantities[0].mean
        hollow = (
            " Filled markers: attention; hollow ones: other units." if any(one.open for one in self._series) else ""
        )
        dashed = " Dashed, without markers: predicted." if any(one.predicted for one in self._series) else ""
        missing = self.quantities[0].missing
        gaps = f" Where a line has no point: {missing}." if missing and bool(values.isnull().any()) else ""
        return f"Lines: {axis_name(values, self._category)}. Errors: ± 1 standard error.{hollow}{dashed}{gaps}"

    @property
    def _category(self) -> str:
        """The axis of names; ``run`` before any other."""
        values = self.quantities[0].mean
        axis_words = [dim for dim in self.quantities[0].dims if is_categorical(values, dim)]
        return "run" if "run" in axis_words else axis_words[0]

    @property
    def _across(self) -> str:
        return next(dim for dim in self.quantities[0].dims if dim != self._category)

    @property
    def _series(self) -> list[Series]:
        quantity, across = self.quantities[0], self._across
        said = [f"{axis_name(quantity.mean, across)} {entry}" for entry in entries(quantity.mean, across)]
        return split(quantity, self._category, across, places(quantity.mean, across), said)

    @override
    def interactive(self) -> go.Figure:
        quantity, series = self.quantities[0], self._series
        against, x = reference(quantity), places(quantity.mean, self._across)
        lowest = np.concatenate([one.mean - one.spread for one in series])
        traces = series_traces(series)
        if is_categorical(quantity.mean, self._across):
            traces = [{**trace, "mode": "markers"} for trace in traces if "fill" not in trace]
        ends = (float(x.min()), float(x.max()))
        shown = figure(
            [*([against.trace(ends)] if against else []), *traces],
            coordinate_axis(quantity.mean, self._across),
            vertical(visible_values(lowest, against), quantity.limits),
            axis_words(self.quantities),
        )
        return shown.update_layout(
            hovermode="closest", **legend_layout(shown, [one.label for one in series], against, quantity.repeats)
        )

    @override
    def paint(self, axes: Axes) -> None:
        quantity, series = self.quantities[0], self._series
        against = reference(quantity)
        if against:
            against.paint(axes)
        paint_series(axes, series)
        set_vertical(axes, visible_values(np.concatenate([one.mean - one.spread for one in series]), against))
        set_coordinate_axis(axes, quantity.mean, self._across)
        axes.legend(frameon=False, fontsize=6, ncols=2)
