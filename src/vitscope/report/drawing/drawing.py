"""What a drawing is, and what all drawings share: margins, fonts, hover text."""

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import takewhile
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitscope.report.axis import axis_title, entries, is_categorical, is_logarithmic, places, shorten
from vitscope.report.colour import token
from vitscope.report.measured import MeasuredQuantity

MARGIN_LEFT = 52
MARGIN_RIGHT = 14
MARGIN_TOP = 26
"""Margins of every figure over depth and of the strip, so that their units line up."""
MARGIN_BAR = 22
"""Extra top margin for a colour bar above a map."""
_LINE = 15
"""Height in pixels of a line of text above a figure."""
_LONGEST_HEADING, _LONGEST_LINE = 50, 26
"""Most characters of a line above a figure on the page, and beside the vertical axis of one for a paper."""
_SMALL_WORDS = ("a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "per", "the", "to", "/", "-")
_LOG_SPAN = 50.0
_FEW_DECADES = 2.2
_MOST_INTEGERS = 12
_MOST_FACTORS = 12
"""Up to so many entries of a logarithmic axis are all labelled; with more, powers of ten are."""

COLOUR_BAR = {
    "orientation": "h",
    "x": 1,
    "xanchor": "right",
    "y": 1.0,
    "ypad": 4,
    "yanchor": "bottom",
    "thickness": 8,
    "len": 0.45,
    "outlinewidth": 0,
    "nticks": 4,
}
"""The bar is above the map, so that the map keeps the width of the strip."""


@dataclass(frozen=True)
class AbstractDrawing(ABC):
    """A picture of one or more quantities that share their axes."""

    quantities: tuple[MeasuredQuantity, ...]

    @property
    @abstractmethod
    def name(self) -> str:
        """What distinguishes its file from other drawings of the same quantity; empty for the only one."""

    @property
    def file(self) -> str:
        """The name of its file, without suffix: the diagnostic, all the quantities it shows, and :attr:`name`."""
        names = [quantity.name for quantity in self.quantities]
        return "-".join(filter(None, (self.quantities[0].diagnostic, *names, self.name)))

    @property
    @abstractmethod
    def over_depth(self) -> bool:
        """Whether its horizontal axis is the strip."""

    @property
    def height(self) -> int:
        """Its height on the page in pixels; 0 if the page decides."""
        return 0

    @property
    def square(self) -> bool:
        """Whether it is about as wide as high, so that two fit side by side."""
        return False

    @property
    def on_paper(self) -> bool:
        """Whether it is also drawn for a paper."""
        return True

    @property
    @abstractmethod
    def how_to_read(self) -> str:
        """What lines, dots and colours mean, in a sentence or two."""

    @abstractmethod
    def interactive(self) -> go.Figure:
        """The figure for the page. Colours are CSS variables, all text is escaped."""

    @abstractmethod
    def paint(self, axes: Axes) -> None:
        """Draw the figure for a paper on matplotlib axes."""


def figure(
    traces: Sequence[object],
    x: Mapping[str, object],
    y: Mapping[str, object],
    above: str = "",
    aside: Mapping[str, object] | None = None,
) -> go.Figure:
    """A plotly figure in the page's style.

    ``above`` is the title of the vertical axis, with its unit, and is set above it; a note ``aside`` gets its own line
    below that, at the right.
    """
    lines = [escape(line) for line in break_lines(above, _LONGEST_HEADING)]
    more = _LINE * (max(len(lines) - 1, 0) + (aside is not None))
    heading = _note("<br>".join(lines), 0, 1, "left", "bottom", 8 + _LINE * (aside is not None), -MARGIN_LEFT + 8)
    quiet = {"showgrid": False, "zeroline": False, "fixedrange": True, "ticks": "", "linecolor": token("rule")}
    return go.Figure(
        data=list(traces),
        layout={
            "template": {},
            "autosize": True,
            "margin": {"l": MARGIN_LEFT, "r": MARGIN_RIGHT, "t": MARGIN_TOP + more, "b": 42},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": token("soft")},
            "dragmode": False,
            "showlegend": False,
            "hoverlabel": {
                "bgcolor": token("panel"),
                "bordercolor": token("rule"),
                "font": {"color": token("ink"), "size": 12, "family": "system-ui, sans-serif"},
                "align": "left",
            },
            "xaxis": {**quiet, **x},
            "yaxis": {**quiet, "showgrid": True, "gridcolor": token("rule"), "gridwidth": 1, "nticks": 6, **y},
            "annotations": [*([{**heading, "align": "left"}] if lines else []), *([aside] if aside else [])],
        },
    )


def below_bar(shown: go.Figure) -> dict[str, Any]:
    """The layout that puts a figure's heading above its colour bar."""
    heading = shown.layout.annotations[0]
    return {
        "margin": {"t": int(shown.layout.margin.t) + MARGIN_BAR},
        "annotations": [heading.update(yshift=heading.yshift + MARGIN_BAR).to_plotly_json()],
    }


def depth_axis(ticks: Sequence[tuple[float, str]], bounds: tuple[float, float]) -> dict[str, object]:
    """The horizontal axis of every figure over depth."""
    return {
        "range": list(bounds),
        "tickmode": "array",
        "tickvals": [at for at, _ in ticks],
        "ticktext": [escape(text) for _, text in ticks],
        "tickangle": 0,
        "ticklabelstandoff": 12,
    }


def coordinate_axis(values: xr.DataArray, dim: str) -> dict[str, object]:
    """A horizontal axis that is not depth: its title with its unit, and its entries if they are names."""
    axis: dict[str, object] = {"title": {"text": escape(axis_title(values, dim)), "standoff": 6}}
    if is_categorical(values, dim):
        names = [escape(shorten(name)) for name in entries(values, dim)]
        axis |= {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names, "automargin": True}
        axis["range"] = [-0.5, len(names) - 0.5]
    elif dim in values.coords and np.issubdtype(values[dim].dtype, np.integer):
        axis["tickformat"] = "d"
        if np.ptp(values[dim].values) <= _MOST_INTEGERS:
            axis["dtick"] = 1
    if is_logarithmic(values, dim):
        axis |= {"type": "log", **_factors(values, dim)}
    if dim in values.coords and "range" in values[dim].attrs:
        axis["range"] = list(values[dim].attrs["range"])
    return axis


def _factors(values: xr.DataArray, dim: str) -> dict[str, object]:
    """The ticks of a logarithmic axis."""
    if values.sizes[dim] > _MOST_FACTORS:
        return {"tickformat": "~g", "dtick": 1}
    ticks = {"tickvals": numbers(places(values, dim)), "ticktext": entries(values, dim)}
    return {"tickmode": "array", **ticks, "dtick": None}


def set_coordinate_axis(axes: Axes, values: xr.DataArray, dim: str) -> None:
    """Set up such an axis on matplotlib axes."""
    axes.set_xlabel(axis_title(values, dim))
    if is_logarithmic(values, dim):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if values.sizes[dim] <= _MOST_FACTORS:
            axes.set_xticks(places(values, dim), entries(values, dim))
            axes.xaxis.set_minor_formatter(lambda value, _: "")
    if is_categorical(values, dim):
        names = [shorten(name) for name in entries(values, dim)]
        axes.set_xticks(range(len(names)), names, rotation=0 if len(names) < 5 else 60, ha="center")
    elif dim in values.coords and np.issubdtype(values[dim].dtype, np.integer) and not is_logarithmic(values, dim):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def axis_note(text: str) -> dict[str, object]:
    """The name of the horizontal axis, in the left margin beside its labels."""
    return _note(escape(text), 0, 0, "right", "top", -13, -8)


def _note(text: str, x: int, y: int, xanchor: str, yanchor: str, up: int, right: int) -> dict[str, object]:
    place = {"xref": "paper", "yref": "paper", "x": x, "y": y, "xanchor": xanchor, "yanchor": yanchor}
    return {**place, "yshift": up, "xshift": right, "text": text, "showarrow": False, "font": {"size": 12}}


def axis_words(quantities: Sequence[MeasuredQuantity]) -> str:
    """What an axis shows, with its unit; for several quantities, the words that their names share."""
    labels = [quantity.label for quantity in quantities]
    name, unit = _shared_words(labels) if len(labels) > 1 else labels[0], quantities[0].unit
    return name if unit == "1" else f"{name} ({unit})"


def _shared_words(labels: Sequence[str]) -> str:
    """The words with which all names begin, or else end."""
    words = [[word.strip(",") for word in label.split()] for label in labels]
    name = " ".join(_common(words) or _common([one[::-1] for one in words])[::-1]) or "value"
    return name[:1].upper() + name[1:]


def _common(words: Sequence[Sequence[str]]) -> list[str]:
    """The words with which all begin, without small words at the end."""
    first = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))]
    while first and first[-1] in _SMALL_WORDS:
        first.pop()
    return first


