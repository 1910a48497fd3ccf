"""A training's metrics by epoch, as an xarray Dataset that is written whole or not at all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.runs.whole import atomic_file

LOSS = Quantity(
    "train_loss",
    "training loss",
    "1",
    "Mean loss of the epoch's steps, with augmentation, mixing and label smoothing on; the standard error is over the "
    "steps.",
    "Smaller fits the training images better.",
)
VALIDATION = "validation"
"""Prefix of the names of validation figures."""
TESTED = {"accuracy": "top1", "nll": "nll"}
"""Figures of the test images, and what the diagnostic ``accuracy`` calls them."""
PLAIN = {
    "learning_rate": {
        "long_name": "learning rate",
        "units": "1 / step",
        "meaning": "Learning rate of the epoch's last step.",
    },
    "seconds": {"long_name": "seconds", "units": "s", "meaning": "Time the epoch took, validation included."},
}


def metrics(rows: Sequence[Mapping[str, float]], figures: Sequence[Quantity]) -> xr.Dataset:
    """The rows, one per epoch, along the axis ``epoch`` (from 1); ``figures`` are the objective's.

    Validation figures are named like ``validation_accuracy``.
    """
    coords = {"epoch": np.arange(1, len(rows) + 1)}
    judged = [replace(one, name=f"{VALIDATION}_{one.name}", label=f"{VALIDATION} {one.label}") for one in figures]
    present = [quantity for quantity in (LOSS, *judged) if rows and quantity.name in rows[0]]
    parts = [
        label_quantity(
            quantity,
            ("epoch",),
            _column(rows, quantity.name),
            _column(rows, f"{quantity.name}_error"),
            _column(rows, f"{quantity.name}_count").astype(np.int64),
            coords,
        )
        for quantity in present
    ]
    plain = {name: ("epoch", _column(rows, name), attributes) for name, attributes in PLAIN.items()}
    return xr.merge([*parts, xr.Dataset(plain, coords)])


def with_test(dataset: xr.Dataset, accuracy: xr.Dataset) -> xr.Dataset:
    """The metrics with ``test_accuracy`` and ``test_nll``, from the diagnostic ``accuracy`` after training."""
    found: dict[str, xr.DataArray] = {}
    for name, own in TESTED.items():
        for end in ("", "_error", "_count"):
            array = accuracy[f"{own}{end}"]
            label = f"test {array.attrs.get('long_name', name)}"
            found[f"test_{name}{end}"] = array.drop_vars(list(array.coords)).assign_attrs(long_name=label)
    return dataset.assign(found)


def save_metrics(dataset: xr.Dataset, path: Path) -> None:
    """Write the dataset as netCDF, whole or not at all."""
    with atomic_file(path) as file:
        file.write(bytes(dataset.to_netcdf(engine="h5netcdf")))


def _column(rows: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=np.float64)
