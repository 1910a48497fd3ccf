"""A quantity read from a run's group: the mean, its standard error and count, and what its attributes say."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from vitscope.measurement.quantity import BESIDE
from vitscope.report.axis import DIRECTIONS
from vitscope.report.number import amount, with_error, with_unit

NOBODY_KNOWS = "Not stated."
_CHANGE, _INTACT, _SUBJECT = "_change", "_intact", "subject"
CONTESTANTS = "contestants"
"""The attribute of a group that compares models and backends."""
_CONTESTANT = ("model", "backend")


@dataclass(frozen=True)
class MeasuredQuantity:
    """One quantity of one diagnostic."""

    diagnostic: str
    name: str
    mean: xr.DataArray
    error: xr.DataArray
    count: xr.DataArray
    intact: "MeasuredQuantity | None" = None
    """The same quantity of the intact model, in a study."""
    is_change: bool = False
    """Whether it is a difference from the intact model, so that 0 means no change."""
    over: str = "layer"
    """The name of the axis ``layer`` before it was laid over depth."""
    entry: str = ""
    """Which slice of a quantity with more axes this is, in words."""
    whole: str = ""
    """The name of the quantity that this is a slice of."""
    repeats: bool = False
    """Whether it is a slice after the first, which shares the legend of the first."""
    limits: tuple[float, float] | None = None
    """The range that its drawing shares with those of the other slices."""

    @property
    def is_intact(self) -> bool:
        """Whether it belongs to the intact model of a study."""
        return self.name.endswith(_INTACT)

    @property
    def address(self) -> str:
        """``diagnostic/quantity``, as claims cite it."""
        return f"{self.diagnostic}/{self.name}"

    @property
    def dims(self) -> tuple[str, ...]:
        """Its axes."""
        return tuple(str(dim) for dim in self.mean.dims)

    @property
    def label(self) -> str:
        """Its name in words."""
        text = str(self.mean.attrs.get("long_name", self.name))
        return text[:1].upper() + text[1:]

    @property
    def unit(self) -> str:
        """Its unit; ``1`` for a pure number."""
        return str(self.mean.attrs.get("units", "1"))

    @property
    def meaning(self) -> str:
        """What it says, in a sentence."""
        return str(self.mean.attrs.get("meaning", ""))

    @property
    def better(self) -> str:
        """Which way is better, if that is known."""
        return str(self.mean.attrs.get("better", NOBODY_KNOWS))

    @property
    def missing(self) -> str:
        """Why a value may be missing, such as ``not reached``; empty if not stated."""
        return str(self.mean.attrs.get("missing", ""))

    @property
    def predicted_labels(self) -> tuple[str, ...]:
        """The labels of its lines that come from theory; its own label, as given, if all of it does."""
        return as_texts(self.mean.attrs.get("predicted", ()))

    @property
    def is_predicted(self) -> bool:
        """Whether all of it comes from theory."""
        return self.mean.attrs.get("long_name", self.name) in self.predicted_labels

    @property
    def count_name(self) -> str:
        """What its counts are numbers of, such as ``samples``."""
        return str(self.count.attrs.get("long_name", "samples"))

    @property
    def samples(self) -> str:
        """How many samples each mean is over, as a range if they differ; empty if unknown."""
        counts = self.count.values[np.isfinite(self.mean.values) & (self.count.values > 0)]
        if not counts.size:
            return ""
        low, high = int(counts.min()), int(counts.max())
        many = amount(low) if low == high else f"{amount(low)} to {amount(high)}"
        return f"{many} {self.count_name}"

    def text(self, mean: float, error: float) -> str:
        """A value with its error and unit."""
        return with_unit(with_error(mean, error), self.unit)


def as_texts(attribute: object) -> tuple[str, ...]:
    """An attribute that is a list of texts; files return a list of one text as that text."""
    if isinstance(attribute, str):
        return (attribute,)
    return tuple(map(str, attribute)) if isinstance(attribute, Iterable) else ()  # pyright: ignore


def quantities_of(diagnostic: str, dataset: xr.Dataset) -> tuple[MeasuredQuantity, ...]:
    """The quantities of a group in order, headline first; those without a single value are left out.

    In a study's group each quantity's change comes before it, and those of the intact model come last. If the axes are
    directions in the space of weights, the quantity itself comes first: the intact model is a point among the others.
    """
    if _SUBJECT in dataset.dims:
        dataset = dataset.rename({_SUBJECT: "run"})  # models of one run are shown like runs that are compared
    if CONTESTANTS in dataset.attrs:
        dataset = _contestants_as_runs(dataset)
    names = [str(name) for name in dataset.data_vars]
    beside = {f"{name}{part}" for name in names for part in BESIDE}
    found = {name: _read(diagnostic, name, dataset) for name in _headline_first(names, dataset) if name not in beside}
    found = {name: one for name, one in found.items() if bool(np.isfinite(one.mean.values).any())}
    return tuple(_with_intact(found[name], found) for name in _order(found))


def _contestants_as_runs(dataset: xr.Dataset) -> xr.Dataset:
    """Models and backends as one axis ``run``, named by whichever differs; pairs without any value are left out."""
    axes = [axis for axis in _CONTESTANT if axis in dataset.dims]
    if not axes:
        return dataset
    rows = dataset.stack(run=axes, create_index=False).transpose("run", ...)
    measured = np.zeros(rows.sizes["run"], bool)
    for name, values in rows.data_vars.items():
        if "run" in values.dims and not str(name).endswith(BESIDE):
            measured |= np.isfinite(values.values.astype(np.float64)).reshape(len(measured), -1).any(1)
    rows = rows.isel(run=np.flatnonzero(measured))
    told = [axis for axis in axes if len(set(rows[axis].values.tolist())) > 1] or axes[:1]
    names = [", ".join(map(str, words)) for words in zip(*(rows[axis].values for axis in told), strict=True)]
    return rows.drop_vars(axes).assign_coords(run=("run", names, {"long_name": "contestant", CONTESTANTS: 1}))


def _headline_first(names: list[str], dataset: xr.Dataset) -> list[str]:
    """The names, that in the attribute ``headline`` first if there is one."""
    headline = dataset.attrs.get("headline")
    return sorted(names, key=lambda name: name != headline)


def _with_intact(quantity: MeasuredQuantity, found: Mapping[str, MeasuredQuantity]) -> MeasuredQuantity:
    own = found.get(f"{quantity.name}{_INTACT}")
    if own is not None:
        return replace(quantity, intact=own)
    base = found.get(f"{quantity.name.removesuffix(_CHANGE)}{_INTACT}")
    if not quantity.name.endswith(_CHANGE):
        return quantity
    return replace(quantity, intact=base, is_change=base is not None or "run" in quantity.dims)


def _order(found: Mapping[str, MeasuredQuantity]) -> list[str]:
    order: list[str] = []
    for name, quantity in found.items():
        if f"{name}{_INTACT}" not in found:
            continue
        pair = [f"{name}{_CHANGE}", name]
        in_order = pair[::-1] if set(DIRECTIONS) & set(quantity.dims) else pair
        order.extend(one for one in in_order if one in found)
    studied = {*order, *(f"{name}{_INTACT}" for name in order)}
    return [*order, *(name for name in found if name not in studied), *(n for n in found if n in studied - set(order))]


def _read(diagnostic: str, name: str, dataset: xr.Dataset) -> MeasuredQuantity:
    mean = dataset[name]
    parts = [
        dataset[f"{name}{part}"] if f"{name}{part}" in dataset else xr.full_like(mean, fill)
        for part, fill in (("_error", np.nan), ("_count", 0.0))
    ]
    numbers = [part.astype(np.float64) for part in (mean, *parts)]
    return MeasuredQuantity(diagnostic, name, numbers[0], numbers[1], numbers[2])
