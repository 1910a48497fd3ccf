"""A model's prediction for each image, stored image by image, to find its errors and to compare models in pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vitscope.data import Images
from vitscope.data.batch import Batch
from vitscope.engine.reading.activation import Predictions
from vitscope.numerics.precision import to_float64
from vitscope.runs.run import APART

SCORES = "predictions"
"""The group of a run that holds the scores."""
NOTHING = -1
"""The label of an unlabelled image, and the class predicted for an image whose logits are not finite."""
UNKNOWN = 0
"""The rank if it was not stored, or the logits are not finite."""


_COMPRESSED = {"zlib": True, "complevel": 4}
_WORDS = {
    name: {"long_name": label, "units": unit, "meaning": meaning}
    for name, label, unit, meaning in (
        ("label", "Class of the image", "1", "Number of the image's class."),
        ("predicted", "Class predicted", "1", "Number of the most probable class; -1 if the logits are not finite."),
        ("confidence", "Confidence", "1", "Probability of the class predicted."),
        ("loss", "Negative log-likelihood", "nats", "Minus the log probability of the image's class."),
        ("rank", "Rank of the class", "1", "Place of the image's class by probability; 1 if right, 0 if unknown."),
    )
}


@dataclass(frozen=True, eq=False)
class Scores:
    """Each image's number among the images, its label, predicted class, confidence, loss, and rank of the label.

    The rank is 1 if the prediction is right, and :data:`UNKNOWN` if it was not stored or the logits are not finite.
    """

    image: Int[Tensor, " images"]
    label: Int[Tensor, " images"]
    predicted: Int[Tensor, " images"]
    confidence: Float[Tensor, " images"]
    loss: Float[Tensor, " images"]
    rank: Int[Tensor, " images"]

    @classmethod
    def of(cls, batch: Batch, predictions: Predictions) -> "Scores":
        """The scores of one batch."""
        best = predictions.log_probabilities.max(1)
        return cls(
            batch.indices.cpu(),
            predictions.labels.cpu(),
            torch.where(predictions.finite, best.indices, NOTHING).cpu(),
            to_float64(torch.where(predictions.finite, best.values.exp(), torch.nan)).cpu(),
            to_float64(predictions.loss).cpu(),
            torch.where(predictions.finite, predictions.rank, UNKNOWN).cpu(),
        )

    @classmethod
    def together(cls, several: Sequence["Scores"]) -> "Scores":
        """The scores of several batches, in the order of the images."""
        order = torch.cat([one.image for one in several]).argsort()
        return cls(*(torch.cat([getattr(one, field.name) for one in several])[order] for field in fields(cls)))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Scores | None":
        """The scores that :attr:`tensors` wrote; None if there are none. Ranks not stored are :data:`UNKNOWN`."""
        if "scores.image" not in tensors:
            return None
        unknown = {"scores.rank": torch.full_like(tensors["scores.image"], UNKNOWN)}
        return cls(**{field.name: (unknown | dict(tensors))[f"scores.{field.name}"] for field in fields(cls)})

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The scores as tensors by name."""
        return {f"scores.{name}": value.contiguous() for name, value in vars(self).items()}

    @property
    def wrong(self) -> Tensor:
        """Which images are predicted wrong."""
        return self.predicted != self.label

    def dataset(self, images: Images) -> xr.Dataset:
        """The scores along the axis ``image``, with the pictures' names and the images' fingerprint."""
        numbers = self.image.numpy()
        names = [images.pictures.name(int(images.positions[number])) for number in numbers]
        coords: dict[str, Any] = {"image": ("image", numbers), "picture": ("image", np.array(names, dtype=str))}
        arrays = {name: ("image", _smallest(getattr(self, name).numpy()), words) for name, words in _WORDS.items()}
        group = xr.Dataset(
            arrays, coords, {"title": "Predictions, image by image", "fingerprint": images.fingerprint, APART: 1}
        )
        for array in group.variables.values():
            array.encoding = _COMPRESSED
        group["picture"].encoding = {**_COMPRESSED, "dtype": "S1"}  # variable-length text would not be compressed
        return group


def _smallest(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in the smallest type that holds every one of them exactly."""
    for kind in (np.int8, np.int16, np.int32) if values.dtype.kind == "i" else (np.float32,):
        with np.errstate(over="ignore", invalid="ignore"):
            small = values.astype(kind)
        if np.array_equal(small.astype(values.dtype), values, equal_nan=values.dtype.kind == "f"):
            return small
    return values
