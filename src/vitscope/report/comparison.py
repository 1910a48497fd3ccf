"""Several runs' results as one dataset per diagnostic, with ``run`` as its first axis, and their differences."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from vitscope.report.axis import SAMPLES, over_layers, unit_axes
from vitscope.report.measured import MeasuredQuantity, quantities_of
from vitscope.report.number import with_error
from vitscope.report.side import Side, is_training
from vitscope.report.table import MOST_ROWS, Table

DEPTH = "depth"
"""The axis of relative depth: 0 after the stem, 1 after the last unit."""
DEPTH_RANGE = (-0.04, 1.04)
"""The ends of that axis in every figure."""
_POOLED = ("head", "lesion_head", *SAMPLES)
_WORDS = {"lesion_head": "the heads left out", "minibatch": "mini-batches", "rank": "ranks", "head": "heads"}
_QUARTERS = ("first", "second", "third", "last")
_PLACES = 9


def join_runs(compared: Sequence[Side], name: str, exact: bool) -> xr.Dataset:
    """A diagnostic's quantities that at least two runs have, along the axis ``run``; what a run lacks is NaN.

    If ``exact``, layers mean the same in all runs and stay layers; otherwise they become relative depth. Over depth,
    values of single heads (or mini-batches, or ranks) become their mean, as heads of two runs do not correspond.
    """
    found = {
        side.label: {one.name: _prepare(one, side, exact) for one in quantities_of(name, _dataset(side, name))}
        for side in compared
        if name in side.run
    }
    result = xr.Dataset(attrs=_words(compared, name))
    for quantity in dict.fromkeys(quantity for one in found.values() for quantity in one):
        having = {label: one[quantity] for label, one in found.items() if quantity in one}
        first = next(iter(having.values()))
        same = {label: one for label, one in having.items() if one.dims == first.dims and one.unit == first.unit}
        if len(same) > 1:
            result = result.assign(_stack_runs(quantity, same, is_training(compared)))
    return result


def _dataset(side: Side, name: str) -> xr.Dataset:
    return side.run.tree[name].to_dataset()


def _words(compared: Sequence[Side], name: str) -> dict[str, object]:
    return dict(next(_dataset(side, name) for side in compared if name in side.run).attrs)


def _stack_runs(quantity: str, having: dict[str, MeasuredQuantity], ordered: bool) -> dict[str, xr.DataArray]:
    words = {"long_name": "run", "ordered": ordered}
    stacked: dict[str, xr.DataArray] = {}
    for part, end in (("mean", ""), ("error", "_error"), ("count", "_count")):
        arrays: list[xr.DataArray] = [getattr(one, part) for one in having.values()]
        index = xr.IndexVariable("run", list(having), attrs=words)
        bare = [array.drop_vars("kind", errors="ignore") for array in arrays]
        whole = xr.concat(bare, dim=index, join="outer", coords="minimal", compat="override", combine_attrs="override")
        if "kind" in arrays[0].coords:
            kinds = [array["kind"].drop_vars("kind").astype(object) for array in arrays]
            beside = xr.concat(kinds, dim=index, join="outer", fill_value="", coords="minimal", compat="override")
            whole = whole.assign_coords(kind=(("run", DEPTH), beside.transpose("run", DEPTH).values.astype(str)))
        stacked[f"{quantity}{end}"] = whole.transpose("run", ...)
    return stacked


def _prepare(quantity: MeasuredQuantity, side: Side, exact: bool) -> MeasuredQuantity:
    """The quantity over layers or relative depth, without axes whose entries do not correspond between runs."""
    cells = side.units + 2 if side.units else 0
    axes = unit_axes(quantity.mean, cells)
    parts = tuple(part.assign_coords(quantity.mean.coords) for part in (quantity.mean, quantity.error, quantity.count))
    if axes:
        parts = tuple(_over_depth(part, axes[0], side, exact) for part in parts)
        parts = _pool_means(parts)
    kept = {*parts[0].dims, *(("kind",) if axes and not exact else ())}
    mean, error, count = (part.drop_vars([name for name in part.coords if name not in kept]) for part in parts)
    return MeasuredQuantity(quantity.diagnostic, quantity.name, mean, error, count)


def _over_depth(part: xr.DataArray, axis: str, side: Side, exact: bool) -> xr.DataArray:
    moved = over_layers(part, axis, side.units + 2)
    if exact:
        return moved
    layers = moved["layer"].values
    kinds = ["stem", *(str(unit["kind"]) for unit in side.run.anatomy), "tail"]
    beside = [name for name, one in moved.coords.items() if one.dims == ("layer",)]
    words = {"long_name": "relative depth", "units": "0: stem, 1: last unit", "range": DEPTH_RANGE}
    at = np.round(layers / side.units, _PLACES)
    renamed = moved.drop_vars(beside).rename({"layer": DEPTH})
    return renamed.assign_coords({DEPTH: (DEPTH, at, words), "kind": (DEPTH, [kinds[int(i)] for i in layers])})


def _pool_means(parts: tuple[xr.DataArray, ...]) -> tuple[xr.DataArray, ...]:
    """Means over heads and the like. The error of a mean is at most the mean of the errors, which is used."""
    mean, error, count = parts
    dims = [dim for dim in mean.dims if dim in _POOLED]
    if not dims:
        return parts
    over = " and ".join(_WORDS.get(str(dim), f"{dim}s") for dim in dims)
    said = f"{mean.attrs.get('meaning', '')} Here: the mean over {over}."
    pooled = mean.mean(dims, keep_attrs=True).assign_attrs(meaning=said)
    return pooled, error.mean(dims, keep_attrs=True), count.max(dims, keep_attrs=True)


Errors = Callable[[str], Sequence[float | None]]
"""The paired standard errors of the other runs' differences in a quantity, by its address; None if unknown."""


