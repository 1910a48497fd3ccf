"""Choose the drawing of a quantity: its axes decide, never its name."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import xarray as xr

from vitscope.report.axis import (
    DIRECTIONS,
    SAMPLES,
    axis_name,
    entries,
    is_categorical,
    is_named_by_units,
    is_picture,
    over_layers,
    unit_axes,
)
from vitscope.report.drawing.contour import Contour
from vitscope.report.drawing.coordinate_lines import CoordinateLines
from vitscope.report.drawing.curve_family import CurveFamily
from vitscope.report.drawing.depth_dots import DepthDots
from vitscope.report.drawing.depth_line import DepthLine
from vitscope.report.drawing.depth_lines import DepthLines
from vitscope.report.drawing.depth_stems import DepthStems
from vitscope.report.drawing.distribution import Distribution
from vitscope.report.drawing.drawing import AbstractDrawing
from vitscope.report.drawing.heat_map import HeatMap
from vitscope.report.drawing.pictures import Pictures
from vitscope.report.drawing.run_dots import RunDots
from vitscope.report.drawing.series_lines import SeriesLines
from vitscope.report.drawing.surface import Surface
from vitscope.report.measured import CONTESTANTS, MeasuredQuantity
from vitscope.report.strip import Strip

MOST_MULTIPLES = 12
_FEW_MULTIPLES = 3
"""With more slices than these, a quantity over depth has a map for each, without curves."""
_MOST_LINES = 8
_DOTS = ("head", "lesion_head", *SAMPLES)


def drawings(quantities: Sequence[MeasuredQuantity], strip: Strip) -> tuple[tuple[AbstractDrawing, ...], ...]:
    """The drawings of a diagnostic's quantities, in groups that belong together; numbers without an axis have none.

    An axis over units (``layer``, or one with the units' kinds, such as ``lesion``) lies along the strip. ``layer``: a
    line; another axis over units: stems. With ``head``, ``minibatch`` or ``rank``: dots over depth; with a few names:
    lines; with numbers: a heat map and curves. Two directions: contours and a surface. ``minibatch`` and ``rank``: a
    distribution. Rows and columns of pictures: all pictures together, those of an example in a row. One other axis:
    lines, with all quantities of the same axis and unit in one figure, except that a study's have one each. Numbers and
    a few names: a line for each name. Any other two axes: a heat map. Three or more axes: one drawing for each of the
    first dozen entries of one of them.
    """
    groups: list[tuple[AbstractDrawing, ...]] = []
    drawn: set[str] = set()
    laid = [_lay(quantity, strip) for quantity in quantities]
    for quantity in laid:
        if not quantity.dims or quantity.name in drawn:
            continue
        together = (quantity,) if _over_depth(quantity, strip) else _companions(quantity, laid)
        drawn |= {one.name for one in together}
        groups.append(_draw(together, strip))
    return tuple(groups)


def _lay(quantity: MeasuredQuantity, strip: Strip) -> MeasuredQuantity:
    """The quantity with its axis over units, if it has one, as ``layer``."""
    axes = unit_axes(quantity.mean, len(strip.cells))
    if not axes or axes[0] == "layer":
        return quantity
    moved = (over_layers(part, axes[0], len(strip.cells)) for part in _beside(quantity))
    mean, error, count = moved
    return replace(quantity, mean=mean, error=error, count=count, over=axes[0])


def _beside(quantity: MeasuredQuantity) -> tuple[xr.DataArray, ...]:
    coords = quantity.mean.coords
    return tuple(part.assign_coords(coords) for part in (quantity.mean, quantity.error, quantity.count))


def _draw(quantities: tuple[MeasuredQuantity, ...], strip: Strip) -> tuple[AbstractDrawing, ...]:
    quantity = quantities[0]
    others = tuple(dim for dim in quantity.dims if dim != "layer")
    if is_picture(quantity.mean):
        return (Pictures(quantities),)
    if _over_depth(quantity, strip) and others and set(others) <= set(_DOTS):
        return (DepthDots(quantities, strip),)
    if _is_distribution(quantity):
        return (Distribution(quantities),)
    if "run" in quantity.dims and set(quantity.dims) <= {"run", *SAMPLES} and SAMPLES[0] in quantity.dims:
        return (Distribution(tuple(_slices(quantity, ("run",)))),)
    if len(quantity.dims) > 2:
        return _multiples(quantity, strip)
    if len(quantity.dims) == 2:
        return _of_two(quantities, strip)
    if quantity.dims == ("run",) and not quantity.mean["run"].attrs.get("ordered", False):
        return (RunDots(quantities),)
    if not _over_depth(quantity, strip):
        return (CoordinateLines(quantities),)
    return (DepthLine(quantities, strip) if quantity.over == "layer" else DepthStems(quantities, strip),)


def _of_two(quantities: tuple[MeasuredQuantity, ...], strip: Strip) -> tuple[AbstractDrawing, ...]:
    quantity = quantities[0]
    names = [dim for dim in quantity.dims if is_categorical(quantity.mean, dim)]
    few = [dim for dim in names if dim == "run" or quantity.mean.sizes[dim] <= _MOST_LINES]
    if _over_depth(quantity, strip):
        if few:
            return (DepthLines(quantities, strip),)
        other = next(dim for dim in quantity.dims if dim != "layer")
        is_map = bool(names) or other in unit_axes(quantity.mean, len(strip.cells))
        return (HeatMap(quantities, strip),) if is_map else (HeatMap(quantities, strip), CurveFamily(quantities, strip))
    if set(quantity.dims) == set(DIRECTIONS):
        return Contour(quantities), Surface(quantities)
    if "run" in names and CONTESTANTS in quantity.mean["run"].attrs:
        other = next(dim for dim in quantity.dims if dim != "run")
        return tuple(RunDots((one,)) for one in _slices(quantity, (other,)))
    if few and (len(names) == 1 or "run" in names):
        return (SeriesLines(quantities),)
    return (HeatMap(quantities, strip),)


def _over_depth(quantity: MeasuredQuantity, strip: Strip) -> bool:
    return "layer" in quantity.dims and bool(strip.cells)


def _is_distribution(quantity: MeasuredQuantity) -> bool:
    return SAMPLES[0] in quantity.dims and set(quantity.dims) <= set(SAMPLES)


def _companions(quantity: MeasuredQuantity, quantities: Sequence[MeasuredQuantity]) -> tuple[MeasuredQuantity, ...]:
    """The quantities of the same single axis and unit, or of the same distribution; a study's are drawn alone."""
    if is_picture(quantity.mean):
        return tuple(one for one in quantities if is_picture(one.mean) and one.dims[0] == quantity.dims[0])
    if (len(quantity.dims) > 1 and not _is_distribution(quantity)) or quantity.intact is not None:
        return (quantity,)
    if "run" in quantity.dims:
        return (quantity,)
    alike = (one for one in quantities if one.dims == quantity.dims and one.unit == quantity.unit)
    return tuple(one for one in alike if one.intact is None)


def _multiples(quantity: MeasuredQuantity, strip: Strip) -> tuple[AbstractDrawing, ...]:
    """Small multiples along one of three axes, or along several of four or more; they share their scale."""
    sliced = _axes_to_slice(quantity)
    chosen = _slices(quantity, sliced)
    drawn = [_draw((one,), strip) for one in chosen]
    both = len(drawn) <= _FEW_MULTIPLES and not set(DIRECTIONS) <= set(quantity.dims)
    kept = drawn if both else [group[:1] for group in drawn]
    return tuple(drawing for group in kept for drawing in group)


def _axes_to_slice(quantity: MeasuredQuantity) -> tuple[str, ...]:
    """The axes along which a quantity of three or more axes is cut, so that two are left.

    Names are cut before numbers, short axes before long ones, ``run`` late; directions and axes over units stay.
    """

    def rank(dim: str) -> tuple[bool, bool, bool, int]:
        stays = dim in ("layer", *DIRECTIONS) or is_named_by_units(quantity.mean, dim)
        return stays, dim == "run", not is_categorical(quantity.mean, dim), quantity.mean.sizes[dim]

    return tuple(sorted(quantity.dims, key=rank)[: len(quantity.dims) - 2])


def _slices(quantity: MeasuredQuantity, sliced: tuple[str, ...]) -> list[MeasuredQuantity]:
    """One quantity over the other axes for each of the first dozen entries of the sliced axes."""
    numbers = product(*(range(quantity.mean.sizes[dim]) for dim in sliced))
    low, high = _limits(quantity)
    found: list[MeasuredQuantity] = []
    for _, places in zip(range(MOST_MULTIPLES), numbers, strict=False):
        at = dict(zip(sliced, places, strict=True))
        words = ", ".join(f"{axis_name(quantity.mean, dim)} {entries(quantity.mean, dim)[i]}" for dim, i in at.items())
        keys = "-".join(f"{dim}-{_key(quantity.mean, dim, i)}" for dim, i in at.items())
        parts = (part.isel(at).assign_attrs(part.attrs) for part in (quantity.mean, quantity.error, quantity.count))
        mean, error, count = parts
        cut = replace(
            quantity,
            repeats=bool(found),
            name=f"{quantity.name}-{keys}",
            mean=mean,
            error=error,
            count=count,
            entry=words,
        )
        found.append(replace(cut, limits=(low, high), intact=_intact(quantity, at), whole=quantity.name))
    return [one for one in found if bool(np.isfinite(one.mean.values).any())]


def _intact(quantity: MeasuredQuantity, at: dict[str, int]) -> MeasuredQuantity | None:
    """The intact model's quantity at the same entries of the axes that it has."""
    intact = quantity.intact
    if intact is None:
        return None
    own = {dim: i for dim, i in at.items() if dim in intact.dims}
    return replace(intact, mean=intact.mean.isel(own), error=intact.error.isel(own), count=intact.count.isel(own))


def _key(values: xr.DataArray, dim: str, place: int) -> str:
    return str(values[dim].values[place]) if dim in values.coords else str(place)


def _limits(quantity: MeasuredQuantity) -> tuple[float, float]:
    return float(np.nanmin(quantity.mean.values)), float(np.nanmax(quantity.mean.values))
