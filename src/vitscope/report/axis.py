"""An axis of a quantity as it is drawn: its name in words, its entries, and whether it is over depth."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

DIRECTIONS = ("first", "second")
"""Axes along which weights are displaced; 0 is the unchanged model."""
SAMPLES = ("minibatch", "rank")
"""Axes with many values of one kind, whose distribution matters rather than their order."""
PIXELS, PATCHES = ("pixel_row", "pixel_column"), ("height", "width")
"""Axes of pictures: their pixels, or a grid of patches or features over them."""
_SHORT = 14


def axis_name(values: xr.DataArray, dim: str) -> str:
    """The axis in words, as within a sentence: its coordinate's ``long_name``, or its own name."""
    given = values[dim].attrs.get("long_name") if dim in values.coords else None
    words = str(given or dim.replace("_", " "))
    return words[:1].lower() + words[1:] if words[1:2].islower() else words


def axis_title(values: xr.DataArray, dim: str) -> str:
    """The axis in words, with its unit if it has one."""
    unit = str(values[dim].attrs.get("units", "1")) if dim in values.coords else "1"
    return axis_name(values, dim) if unit in ("", "1") else f"{axis_name(values, dim)} ({unit})"


def is_categorical(values: xr.DataArray, dim: str) -> bool:
    """Whether the entries are names."""
    return dim in values.coords and not np.issubdtype(values[dim].dtype, np.number)


def is_logarithmic(values: xr.DataArray, dim: str) -> bool:
    """Whether the axis is logarithmic: its coordinate's attribute ``scale`` is ``log``."""
    return dim in values.coords and values[dim].attrs.get("scale") == "log"


def is_picture(values: xr.DataArray) -> bool:
    """Whether the last two axes are the rows and columns of a picture, or of its patches."""
    return values.ndim > 2 and tuple(map(str, values.dims[-2:])) in (PIXELS, PATCHES)


def places(values: xr.DataArray, dim: str) -> NDArray[np.float64]:
    """The positions of the entries on the axis: their numbers, or 0, 1, ... for names."""
    if dim not in values.coords or is_categorical(values, dim):
        return np.arange(values.sizes[dim], dtype=np.float64)
    return values[dim].values.astype(np.float64)


def entries(values: xr.DataArray, dim: str) -> list[str]:
    """The entries as text; for an axis over units, the units' names."""
    if f"{dim}_unit" in values.coords:
        return [str(name) for name in values[f"{dim}_unit"].values]
    if is_categorical(values, dim):
        return [str(name) for name in values[dim].values]
    return [f"{value:.4g}" for value in places(values, dim)]


def shorten(text: str) -> str:
    """A label that fits beside an axis: its beginning and its end, in which labels of one kind differ."""
    return text if len(text) <= _SHORT else f"{text[: _SHORT // 2 - 1]}…{text[-_SHORT // 2 :]}"


def unit_axes(values: xr.DataArray, cells: int) -> tuple[str, ...]:
    """The axes whose entries are places in the model's anatomy, ``layer`` first.

    These are ``layer``, and every axis with coordinates for the kinds or names of units (``lesion`` with
    ``lesion_kind``). Its entries are layers, or ``<axis>_layer`` says which layers they are.
    """
    if not cells:
        return ()
    named = [str(dim) for dim in values.dims if dim != "layer" and _layers(values, str(dim), cells) is not None]
    return (*(("layer",) if "layer" in values.dims else ()), *named)


def over_layers(values: xr.DataArray, dim: str, cells: int) -> xr.DataArray:
    """The array with a unit axis renamed to ``layer``, whose entries are layers; entries that are none are dropped."""
    layers = _layers(values, dim, cells)
    if dim == "layer" or layers is None:
        return values
    kept = np.flatnonzero((layers >= 0) & (layers < cells))
    words = dict(values[dim].attrs)
    beside = [name for name, one in values.coords.items() if one.dims == (dim,)]
    moved = values.isel({dim: kept}).drop_vars(beside).rename({dim: "layer"})
    return moved.assign_coords(layer=("layer", layers[kept].astype(np.int64), words))


def is_named_by_units(values: xr.DataArray, dim: str) -> bool:
    """Whether an axis has coordinates for the kinds, names or layers of units."""
    return any(f"{dim}_{label}" in values.coords for label in ("kind", "unit", "layer"))


def _layers(values: xr.DataArray, dim: str, cells: int) -> NDArray[np.float64] | None:
    """The layer of each entry, NaN for an entry that is none; None for an axis that is not over units."""
    if f"{dim}_layer" in values.coords:
        layers = values[f"{dim}_layer"].values.astype(np.float64)
    elif not is_categorical(values, dim) and {f"{dim}_kind", f"{dim}_unit"} & {str(name) for name in values.coords}:
        layers = places(values, dim)
    else:
        return None
    known = layers[np.isfinite(layers) & (layers >= 0) & (layers < cells)]
    return layers if known.size and np.unique(known).size == known.size else None