def difference_tables(
    compared: Sequence[Side], quantities: Sequence[MeasuredQuantity], errors: Errors
) -> tuple[Table, ...]:
    """One table for all single numbers and one for each quantity with axes: each run's value, and its difference.

    The difference is from the first run; its error is the paired one if ``errors`` knows it, else that of independent
    errors. Over relative depth the runs share no unit, so rows are means over the units of a quarter of the depth.
    """
    plain_ones = [quantity for quantity in quantities if quantity.dims == ("run",)]
    first = [_table(compared, plain_ones, errors)] if plain_ones else []
    return (*first, *(_table(compared, [one], errors) for one in quantities if one.dims != ("run",)))


def differences(
    means: Sequence[float], errors: Sequence[float], paired: Sequence[float | None]
) -> list[tuple[float, float]]:
    """Each number minus the first, with its standard error: the paired one, or that of independent errors if None."""
    apart = zip(means[1:], errors[1:], paired, strict=True)
    return [
        (mean - means[0], float(np.hypot(error, errors[0])) if known is None else known) for mean, error, known in apart
    ]


def format_difference(apart: float, error: float) -> str:
    """A difference with its sign and its standard error; empty if it is missing."""
    if not np.isfinite(apart):
        return ""
    text = with_error(apart, error)
    return text if text.startswith("−") or not apart else f"+{text}"


def _pair_errors(
    quantity: MeasuredQuantity, labels: Sequence[str], compared: Sequence[Side], errors: Errors
) -> list[float | None]:
    """The paired errors for the runs that have the quantity; None for each if the first of all runs lacks it."""
    if quantity.dims != ("run",) or labels[0] != compared[0].label:
        return [None] * (len(labels) - 1)
    known = dict(zip([side.label for side in compared[1:]], errors(quantity.address), strict=True))
    return [known[label] for label in labels[1:]]


