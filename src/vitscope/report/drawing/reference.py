"""The value that a study's results are compared with: no change, or the value of the intact model."""

from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vitscope.report.colour import LIGHT, token
from vitscope.report.measured import MeasuredQuantity
from vitscope.report.number import with_error, with_unit


@dataclass(frozen=True)
class Reference:
    """A horizontal line and its label."""

    value: float
    label: str

    def trace(self, ends: tuple[float, float]) -> dict[str, object]:
        """The line from end to end, with a name for the legend."""
        line = {"color": token("soft"), "width": 1, "dash": "dash"}
        drawn = {"x": list(ends), "y": [self.value] * 2, "mode": "lines", "line": line, "name": escape(self.label)}
        return {"type": "scatter", "hoverinfo": "skip", "cliponaxis": False, **drawn}

    def note(self) -> dict[str, object]:
        """A note on the line above the figure at the right, away from the data; for a figure without a legend."""
        place = {"xref": "paper", "yref": "paper", "x": 1, "y": 1, "xanchor": "right", "yanchor": "bottom"}
        words = {"text": f"dashed: {escape(self.label)}", "showarrow": False, "font": {"size": 12}}
        return {**place, **words, "yshift": 4}

    def paint(self, axes: Axes) -> None:
        """Draw the line and its label on matplotlib axes."""
        axes.axhline(self.value, color=LIGHT["soft"], linewidth=0.7, linestyle="--", zorder=1)
        axes.annotate(self.label, (1.0, self.value), xytext=(-1, 1.5), ha="right", va="bottom",
                      color=LIGHT["soft"], fontsize=6, xycoords=("axes fraction", "data"),
                      textcoords="offset points")  # fmt: skip


def visible_values(values: NDArray[np.float64], against: Reference | None) -> NDArray[np.float64]:
    """The values that the vertical axis must include: those drawn, and the reference value."""
    return values if against is None else np.append(values, against.value)


def reference(quantity: MeasuredQuantity) -> Reference | None:
    """Zero for a change, the intact value for a study's quantity; None if there is no single such value."""
    intact = quantity.intact
    known = intact is not None and not intact.dims and bool(np.isfinite(intact.mean.item()))
    value = intact.mean.item() if intact is not None and known else float("nan")
    shown = f"intact, {with_unit(with_error(value, intact.error.item()), quantity.unit)}" if known and intact else ""
    if quantity.is_change:
        return Reference(0.0, f"no change ({shown})" if known else "no change")
    return Reference(value, shown) if known else None