def break_lines(text: str, longest: int) -> list[str]:
    """The text in the fewest lines of at most ``longest`` characters, as even as possible."""
    fitting = [textwrap.wrap(text, width, break_on_hyphens=False) for width in range(1, longest + 1)]
    return next(lines for lines in fitting if len(lines) == len(fitting[-1]))


def scale_type(values: NDArray[np.float64]) -> str:
    """``log`` if all values are positive and span more than a factor of 50, otherwise ``linear``."""
    finite = values[np.isfinite(values)]
    return "log" if finite.size and finite.min() > 0 and finite.max() > _LOG_SPAN * finite.min() else "linear"


def vertical(values: NDArray[np.float64], limits: tuple[float, float] | None = None) -> dict[str, object]:
    """The vertical axis for these values: logarithmic if they span more than a factor of 50.

    ``limits`` are the ends of an axis that several figures share.
    """
    if limits is not None:
        log = scale_type(np.asarray(limits)) == "log" and scale_type(np.append(values, limits)) == "log"
        low, high = np.log10(limits) if log else limits
        room = 0.06 * (high - low) or 1.0
        return {"type": "log" if log else "linear", "range": [float(low - room), float(high + room)]}
    finite = values[np.isfinite(values)]
    if scale_type(values) == "linear":
        return {"type": "linear", "rangemode": "nonnegative" if (finite >= 0).all() else "normal"}
    decades = np.log10(finite.max() / finite.min())
    step = "D2" if decades < _FEW_DECADES else int(np.ceil(decades / 5))
    return {"type": "log", "tickformat": "~g", "dtick": step}


