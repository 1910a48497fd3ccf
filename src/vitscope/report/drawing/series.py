"""Several lines in one figure, distinguished by colour, dash and marker together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from numpy.typing import NDArray

from vitscope.report.axis import entries
from vitscope.report.colour import LIGHT, token
from vitscope.report.drawing.drawing import hover, numbers
from vitscope.report.drawing.reference import Reference
from vitscope.report.measured import MeasuredQuantity

COLOURS = 6
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "x", "star", "pentagon", "hexagon",
            "triangle-left", "triangle-right")  # fmt: skip
_MARKERS = ("o", "s", "D", "^", "P", "v", "X", "*", "p", "h", "<", ">")
MARKS: Mapping[str, str] = MappingProxyType(
    {
        "circle": "M13 6a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
        "square": "M13.5 2.5h7v7h-7z",
        "diamond": "M17 1l5 5l-5 5l-5-5z",
        "triangle-up": "M17 1.5l4.5 8h-9z",
        "cross": "M15.5 2h3v2.5h2.5v3h-2.5v2.5h-3v-2.5h-2.5v-3h2.5z",
        "triangle-down": "M17 10.5l4.5-8h-9z",
        "x": "M14 2l3 2.5l3-2.5l1.5 1.5l-2.5 2.5l2.5 2.5l-1.5 1.5l-3-2.5l-3 2.5l-1.5-1.5l2.5-2.5l-2.5-2.5z",
        "star": "M17 0l1.6 4h4.4l-3.5 2.7l1.3 4.3l-3.8-2.6l-3.8 2.6l1.3-4.3l-3.5-2.7h4.4z",
        "pentagon": "M17 1.5l4.8 3.5l-1.8 5.5h-6l-1.8-5.5z",
        "hexagon": "M13 3.5l4-2.3l4 2.3v5l-4 2.3l-4-2.3z",
        "triangle-left": "M12.5 6l8-4.5v9z",
        "triangle-right": "M21.5 6l-8-4.5v9z",
    }
)
"""The markers as paths around (17, 6), for keys outside a figure."""
_DASHES = ("solid", "dash")
_PAINTED_DASHES = ("-", "--")
_MOST_BANDS = 4
"""Most lines with error bands; more bands would hide one another, so errors are whiskers."""
_MOST_MARKERS = 40
_FAINTEST = 30
"""Place of the first of ordered lines on the colour ramp, in percent: it must still be visible."""


def css(name: str) -> str:
    """A colour's name as CSS; a place on the ramp between two stops is a mixture of them."""
    start, _, end = name.rpartition("-")
    if start != "ramp" or int(end) % 25 == 0:
        return token(name)
    low = int(end) // 25 * 25
    return f"color-mix(in srgb, {token(f'ramp-{low + 25}')} {(int(end) - low) * 4}%, {token(f'ramp-{low}')})"


