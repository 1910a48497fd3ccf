"""A quantity as a table: to read, to copy, to download."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from vitscope.report.measured import MeasuredQuantity
from vitscope.report.number import amount, with_error, with_unit

_BESIDE = ("unit", "kind", "name")
MOST_ROWS, _MOST_COLUMNS = 200, 25
"""Limits of a table on the page; the file has everything."""


@dataclass(frozen=True)
class Table:
    """A table as shown (rounded), and as copied and downloaded (in full precision)."""

    title: str
    unit: str
    file: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    csv: str
    length: int
    """Number of rows in all; the page shows at most :data:`MOST_ROWS` of them."""


def tables(quantities: Sequence[MeasuredQuantity]) -> tuple[Table, ...]:
    """One table for all numbers without an axis, and one for each quantity with axes."""
    numbers = [quantity for quantity in quantities if not quantity.dims]
    return (*((_of_numbers(numbers),) if numbers else ()), *(_of(quantity) for quantity in quantities if quantity.dims))


def _of_numbers(quantities: Sequence[MeasuredQuantity]) -> Table:
    rows = [
        (q.label, with_error(q.mean.item(), q.error.item()), q.unit, amount(int(q.count.item()))) for q in quantities
    ]
    frame = xr.concat(
        [_parts(q).expand_dims(quantity=[q.name]).assign_coords(unit=("quantity", [q.unit])) for q in quantities],
        dim="quantity",
    )
    title = quantities[0].label if len(quantities) == 1 else f"{quantities[0].label} and the other single numbers"
    counted = {quantity.count_name for quantity in quantities}
    header = ("quantity", "mean ± standard error", "unit", counted.pop() if len(counted) == 1 else "count")
    return Table(title, "", f"{quantities[0].diagnostic}.csv", header, tuple(rows), _csv(frame), len(rows))


def _of(quantity: MeasuredQuantity) -> Table:
    wide = len(quantity.dims) == 2 and quantity.mean.shape[1] <= _MOST_COLUMNS
    header, rows = _pivot(quantity) if wide else _listing(quantity)
    file = f"{quantity.diagnostic}-{quantity.name}.csv"
    return Table(quantity.label, with_unit("", quantity.unit).strip(), file, header, rows[:MOST_ROWS],
                 _csv(_parts(quantity)), len(rows))  # fmt: skip


def _pivot(quantity: MeasuredQuantity) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    first, second = quantity.dims
    header, leading = _leading(quantity, first)
    columns = tuple(f"{second.replace('_', ' ')} {_text(value)}" for value in _coordinate(quantity.mean, second))
    pairs = zip(quantity.mean.values, quantity.error.values, strict=True)
    cells = [tuple(_cell(m, e) for m, e in zip(means, errors, strict=True)) for means, errors in pairs]
    return (*header, *columns), tuple((*lead, *row) for lead, row in zip(leading, cells, strict=True))


def _listing(quantity: MeasuredQuantity) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    if len(quantity.dims) == 1:
        header, leading = _leading(quantity, quantity.dims[0])
    else:
        header = tuple(dim.replace("_", " ") for dim in quantity.dims)
        axes = np.meshgrid(*(_coordinate(quantity.mean, dim) for dim in quantity.dims), indexing="ij")
        leading = [tuple(map(_text, values)) for values in zip(*(axis.ravel() for axis in axes), strict=True)]
    triples = zip(
        quantity.mean.values.ravel(), quantity.error.values.ravel(), quantity.count.values.ravel(), strict=True
    )
    cells = [(_cell(mean, error), amount(int(count))) for mean, error, count in triples]
    return (*header, "mean ± standard error", quantity.count_name), tuple(
        (*lead, *row) for lead, row in zip(leading, cells, strict=True)
    )


def _leading(quantity: MeasuredQuantity, dim: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    named = [*_BESIDE, *(f"{dim}_{column}" for column in _BESIDE)]
    beside = [name for name in named if name in quantity.mean.coords and quantity.mean[name].dims == (dim,)]
    columns = [_coordinate(quantity.mean, name) for name in (dim, *beside)]
    words = tuple(name.replace("_", " ") for name in (dim, *beside))
    return words, [tuple(map(_text, values)) for values in zip(*columns, strict=True)]


def _coordinate(mean: xr.DataArray, name: str) -> np.ndarray:
    return mean[name].values if name in mean.coords else np.arange(mean.sizes[name])


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _cell(mean: float, error: float) -> str:
    return with_error(float(mean), float(error)) if np.isfinite(mean) else ""


def _parts(quantity: MeasuredQuantity) -> xr.Dataset:
    counts = quantity.count.astype(np.int64)
    parts = {"mean": quantity.mean, "standard_error": quantity.error, "samples": counts}
    return xr.Dataset({name: part.drop_attrs() for name, part in parts.items()})


def _csv(parts: xr.Dataset) -> str:
    frame = parts.to_dataframe().reset_index()
    ordered = [*(name for name in frame.columns if name not in parts.data_vars), *parts.data_vars]
    return str(frame.dropna(subset=["mean"]).to_csv(index=False, columns=ordered))
