"""The results of trials as labelled arrays: means over trials with their standard errors, and predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from vitscope.measurement.quantity import Quantity, label_quantity

Numbers = NDArray[np.float64]
Entries = Sequence[float] | Sequence[int] | Sequence[str]


@dataclass(frozen=True)
class Along:
    """An axis of a lab's result: its name from the vocabulary of axes, its entries, and their label and unit."""

    name: str
    values: Entries
    label: str
    unit: str = "1"
    logarithmic: bool = False

    @property
    def coordinate(self) -> tuple[str, Entries, dict[str, str]]:
        """The coordinate as xarray takes it: its name, entries and attributes."""
        words = {"long_name": self.label, "units": self.unit}
        return self.name, self.values, {**words, "scale": "log"} if self.logarithmic else words


def log_spaced(last: int, count: int) -> tuple[int, ...]:
    """0 and at most ``count`` steps from 1 to ``last``, evenly spaced on a logarithmic axis, rounded."""
    return (0, *sorted({round(float(step)) for step in np.geomspace(1, max(last, 1), count)}))


def over_trials(quantity: Quantity, axes: Sequence[Along], values: Numbers, step: float = 0.0) -> xr.Dataset:
    """The mean over the last axis of ``values``, the trials, with its standard error and how many trials had a value.

    A trial without a value is NaN. The error of a single value is NaN. If ``step`` is given, values
    are known only to whole multiples of it: the variance of their rounding is added, so that identical trials have an
    error, unless all are 0.
    """
    known = np.isfinite(values)
    count = known.sum(-1)
    total = np.where(known, values, 0.0).sum(-1)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    squares = np.where(known, (values - mean[..., None]) ** 2, 0.0).sum(-1)
    variance = squares / np.maximum(count - 1, 1) + step**2 / 12 * (np.where(known, values, 0.0) != 0).any(-1)
    error = np.where(count > 1, np.sqrt(variance / np.maximum(count, 1)), np.nan)
    return label_axes(quantity, axes, mean, error, np.asarray(count))


def prediction(quantity: Quantity, axes: Sequence[Along], values: Numbers) -> xr.Dataset:
    """A prediction as a labelled array, without error or trials."""
    found = label_axes(quantity, axes, values, np.full(values.shape, np.nan), np.zeros(values.shape))
    return with_words(found, quantity, predicted=[quantity.label])


def curves(
    quantity: Quantity, axes: Sequence[Along], measured: Mapping[str, Numbers], theory: Mapping[str, Numbers]
) -> xr.Dataset:
    """Several curves of one quantity in one figure, by name along the axis ``curve``: measured ones, then predicted.

    Measured values have an axis of trials after ``axes``; predictions have none, or are constant along ``axes``.
    """
    shape = tuple(len(axis.values) for axis in axes)
    parts = [over_trials(quantity, axes, values) for values in measured.values()]
    parts += [
        prediction(quantity, axes, np.broadcast_to(values, shape).astype(np.float64)) for values in theory.values()
    ]
    name, entries, words = Along("curve", [*measured, *theory], "Curve").coordinate
    joined = xr.concat(parts, dim=name, combine_attrs="override")
    order = (*(axis.name for axis in axes[:-1]), name, axes[-1].name)
    named = joined.assign_coords({name: (name, entries, words)}).transpose(*order)
    return with_words(named, quantity, predicted=list(theory))


def label_axes(
    quantity: Quantity,
    axes: Sequence[Along],
    mean: Numbers,
    error: Numbers,
    count: NDArray[np.number],
    counted: str = "trials",
) -> xr.Dataset:
    """A labelled array over these axes; ``counted`` names what the counts count."""
    coords = {axis.name: axis.coordinate for axis in axes}
    found = label_quantity(quantity, tuple(coords), mean, error, count.astype(np.int64), coords)
    found[f"{quantity.name}_count"].attrs["long_name"] = counted
    return found


def with_words(dataset: xr.Dataset, quantity: Quantity, **words: str | list[str]) -> xr.Dataset:
    """The dataset with words for the page: which lines are ``predicted``, and what to call ``missing`` values."""
    dataset[quantity.name].attrs.update({name: said for name, said in words.items() if said})
    return dataset
