"""A quantity read from a run's group: the mean, its standard error and count, and what its attributes say."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from vitscope.report.number import amount, with_error, with_unit

NOBODY_KNOWS = "Nobody has said which is better."


@dataclass(frozen=True)
class Measured:
    """One quantity of one diagnostic."""

    diagnostic: str
    name: str
    mean: xr.DataArray
    error: xr.DataArray
    count: xr.DataArray

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
        """Which way is better, as far as anybody knows."""
        return str(self.mean.attrs.get("better", NOBODY_KNOWS))

    @property
    def samples(self) -> str:
        """How many samples each mean is over, a range where they differ; nothing where it is not known."""
        counts = self.count.values[np.isfinite(self.mean.values) & (self.count.values > 0)]
        if not counts.size:
            return ""
        low, high = int(counts.min()), int(counts.max())
        many = amount(low) if low == high else f"{amount(low)} to {amount(high)}"
        return f"{many} {self.count.attrs.get('long_name', 'samples')}"

    def text(self, mean: float, error: float) -> str:
        """A value with its error and unit."""
        return with_unit(with_error(mean, error), self.unit)


def measured(diagnostic: str, dataset: xr.Dataset) -> tuple[Measured, ...]:
    """The quantities of a group in order, headline first; those without a single value are left out."""
    names = [str(name) for name in dataset.data_vars]
    beside = {f"{name}{part}" for name in names for part in ("_error", "_count")}
    found = (_read(diagnostic, name, dataset) for name in names if name not in beside)
    return tuple(quantity for quantity in found if bool(np.isfinite(quantity.mean.values).any()))


def _read(diagnostic: str, name: str, dataset: xr.Dataset) -> Measured:
    mean = dataset[name]
    parts = [
        dataset[f"{name}{part}"] if f"{name}{part}" in dataset else xr.full_like(mean, fill)
        for part, fill in (("_error", np.nan), ("_count", 0.0))
    ]
    numbers = [part.astype(np.float64) for part in (mean, *parts)]
    return Measured(diagnostic, name, numbers[0], numbers[1], numbers[2])