@dataclass(frozen=True)
class Style:
    """How one line of several looks; ``shade`` is its place on the ramp in percent, if the lines have an order."""

    place: int
    shade: int | None = None

    @property
    def colour(self) -> str:
        """The palette's name of its colour."""
        return f"series-{self.place % COLOURS}" if self.shade is None else f"ramp-{self.shade}"

    @property
    def dash(self) -> str:
        """Plotly's name of its dash."""
        return _DASHES[self.place // COLOURS % 2] if self.shade is None else _DASHES[0]

    @property
    def symbol(self) -> str:
        """Plotly's name of its marker."""
        return _SYMBOLS[self.place % len(_SYMBOLS)]

    @property
    def matplotlib_style(self) -> tuple[str, str, str]:
        """Colour, dash and marker for matplotlib."""
        ramp = LinearSegmentedColormap.from_list("ramp", [LIGHT[f"ramp-{stop}"] for stop in (0, 25, 50, 75, 100)])
        colour = LIGHT[self.colour] if self.shade is None else to_hex(ramp(self.shade / 100))
        dash = _PAINTED_DASHES[_DASHES.index(self.dash)]
        return colour, dash, _MARKERS[self.place % len(_MARKERS)]


def styles(count: int, ordered: bool) -> tuple[Style, ...]:
    """Styles for ``count`` lines, from faint to strong if they have an order."""
    steps = np.linspace(_FAINTEST, 100, count).round().astype(int) if ordered else [None] * count
    return tuple(Style(place, None if step is None else int(step)) for place, step in enumerate(steps))


@dataclass(frozen=True)
class Series:
    """One line: the positions of its points, their values, and their hover texts."""

    label: str
    style: Style
    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    error: NDArray[np.float64]
    texts: tuple[str, ...]
    open: tuple[bool, ...] = ()
    """Which points are drawn hollow; none if empty."""
    predicted: bool = False
    """Whether it comes from theory: dashed, without markers."""

    @property
    def spread(self) -> NDArray[np.float64]:
        """The errors; 0 if there are none."""
        return np.nan_to_num(self.error)

    @property
    def marked(self) -> bool:
        """Whether its points have markers; a single point always has one."""
        return self.x.size == 1 or (self.x.size <= _MOST_MARKERS and not self.predicted)


def split(
    quantity: MeasuredQuantity, category: str, across: str, at: NDArray[np.float64], said: Sequence[str]
) -> list[Series]:
    """A quantity of two axes as a series for each entry of ``category``; ``at`` and ``said`` are of the other axis."""
    parts = [part.transpose(category, across).values for part in (quantity.mean, quantity.error, quantity.count)]
    ordered = bool(quantity.mean[category].attrs.get("ordered", False))
    names = entries(quantity.mean, category)
    kinds = _kinds(quantity, category, across)
    found: list[Series] = []
    for i, (name, style) in enumerate(zip(names, styles(len(names), ordered), strict=True)):
        known = np.isfinite(parts[0][i])
        texts = [hover(f"{name}, {at_}", quantity, m, e, n)
                 for at_, m, e, n in zip(said, parts[0][i], parts[1][i], parts[2][i], strict=True)]  # fmt: skip
        hollow = tuple(kind != "attention" for kind, one in zip(kinds[i], known, strict=True) if one) if kinds else ()
        mine = tuple(text for text, one in zip(texts, known, strict=True) if one)
        values = (at[known], parts[0][i][known], parts[1][i][known])
        found.append(Series(name, style, *values, mine, hollow, name in quantity.predicted_labels))
    return [one for one in found if one.x.size]


def _kinds(quantity: MeasuredQuantity, category: str, across: str) -> list[list[str]] | None:
    """The kinds of unit of the points, if they differ from line to line."""
    if "kind" not in quantity.mean.coords or set(quantity.mean["kind"].dims) != {category, across}:
        return None
    return quantity.mean["kind"].transpose(category, across).values.tolist()


def series_traces(series: Sequence[Series], layers: bool = False) -> list[dict[str, object]]:
    """Bands at the back, then the lines. If ``layers``, each point carries its layer, so the page can mark units."""
    measured = [one for one in series if not one.predicted]
    bands = [_band(one) for one in measured] if len(measured) <= _MOST_BANDS else []
    return [*bands, *(_line(one, not bands and not one.predicted, layers) for one in series)]


def _band(series: Series) -> dict[str, object]:
    low, high = series.mean - series.spread, series.mean + series.spread
    return {
        "type": "scatter",
        "x": numbers(np.concatenate([series.x, series.x[::-1]])),
        "y": numbers(np.concatenate([high, low[::-1]])),
        "mode": "lines",
        "line": {"width": 0, "color": token(series.style.colour)},
        "fill": "toself",
        "fillcolor": token(f"{series.style.colour}-faint"),
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _line(series: Series, whiskers: bool, layers: bool) -> dict[str, object]:
    colour = token(series.style.colour)
    symbol = series.style.symbol
    symbols = [f"{symbol}-open" if hollow else symbol for hollow in series.open] or symbol
    trace: dict[str, object] = {
        "type": "scatter",
        "name": series.label,
        "x": numbers(series.x),
        "y": numbers(series.mean),
        "mode": "lines+markers" if series.marked else "lines",
        "cliponaxis": False,
        "line": {"color": colour, "width": 1.5, "dash": "dash" if series.predicted else series.style.dash},
        "marker": {"size": 7, "symbol": symbols, "color": colour, "opacity": 1},
        "text": list(series.texts),
        "hovertemplate": "%{text}<extra></extra>",
    }
    if layers:
        trace["customdata"] = [int(at) for at in series.x]
    if whiskers:
        errors = {"array": numbers(series.spread), "color": colour, "thickness": 1, "width": 0}
        trace["error_y"] = {"type": "data", **errors}
    return trace


def paint_series(axes: Axes, series: Sequence[Series]) -> None:
    """Draw the lines with their errors on matplotlib axes."""
    bands = sum(not one.predicted for one in series) <= _MOST_BANDS
    for one in series:
        colour, dash, marker = one.style.matplotlib_style
        dash, size = "--" if one.predicted else dash, 2.5 if one.marked else 0.0
        fill = [colour if not hollow else "white" for hollow in one.open] or None
        axes.plot(one.x, one.mean, color=colour, linestyle=dash, linewidth=0.9, zorder=2)
        if size:
            axes.scatter(one.x, one.mean, s=size**2 * 1.3, marker=marker, facecolors=fill or [colour],
                         edgecolors=[colour], linewidths=0.6, zorder=3)  # fmt: skip
        axes.plot([], [], color=colour, linestyle=dash, linewidth=0.9, marker=marker, markersize=size, label=one.label)
        if one.predicted:
            continue
        if bands:
            axes.fill_between(one.x, one.mean - one.spread, one.mean + one.spread, color=colour, alpha=0.2, linewidth=0)
        else:
            axes.errorbar(one.x, one.mean, one.spread, fmt="none", ecolor=colour, elinewidth=0.5)


def legend_layout(shown: go.Figure, labels: Sequence[str], against: Reference | None, repeats: bool) -> dict[str, Any]:
    """A legend above a figure and its heading, with room for its rows; none if it would repeat the one above."""
    top = int(shown.layout.margin.t)
    named = [*labels, *([against.label] if against else [])]
    if repeats or len(named) < 2:
        return {"showlegend": False}
    longest = max(map(len, named))
    narrow, wide = (-(-len(named) // max(1, int(room // (48 + 6.6 * longest)))) for room in (270, 560))
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "yref": "container"}
    legend = {"orientation": "h", "font": {"size": 12}, **place}
    return {
        "showlegend": True,
        "legend": {**legend, "traceorder": "normal", "itemclick": False, "itemdoubleclick": False},
        "margin": {"t": top + 8 + 20 * narrow},
        "meta": {"wide_margin": top + 8 + 20 * wide},
    }
