"""A run's numbers as one tidy table: a row for each number, with its standard error and count."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import xarray as xr

from vitscope.measurement.errors import UserError
from vitscope.measurement.quantity import BESIDE

if TYPE_CHECKING:
    from pandas import DataFrame

_PARTS = {"": "value", "_error": "error", "_count": "count"}
_FURTHER = {end: end[1:] for end in BESIDE if end not in _PARTS}
"""Columns that only changes between models have; they are there if any quantity has them."""
_FIRST, _LAST = ("diagnostic", "quantity"), (*_PARTS.values(), "units")


def tidy(groups: Mapping[str, xr.Dataset]) -> "DataFrame":
    """The quantities of these groups, one below the other.

    Columns: ``diagnostic``, ``quantity``, the axes with their further labels, ``value``, ``error`` (standard error),
    ``count`` and ``units``; for changes between models also ``low`` and ``high``, the ends of the 95 % interval, and
    for changes of shares ``gained``, ``lost`` and ``p``. An axis that a quantity does not have is missing in its rows;
    a number without samples has no row.
    """
    import pandas as pd

    frames = [frame for name, dataset in groups.items() for frame in _frames(name, dataset)]
    if not frames:
        return pd.DataFrame(columns=[*_FIRST, *_LAST])
    whole = pd.concat(frames, ignore_index=True)
    further = [column for column in _FURTHER.values() if column in whole.columns]
    axes = [column for column in whole.columns if column not in (*_FIRST, *_LAST, *further)]
    for column in (*axes, "count"):
        kinds = {frame[column].dtype.kind for frame in frames if column in frame}
        if kinds == {"i"} and whole[column].dtype.kind == "f":
            whole[column] = whole[column].astype("Int64")  # whole numbers, some of them missing
    return whole.reindex(columns=[*_FIRST, *axes, *_LAST[:-1], *further, _LAST[-1]])


def wide(name: str, dataset: xr.Dataset) -> "DataFrame":
    """A group whose numbers all share one axis, a column for each. ``UserError`` if it holds several tables."""
    axes = {array.dims for array in dataset.data_vars.values()}
    if len(axes) != 1 or len(next(iter(axes))) != 1:
        known = ", ".join(f"{name}/{one}" for one in quantities(dataset))
        raise UserError(f"{name} holds several tables; name one of them: {known}.")
    return dataset.drop_attrs().to_dataframe().reset_index()


def quantities(dataset: xr.Dataset) -> tuple[str, ...]:
    """The names of a group's quantities, without those of their errors and counts."""
    names = [str(name) for name in dataset.data_vars]
    beside = {f"{name}{end}" for name in names for end in BESIDE}
    return tuple(name for name in names if name not in beside)


def _frames(diagnostic: str, dataset: xr.Dataset) -> "Iterator[DataFrame]":
    for name in quantities(dataset):
        columns = (_PARTS | _FURTHER).items()
        parts = {column: dataset[f"{name}{end}"] for end, column in columns if f"{name}{end}" in dataset}
        frame = _frame(xr.Dataset({column: part.drop_attrs() for column, part in parts.items()}))
        if "count" in frame:
            frame = frame[frame["value"].notna() | (frame["count"] > 0)]
        units = str(dataset[name].attrs.get("units", "1"))
        yield frame.assign(diagnostic=diagnostic, quantity=name, units=units)


def _frame(parts: xr.Dataset) -> "DataFrame":
    """A row for each point on the axes; one row if there is no axis."""
    if parts.dims:
        return parts.to_dataframe().reset_index()
    return parts.expand_dims("line").to_dataframe().reset_index(drop=True)