def set_vertical(axes: Axes, values: NDArray[np.float64]) -> None:
    """Set the vertical scale for these values on matplotlib axes, with plain numbers."""
    if scale_type(values) == "log":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: "")


def colours_of(quantity: MeasuredQuantity, values: NDArray[np.float64]) -> tuple[str, float | None]:
    """The colour scale: two-sided about 0 for changes, and if values lie on both sides of 0."""
    low, high = quantity.limits or (float(np.nanmin(values)), float(np.nanmax(values)))
    return ("both", 0.0) if quantity.is_change or low < 0 < high else ("ramp", None)


def break_axis_words(quantities: Sequence[MeasuredQuantity]) -> str:
    """The words of :func:`axis_words` for the vertical axis of a figure for a paper, broken if they are long."""
    return "\n".join(break_lines(axis_words(quantities), _LONGEST_LINE))


def numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Values for JSON: eight significant digits, None for a value that is not finite."""
    return [float(f"{value:.8g}") if np.isfinite(value) else None for value in values]


def hover(title: str, quantity: MeasuredQuantity, mean: float, error: float, count: float) -> str:
    """The text beside a point, safe as HTML."""
    samples = f"<br>n = {int(count):,}" if count > 0 else ""
    return f"{escape(title)}<br><b>{escape(quantity.text(float(mean), float(error)))}</b>{samples}"


def band(x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> dict[str, object]:
    """A trace that fills the area between two curves."""
    known = np.isfinite(low) & np.isfinite(high)
    around = np.concatenate([x[known], x[known][::-1]])
    edge = np.concatenate([high[known], low[known][::-1]])
    return {
        "type": "scatter",
        "x": numbers(around),
        "y": numbers(edge),
        "mode": "lines",
        "line": {"width": 0},
        "fill": "toself",
        "fillcolor": token("band"),
        "hoverinfo": "skip",
    }
