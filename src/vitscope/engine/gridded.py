"""The results of a grid's settings as one labelled dataset: the grid's axes first, then each quantity's own."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import xarray as xr

from vitscope.engine.grid import Axis, Fact, StudyGrid
from vitscope.measurement.quantity import BESIDE


def grid_results(
    grid: StudyGrid,
    intact: xr.Dataset,
    values: Sequence[xr.Dataset],
    changes: Sequence[xr.Dataset],
    attributes: Mapping[str, object],
) -> xr.Dataset:
    """One dataset of a diagnostic's results: at every setting, the changes from the intact subject, and its values.

    ``values`` and ``changes`` are in row-major order of the axes. What was not seen at a setting is NaN with count 0.
    The grid's facts come last.
    """
    axes = grid.axes
    parts = [stack(axes, values)]
    if any(changes):
        parts.append(rename(stack(axes, changes), "change", "change from intact", "Change from the intact model. "))
    parts.append(rename(intact.drop_attrs(deep=False), "intact", "intact", "For the intact model. "))
    result = xr.merge(parts, join="outer", compat="no_conflicts", combine_attrs="override")
    for fact in grid.facts:
        result = result.assign(_fact_arrays(fact, grid))
    return result.assign_attrs(attributes)


def _fact_arrays(fact: Fact, grid: StudyGrid) -> dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]]:
    quantity, names = fact.quantity, tuple(axis.name for axis in grid.axes)
    words = {"units": quantity.unit, "better": quantity.better}
    here = {**words, "long_name": quantity.label, "meaning": quantity.meaning}
    intact = {**words, "long_name": f"{quantity.label}, intact", "meaning": f"For the intact model. {quantity.meaning}"}
    return {
        quantity.name: (names, np.array(fact.values).reshape(grid.shape), here),
        f"{quantity.name}_intact": ((), np.array(fact.intact), intact),
    }


def stack(axes: Sequence[Axis], datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    """The datasets, given in row-major order, stacked along the axes; what a dataset lacks is NaN with count 0."""
    joined = xr.concat(datasets, "setting", join="outer", coords="minimal", compat="override", data_vars="all")
    names, shape = [axis.name for axis in axes], [len(axis.values) for axis in axes]
    result = xr.Dataset(coords={name: one for name, one in joined.coords.items() if "setting" not in one.dims})
    for name, array in joined.data_vars.items():
        flat = array.transpose("setting", ...)
        content = flat.values.reshape(*shape, *flat.shape[1:])
        if str(name).endswith("_count"):
            content = np.nan_to_num(content).astype(np.int64)
        words = next(one[name].attrs for one in datasets if name in one)
        result[name] = ((*names, *flat.dims[1:]), content, words)
    for axis in axes:
        result = result.assign_coords({axis.name: (axis.name, list(axis.values), _words(axis))})
        for label, entries in axis.coordinates.items():
            result = result.assign_coords({label: (axis.name, list(entries))})
    return result


def _words(axis: Axis) -> dict[str, str]:
    return {"long_name": axis.label, "units": axis.unit}


def rename(dataset: xr.Dataset, suffix: str, label: str, meaning: str) -> xr.Dataset:
    """Rename ``top1`` and ``top1_error`` to ``top1_change`` and ``top1_change_error``, and adapt their texts."""
    quantities = [name for name in dataset.data_vars if f"{name}_error" in dataset.data_vars]
    names: dict[Hashable, str] = {}
    for quantity in quantities:
        ends = [end for end in ("", *BESIDE) if f"{quantity}{end}" in dataset.data_vars]
        names |= {f"{quantity}{end}": f"{quantity}_{suffix}{end}" for end in ends}
    renamed = dataset[list(names)].rename(names)
    for quantity in quantities:
        words = renamed[f"{quantity}_{suffix}"].attrs
        name = words["long_name"]
        words["long_name"] = f"{name}, {label}"
        words["meaning"] = f"{meaning}{words['meaning']}"
    return renamed


def drop_quantities(dataset: xr.Dataset, quantities: frozenset[str]) -> xr.Dataset:
    """The dataset without these quantities and the variables that go with them."""
    names = [f"{name}{end}" for name in quantities for end in ("", *BESIDE)]
    return dataset.drop_vars([name for name in names if name in dataset])
