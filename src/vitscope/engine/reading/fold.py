"""The fold behind every diagnostic of per-image numbers: means over images, layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitscope.numerics.moments import Moments, moments
from vitscope.numerics.precision import to_float64

Observations = Mapping[tuple[int, str], Float[Tensor, "batch ..."]]
"""Per-image numbers of one batch, by layer and quantity."""


@dataclass(frozen=True)
class Slot:
    """Where a layer's quantity lies in the flat moments."""

    layer: int
    quantity: str
    shape: tuple[int, ...]
    start: int

    @property
    def stop(self) -> int:
        """One past the last entry."""
        return self.start + int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Means:
    """Moments over images of many per-image quantities; ``moments`` is None before the first batch."""

    slots: tuple[Slot, ...] = ()
    moments: Moments | None = None

    def update(self, observations: Observations) -> "Means":
        """The means with one more batch of images."""
        return self if not observations else self.merge(_means_of(observations))

    def merge(self, other: "Means") -> "Means":
        """Both sets of images together."""
        if self.moments is None:
            return other
        if other.moments is None:
            return self
        if self.slots != other.slots:
            raise ValueError("These folds come from different models or diagnostics and cannot be merged.")
        return Means(self.slots, self.moments.merge(other.moments))

    def layers(self, quantity: str) -> tuple[int, ...]:
        """The layers at which a quantity was observed."""
        return tuple(slot.layer for slot in self.slots if slot.quantity == quantity)

    def parts(self, layer: int, quantity: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Mean, standard error and count."""
        return self.mean(layer, quantity), self.error(layer, quantity), self.count(layer, quantity)

    def mean(self, layer: int, quantity: str) -> NDArray[np.float64]:
        """The mean over images."""
        return self._read(layer, quantity, self._moments.observed_mean)

    def error(self, layer: int, quantity: str) -> NDArray[np.float64]:
        """The standard error of the mean."""
        return self._read(layer, quantity, self._moments.standard_error)

    def count(self, layer: int, quantity: str) -> NDArray[np.int64]:
        """How many images it was observed on."""
        return self._read(layer, quantity, self._moments.count)

    @property
    def _moments(self) -> Moments:
        if self.moments is None:
            raise ValueError("Nothing has been observed yet.")
        return self.moments

    def _read(self, layer: int, quantity: str, values: Tensor) -> NDArray[Any]:
        slot = next(slot for slot in self.slots if (slot.layer, slot.quantity) == (layer, quantity))
        return values[slot.start : slot.stop].numpy().reshape(slot.shape)


def _means_of(observations: Observations) -> Means:
    slots: list[Slot] = []
    for (layer, quantity), values in observations.items():
        slots.append(Slot(layer, quantity, tuple(values.shape[1:]), slots[-1].stop if slots else 0))
    flat = torch.cat([to_float64(values).reshape(len(values), -1).cpu() for values in observations.values()], dim=1)
    return Means(tuple(slots), moments(flat))