def _table(compared: Sequence[Side], quantities: Sequence[MeasuredQuantity], errors: Errors) -> Table:
    labels = [str(label) for label in quantities[0].mean["run"].values]
    first = quantities[0]
    rows: list[tuple[str, ...]] = []
    paired = {one.address: _pair_errors(one, labels, compared, errors) for one in quantities}
    for quantity in quantities:
        for place, means, own in _lines(quantity):
            cells = [with_error(m, e) if np.isfinite(m) else "" for m, e in zip(means, own, strict=True)]
            apart = [format_difference(*one) for one in differences(means, own, paired[quantity.address])]
            rows.append((*((quantity.label, quantity.unit) if len(quantities) > 1 else ()), *place, *cells, *apart))
    axes = _axes(first)
    several = ("quantity", "unit") if len(quantities) > 1 else ()
    short = [_letter(compared, label) for label in labels]
    header = (*several, *axes, *labels, *(f"{one} − {short[0]}" for one in short[1:]))
    title = first.label if len(quantities) == 1 else f"{first.label} and the other single numbers"
    unit = "" if len(quantities) > 1 or first.unit == "1" else first.unit
    file = f"compare-{first.diagnostic}-{first.name}.csv"
    return Table(title, unit, file, header, tuple(rows[:MOST_ROWS]), _csv(labels, quantities, paired), len(rows))


def _letter(compared: Sequence[Side], label: str) -> str:
    letter = label.partition(":")[0]
    return letter if len(letter) == 1 and not is_training(compared) else label


def _axes(quantity: MeasuredQuantity) -> tuple[str, ...]:
    others = [dim for dim in quantity.dims if dim != "run"]
    return tuple("quarter of the depth" if dim == DEPTH else dim.replace("_", " ") for dim in others)


def _lines(quantity: MeasuredQuantity) -> list[tuple[tuple[str, ...], list[float], list[float]]]:
    """Rows: place on the axes, and the runs' means and errors there, where at least two runs have a value."""
    mean, error = (_in_quarters(part) for part in (quantity.mean, quantity.error))
    others = [dim for dim in mean.dims if dim != "run"]
    found: list[tuple[tuple[str, ...], list[float], list[float]]] = []
    for index in np.ndindex(*(mean.sizes[dim] for dim in others)):
        at = dict(zip(others, index, strict=True))
        means, errors = (part.isel(at).values.astype(np.float64).tolist() for part in (mean, error))
        place = tuple(_entry(mean, str(dim), i) for dim, i in at.items())
        if np.isfinite(means).sum() > 1:
            found.append((place, means, errors))
    return found


def _entry(mean: xr.DataArray, dim: str, place: int) -> str:
    value = mean[dim].values[place] if dim in mean.coords else place
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _in_quarters(part: xr.DataArray) -> xr.DataArray:
    """Means over the units of each quarter of relative depth, the stem left out; errors as for heads."""
    if DEPTH not in part.dims:
        return part
    quarter = np.ceil(part[DEPTH].values * 4 - 1e-6).astype(np.int64)
    slices = [part.isel({DEPTH: np.flatnonzero(quarter == number)}).mean(DEPTH) for number in range(1, 5)]
    return xr.concat(slices, dim=xr.IndexVariable(DEPTH, list(_QUARTERS)), coords="minimal", compat="override")


def _csv(
    labels: Sequence[str], quantities: Sequence[MeasuredQuantity], paired: Mapping[str, Sequence[float | None]]
) -> str:
    """All rows in full precision: each run's mean and error, then each difference from the first and its error."""
    first = labels[0]
    apart = [f"{name} of {label} - {first}" for label in labels[1:] for name in ("difference", "standard error")]
    own = [f"{name} of {label}" for label in labels for name in ("mean", "standard error")]
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(["quantity", "unit", *_axes(quantities[0]), *own, *apart])
    for quantity in quantities:
        for place, means, errors in _lines(quantity):
            gaps = differences(means, errors, paired[quantity.address])
            cells = (_digits(value) for pair in (*zip(means, errors, strict=True), *gaps) for value in pair)
            writer.writerow([quantity.name, quantity.unit, *place, *cells])
    return target.getvalue()


def _digits(value: float) -> str:
    return repr(value) if np.isfinite(value) else ""
