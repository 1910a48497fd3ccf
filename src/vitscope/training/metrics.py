"""What a training is like from epoch to epoch, as an xarray Dataset that is written whole or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.runs.whole import atomic_file

MEANS = (
    Quantity(
        "train_loss",
        "training loss",
        "nat",
        "Mean cross-entropy of the epoch's steps, with augmentation, mixing and label smoothing on; the standard error "
        "is over the steps.",
        "Smaller fits the training images better.",
    ),
    Quantity(
        "test_accuracy", "test accuracy", "1", "Share of the test images whose class is predicted.", "Larger is better."
    ),
    Quantity(
        "test_nll",
        "test negative log-likelihood",
        "nat",
        "Mean cross-entropy of the test images, without augmentation.",
        "Smaller is better.",
    ),
)
PLAIN = {
    "learning_rate": {"long_name": "learning rate", "units": "1", "meaning": "Learning rate of the epoch's last step."},
    "seconds": {"long_name": "seconds", "units": "s", "meaning": "Time the epoch took, its test included."},
}


def metrics(rows: Sequence[Mapping[str, float]]) -> xr.Dataset:
    """The rows, one of each epoch, along the axis ``epoch`` (from 1)."""
    coords = {"epoch": np.arange(1, len(rows) + 1)}
    present = [quantity for quantity in MEANS if rows and quantity.name in rows[0]]
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


def save_metrics(dataset: xr.Dataset, path: Path) -> None:
    """Write the dataset as netCDF, whole or not at all."""
    with atomic_file(path) as file:
        file.write(bytes(dataset.to_netcdf(engine="h5netcdf")))


def _column(rows: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=np.float64)
