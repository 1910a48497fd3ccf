"""Many values of one kind: their distribution, with a stroke for each, in two colours for the two signs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import final

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from numpy.typing import NDArray
from typing_extensions import override

from vitscope.report.axis import axis_name, entries
from vitscope.report.colour import LIGHT, token
from vitscope.report.drawing.drawing import AbstractDrawing, axis_words, figure, hover, numbers
from vitscope.report.measured import MeasuredQuantity
from vitscope.report.number import amount, plain

_BINS = 36
_ROW, _MARGINS = 118, 84
"""Heights in pixels: a quantity's strip, and the margins above and below all strips."""
_TALLEST, _RUG = 0.58, -0.08
"""In units of a strip's height: the highest bar, and the place of the strokes."""
_SPAN = 50.0
_SIGNS = (("negative", "series-1"), ("positive", "series-0"))


@dataclass(frozen=True)
class Warp:
    """The horizontal axis: linear, or linear within ``threshold`` of zero and logarithmic beyond, on both sides."""

    threshold: float | None

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The positions of values."""
        if self.threshold is None:
            return values
        return np.sign(values) * np.log10(1 + np.abs(values) / self.threshold)

    def back(self, at: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values at positions."""
        if self.threshold is None:
            return at
        return np.sign(at) * self.threshold * (10.0 ** np.abs(at) - 1)

    def ticks(self, values: NDArray[np.float64]) -> list[float]:
        """Powers of ten on either side of zero, about nine at most."""
        if self.threshold is None:
            return []
        top = int(np.floor(np.log10(np.abs(values).max())))
        low = round(np.log10(self.threshold))
        step = max(1, -(-(top - low + 1) // 4))
        powers = [10.0**power for power in range(top, low - 1, -step)][::-1]
        marks = [*(-power for power in reversed(powers)), 0.0, *powers]
        return [mark for mark in marks if values.min() * 1.2 <= mark <= values.max() * 1.2 or mark == 0]


def warp(values: NDArray[np.float64]) -> Warp:
    """The axis for these values: linear unless the upper 90 % of their sizes span more than a factor of 50."""
    sizes = np.abs(values[values != 0])
    if sizes.size < 2 or sizes.max() <= _SPAN * np.quantile(sizes, 0.1):
        return Warp(None)
    lowest = max(float(np.quantile(sizes, 0.1)), float(sizes.max()) * 1e-6)
    return Warp(float(10.0 ** np.floor(np.log10(lowest))))


@final
@dataclass(frozen=True)
class Distribution(AbstractDrawing):
    """Axes: ``minibatch``, and perhaps ``rank``. One strip per quantity, above one another on a shared axis."""

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
    def height(self) -> int:
        return _ROW * len(self.quantities) + _MARGINS

    @property
    @override
    def how_to_read(self) -> str:
        axis = "" if self._warp.threshold is None else " The axis is logarithmic on both sides of zero."
        labels = _labels(self.quantities)
        axis_words = labels if len(labels) > 1 else [""]
        shares = ", ".join(_signs(quantity, name) for quantity, name in zip(self.quantities, axis_words, strict=True))
        beside = {str(quantity.error.attrs.get("long_name", "standard error")) for quantity in self.quantities}
        error = f" After ±: its {' or '.join(sorted(beside))}." if any(map(_has_errors, self.quantities)) else ""
        return f"A stroke: one value.{error} Bars: how many values lie there. Negative: {shares}.{axis}"

    @property
    def _warp(self) -> Warp:
        return warp(self._all)

    @property
    def _all(self) -> NDArray[np.float64]:
        return np.concatenate([_known_values(quantity.mean.values) for quantity in self.quantities])

    def _edges(self) -> NDArray[np.float64]:
        """The edges of the bars on the warped axis; one edge is at zero, so that no bar holds both signs."""
        at = self._warp(self._all)
        low, high = min(float(at.min()), 0.0), max(float(at.max()), 0.0)
        if float(at.min()) > 0.5 * high or float(at.max()) < 0.5 * low:
            low, high = float(at.min()), float(at.max())  # zero is far away
        width = (high - low) / _BINS or 1.0
        start, stop = int(np.floor(low / width + 1e-9)), int(np.ceil(high / width - 1e-9))
        return np.arange(start, max(stop, start + 1) + 1, dtype=np.float64) * width

    def interactive(self) -> go.Figure:
        """The strips, the first quantity on top."""
        edges, change = self._edges(), self._warp
        rows = list(enumerate(reversed(self.quantities)))
        traces = [trace for row, quantity in rows for trace in self._strip(row, quantity, edges)]
        marks = change.ticks(self._all)
        horizontal: dict[str, object] = {"range": [edges[0] - 0.02 * np.ptp(edges), edges[-1] + 0.02 * np.ptp(edges)]}
        if marks:
            horizontal |= {"tickmode": "array", "tickvals": numbers(change(np.asarray(marks))),
                           "ticktext": [f"{mark:g}".replace("-", "−") for mark in marks], "tickangle": 0}  # fmt: skip
        vertical = {"range": [-0.2, len(rows)], "showticklabels": False, "showgrid": False}
        horizontal["title"] = {"text": escape(axis_words(self.quantities)), "standoff": 6}
        shown = figure(traces, horizontal, vertical)
        for (row, _), label in zip(rows, reversed(_labels(self.quantities)), strict=True) if len(rows) > 1 else []:
            shown.add_annotation(_label(label, row + 0.84))
        zero = {"color": token("soft"), "width": 1, "dash": "dot"}
        if edges[0] < 0 < edges[-1]:
            shown.add_shape(type="line", yref="paper", x0=0, x1=0, y0=0, y1=1, line=zero, layer="below")
        return shown.update_layout(hovermode="closest", bargap=0, barmode="overlay")

    def _strip(self, row: int, quantity: MeasuredQuantity, edges: NDArray[np.float64]) -> list[Mapping[str, object]]:
        change = self._warp
        values, texts = _describe_values(quantity)
        counts, _ = np.histogram(change(values), edges)
        traces: list[Mapping[str, object]] = []
        for name, colour in _SIGNS:
            mine = (values < 0) == (name == "negative")
            bars = ((edges[:-1] < -1e-12) == (name == "negative")) & (counts > 0)
            ends = change.back(edges)
            texts_of = [f"{escape(quantity.label)}<br>from {plain(a)} to {plain(b)}<br><b>{count} of {values.size}</b>"
                        for a, b, count in zip(ends[:-1][bars], ends[1:][bars], counts[bars], strict=True)]  # fmt: skip
            traces += [
                {"type": "bar", "x": numbers((edges[:-1] + edges[1:])[bars] / 2), "width": float(edges[1] - edges[0]),
                 "y": numbers(counts[bars] / max(counts.max(), 1) * _TALLEST), "base": row,
                 "marker": {"color": token(f"{colour}-faint"), "line": {"color": token(colour), "width": 1}},
                 "text": texts_of, "textposition": "none", "hovertemplate": "%{text}<extra></extra>"},
                {"type": "scatter", "x": numbers(change(values[mine])), "y": [row + _RUG] * int(mine.sum()),
                 "mode": "markers", "marker": {"symbol": "line-ns-open", "size": 9, "color": token(colour),
                                               "opacity": 0.7, "line": {"width": 1}},
                 "text": [text for text, one in zip(texts, mine, strict=True) if one],
                 "hovertemplate": "%{text}<extra></extra>"},
            ]  # fmt: skip
        return traces

    @override
    def paint(self, axes: Axes) -> None:
        edges, change = self._edges(), self._warp
        for row, quantity in enumerate(reversed(self.quantities)):
            values, _ = _describe_values(quantity)
            counts, _ = np.histogram(change(values), edges)
            heights = counts / max(counts.max(), 1) * _TALLEST
            for name, colour in _SIGNS:
                bars, mine = (edges[:-1] < -1e-12) == (name == "negative"), (values < 0) == (name == "negative")
                axes.bar(edges[:-1][bars], heights[bars], np.diff(edges)[bars], bottom=row, align="edge",
                         color=LIGHT[colour], alpha=0.35)  # fmt: skip
                axes.plot(change(values[mine]), np.full(int(mine.sum()), row + _RUG), "|", color=LIGHT[colour],
                          markersize=4, markeredgewidth=0.5)  # fmt: skip
            if len(self.quantities) > 1:
                label = _labels(self.quantities)[-1 - row]
                axes.text(0.0, row + 0.7, label, transform=axes.get_yaxis_transform(), fontsize=6)
        marks = change.ticks(self._all)
        if marks:
            axes.set_xticks(change(np.asarray(marks)).tolist(), [f"{mark:g}" for mark in marks])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.set_xlabel(axis_words(self.quantities))
        axes.set_ylabel("")
        axes.set_ylim(-0.2, len(self.quantities))
        axes.spines["left"].set_visible(False)


def _known_values(values: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = values.astype(np.float64).ravel()
    return flat[np.isfinite(flat)]


def _describe_values(quantity: MeasuredQuantity) -> tuple[NDArray[np.float64], list[str]]:
    """The known values, and a hover text for each."""
    labels = [f"{axis_name(quantity.mean, dim)} %s" for dim in quantity.dims]
    axis_words = [entries(quantity.mean, dim) for dim in quantity.dims]
    values, texts = [], []
    for index, value in np.ndenumerate(quantity.mean.values):
        if np.isfinite(value):
            where = ", ".join(label % names[i] for label, names, i in zip(labels, axis_words, index, strict=True))
            error = float(quantity.error.values[index])
            texts.append(hover(f"{quantity.label}, {where}", quantity, float(value), error, 0.0))
            values.append(float(value))
    return np.asarray(values, dtype=np.float64), texts


def _has_errors(quantity: MeasuredQuantity) -> bool:
    return bool(np.isfinite(quantity.error.values).any())


def _signs(quantity: MeasuredQuantity, name: str) -> str:
    values = _known_values(quantity.mean.values)
    which = f" ({name})" if name else ""
    return f"{amount(int((values < 0).sum()))} of {amount(values.size)}{which}"


def _labels(quantities: Sequence[MeasuredQuantity]) -> list[str]:
    """The strips' names, without the parts that all of them begin or end with."""
    parts = [(one.entry or one.label).split(", ") for one in quantities]
    while len(parts) > 1 and all(len(part) > 1 for part in parts) and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    while len(parts) > 1 and all(len(part) > 1 for part in parts) and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return [", ".join(part) for part in parts]


def _label(text: str, at: float) -> dict[str, object]:
    place = {"xref": "paper", "x": 0, "xanchor": "left", "y": at, "yanchor": "top"}
    return {**place, "text": escape(text), "showarrow": False, "font": {"size": 12, "color": token("ink")}}
