"""What a model says of each image, kept image by image: where it errs is found there, and models compared in pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from vitscope.data import Images
from vitscope.data.batch import Batch
from vitscope.engine.reading.activation import Predictions
from vitscope.numerics.precision import doubled
from vitscope.runs.run import APART

SCORES = "predictions"
"""The group of a run that holds them."""
NOTHING = -1
"""The label of an image without one, and what is predicted of an image whose logits are not finite."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Of each image its number among the images, its label, the class predicted, how sure of it, and the loss."""

    image: Int[Tensor, " images"]
    label: Int[Tensor, " images"]
    predicted: Int[Tensor, " images"]
    confidence: Float[Tensor, " images"]
    loss: Float[Tensor, " images"]

    @classmethod
    def of(cls, batch: Batch, predictions: Predictions) -> "Scores":
        """Those of one batch."""
        best = predictions.log_probabilities.max(1)
        return cls(
            batch.indices.cpu(),
            predictions.labels.cpu(),
            torch.where(predictions.finite, best.indices, NOTHING).cpu(),
            doubled(torch.where(predictions.finite, best.values.exp(), torch.nan)).cpu(),
            doubled(predictions.loss).cpu(),
        )

    @classmethod
    def together(cls, several: Sequence["Scores"]) -> "Scores":
        """Those of several batches, in the order of the images."""
        order = torch.cat([one.image for one in several]).argsort()
        return cls(*(torch.cat([getattr(one, field.name) for one in several])[order] for field in fields(cls)))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Scores | None":
        """What :attr:`tensors` became; None if there were none."""
        named = {field.name: tensors.get(f"scores.{field.name}") for field in fields(cls)}
        return None if named["image"] is None else cls(**named)  # pyright: ignore[reportArgumentType]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The same as tensors by name."""
        return {f"scores.{name}": value.contiguous() for name, value in vars(self).items()}

    @property
    def wrong(self) -> Tensor:
        """Which images are not given their label."""
        return self.predicted != self.label

    def dataset(self, images: Images) -> xr.Dataset:
        """The scores along the axis ``image``, with the pictures' names beside it."""
        numbers = self.image.tolist()
        names = [images.pictures.name(int(images.positions[number])) for number in numbers]
        coords: dict[str, Any] = {"image": ("image", numbers), "picture": ("image", names)}
        words = {
            "label": ("Class of the image", "1", "Number of the image's class."),
            "predicted": (
                "Class predicted",
                "1",
                "Number of the most probable class; -1 if the logits are not finite.",
            ),
            "confidence": ("Confidence", "1", "Probability of the class predicted."),
            "loss": ("Negative log-likelihood", "nats", "Minus the log probability of the image's class."),
        }
        arrays = {
            name: ("image", getattr(self, name).numpy(), {"long_name": label, "units": unit, "meaning": meaning})
            for name, (label, unit, meaning) in words.items()
        }
        return xr.Dataset(arrays, coords, {"title": "Predictions, image by image", APART: 1})
