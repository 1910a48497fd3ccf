"""Quantities, and their labelled arrays: each mean with a standard error and a count."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from vitscope.measurement.axes import AXES

BESIDE = ("_error", "_count", "_low", "_high", "_gained", "_lost", "_p")
"""Suffixes of the variables that go with a quantity: its standard error, its samples, and for a change between
subjects the ends of its interval, the images gained and lost, and McNemar's exact p."""


@dataclass(frozen=True)
class Quantity:
    """What a diagnostic measures: its name, label, unit, meaning, and which direction is better."""

    name: str
    label: str
    unit: str
    meaning: str
    better: str = "Neither larger nor smaller is known to be better."
    axis: str | None = None
    """The axis it has besides depth, if any."""
    is_share: bool = False
    """Whether it is a share of images: 1 or 0 for each."""


def label_quantity(
    quantity: Quantity,
    dims: tuple[str, ...],
    mean: NDArray[np.float64],
    error: NDArray[np.float64],
    count: NDArray[np.int64],
    coords: Mapping[str, object],
) -> xr.Dataset:
    """A mean with ``<name>_error`` (standard error of the mean) and ``<name>_count`` (samples)."""
    unknown = [dim for dim in dims if dim not in AXES]
    if unknown:
        raise ValueError(f"{quantity.name} has axes {unknown} that are not in the vocabulary of axes.")
    attributes = {
        "long_name": quantity.label,
        "units": quantity.unit,
        "meaning": quantity.meaning,
        "better": quantity.better,
        **({"share": 1} if quantity.is_share else {}),
    }
    return xr.Dataset(
        {
            quantity.name: (dims, mean, attributes),
            f"{quantity.name}_error": (dims, error, {"long_name": "standard error", "units": quantity.unit}),
            f"{quantity.name}_count": (dims, count, {"long_name": "samples", "units": "1"}),
        },
        coords=dict(coords),
    )


def headline(dataset: xr.Dataset) -> xr.DataArray:
    """The main quantity of a dataset: its first variable."""
    return dataset[next(iter(dataset.data_vars))]
