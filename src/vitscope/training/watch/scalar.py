"""The scalars of a run, with unit and standard error, which form curves over the steps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import xarray as xr

from vitscope.runs.run import Run

_MEAN, _FIRST = "mean", "first"
_REDUCED: Mapping[str, str] = MappingProxyType({"head": _MEAN, "rank": _FIRST})
"""How an axis other than depth is reduced: heads to their mean, eigenvalues to the outermost."""


@dataclass(frozen=True)
class Scalar:
    """A number at a step. ``error`` is its standard error, or an upper bound of it if the number is a mean."""

    name: str
    value: float
    unit: str
    error: float | None = None


def scalars(run: Run) -> tuple[Scalar, ...]:
    """The scalars of a run, in its order.

    A quantity without axes is ``diagnostic/quantity``. One over depth gives ``.../mean``, the mean of its layers,
    ``.../last``, its last layer, and ``.../layer_03`` for each; one over parts of the weights gives ``.../PART`` unless
    the only part is the whole model. Heads are averaged; eigenvalues give the outermost. Quantities with other axes
    (spectra, curves, single mini-batches) and layers without a value stay in the run only. The error of an average is
    the mean of the numbers' errors: its own can be no larger, however the numbers depend on each other.
    """
    return tuple(scalar for name, dataset in run.measured.items() for scalar in _of_dataset(name, dataset))


def plain_values(found: Sequence[Scalar]) -> dict[str, float]:
    """Values by name, each error as ``standard-error/NAME``: for sinks that store only names and numbers."""
    errors = {f"standard-error/{one.name}": one.error for one in found if one.error is not None}
    return {one.name: one.value for one in found} | errors


def units(found: Sequence[Scalar]) -> dict[str, str]:
    """The unit of each ``diagnostic/quantity``."""
    return {"/".join(one.name.split("/")[:2]): one.unit for one in found}


def _of_dataset(group: str, dataset: xr.Dataset) -> Iterator[Scalar]:
    names = [str(name) for name in dataset.data_vars]
    for name in names:
        if any(name == f"{other}{end}" for other in names for end in ("_error", "_count")):
            continue
        values = _reduce_axes(dataset[name])
        errors = _reduce_axes(dataset[f"{name}_error"]) if f"{name}_error" in names else None
        if values is None or values.dtype.kind not in "fiu":
            continue
        unit = str(dataset[name].attrs.get("units", "1"))
        if values.dims == ("layer",):
            yield from _over_depth(f"{group}/{name}", values, errors, unit)
        elif values.dims == ("part",):
            yield from _by_part(f"{group}/{name}", values, errors, unit)
        elif not values.dims:
            yield from _scalar(f"{group}/{name}", values.values, unit, None if errors is None else errors.values)


def _over_depth(name: str, values: xr.DataArray, errors: xr.DataArray | None, unit: str) -> Iterator[Scalar]:
    seen = np.flatnonzero(np.isfinite(values.values))
    if not seen.size:
        return
    labels = values["layer"].values if "layer" in values.coords else np.arange(values.size)

    layers = [(f"layer_{int(labels[row]):02d}", np.array([row])) for row in seen]
    for word, rows in (("mean", seen), ("last", seen[-1:]), *layers):
        error = None if errors is None else errors.values[rows].mean()
        yield from _scalar(f"{name}/{word}", values.values[rows].mean(), unit, error)


def _by_part(name: str, values: xr.DataArray, errors: xr.DataArray | None, unit: str) -> Iterator[Scalar]:
    names = [str(part) for part in values["part"].values]
    for row, part in enumerate(names):
        error = None if errors is None else errors.values[row]
        yield from _scalar(name if names == ["model"] else f"{name}/{part}", values.values[row], unit, error)


def _reduce_axes(values: xr.DataArray) -> xr.DataArray | None:
    for axis in [str(dim) for dim in values.dims if dim not in ("layer", "part")]:
        if axis not in _REDUCED or not values.sizes[axis]:
            return None
        values = values.mean(axis, skipna=True) if _REDUCED[axis] == _MEAN else values.isel({axis: 0})
    return values


def _scalar(name: str, value: object, unit: str, error: object) -> Iterator[Scalar]:
    number = float(np.asarray(value))
    beside = float(np.asarray(error)) if error is not None else float("nan")
    if np.isfinite(number):
        yield Scalar(name, number, unit, beside if np.isfinite(beside) else None)
