"""Which drawing a quantity gets: its axes decide, never its name."""

from collections.abc import Sequence
from dataclasses import replace

from vitscope.report.drawing.coordinate_lines import CoordinateLines
from vitscope.report.drawing.curve_family import CurveFamily
from vitscope.report.drawing.depth_dots import DepthDots
from vitscope.report.drawing.depth_line import DepthLine
from vitscope.report.drawing.drawing import AbstractDrawing
from vitscope.report.drawing.heat_map import HeatMap
from vitscope.report.measured import Measured
from vitscope.report.strip import Strip

_MOST_MULTIPLES = 12


def drawings(quantities: Sequence[Measured], strip: Strip) -> tuple[tuple[AbstractDrawing, ...], ...]:
    """The drawings of a diagnostic's quantities, in groups that belong together; numbers without an axis have none.

    ``layer``: a line over depth. ``layer, head``: dots over depth. ``layer`` and another axis: a heat map over depth
    and the curves. One other axis: lines, the quantities of one axis and unit in one figure. Three axes: one drawing
    for each of the first dozen entries of the last.
    """
    groups: list[tuple[AbstractDrawing, ...]] = []
    drawn: set[str] = set()
    for quantity in quantities:
        if not quantity.dims or quantity.name in drawn:
            continue
        together = (quantity,) if _over_depth(quantity, strip) else _companions(quantity, quantities)
        drawn |= {one.name for one in together}
        groups.append(_drawn(together, strip))
    return tuple(groups)


def _drawn(quantities: tuple[Measured, ...], strip: Strip) -> tuple[AbstractDrawing, ...]:
    quantity = quantities[0]
    if len(quantity.dims) > 2:
        return tuple(drawing for slice_ in _slices(quantity) for drawing in _drawn((slice_,), strip))
    if len(quantity.dims) == 2:
        if not _over_depth(quantity, strip):
            return (HeatMap(quantities, strip),)
        if "head" in quantity.dims:
            return (DepthDots(quantities, strip),)
        return HeatMap(quantities, strip), CurveFamily(quantities, strip)
    return (DepthLine(quantities, strip),) if _over_depth(quantity, strip) else (CoordinateLines(quantities),)


def _over_depth(quantity: Measured, strip: Strip) -> bool:
    return "layer" in quantity.dims and bool(strip.cells)


def _companions(quantity: Measured, quantities: Sequence[Measured]) -> tuple[Measured, ...]:
    """Those of the same single axis and unit."""
    if len(quantity.dims) > 1:
        return (quantity,)
    return tuple(one for one in quantities if one.dims == quantity.dims and one.unit == quantity.unit)


def _slices(quantity: Measured) -> list[Measured]:
    last = quantity.dims[-1]
    values = quantity.mean[last].values if last in quantity.mean.coords else range(quantity.mean.sizes[last])
    return [
        replace(
            quantity,
            name=f"{quantity.name}-{last}-{value}",
            mean=quantity.mean.isel({last: i}).assign_attrs(long_name=f"{quantity.label}, {last} {value}"),
            error=quantity.error.isel({last: i}),
            count=quantity.count.isel({last: i}),
        )
        for i, value in enumerate(values)
        if i < _MOST_MULTIPLES
    ]
