"""Images of many trials in one place, from which every trial takes its own batch at once."""

from typing import final

from jaxtyping import Float, Int64
from torch import Tensor

from vitscope.labs.shallow.mixing import PreparedImages


@final
class Pool:
    """Room for ``images`` images of each of ``slots`` trials; a slot is overwritten after its trial has ended."""

    def __init__(self, slots: int, images: int, like: PreparedImages) -> None:
        self.images = images
        self._columns = like.columns.new_zeros(slots * images, *like.columns.shape[2:])
        self._readout = like.readout.new_zeros(slots * images, *like.readout.shape[2:])
        self._labels = like.columns.new_zeros(slots * images)
        self._square = 0.0

    def put(self, slot: int, seen: PreparedImages, labels: Float[Tensor, "1 images"]) -> None:
        """Write one trial's images, at most ``images`` of them, into a slot."""
        rows = slice(slot * self.images, slot * self.images + labels.shape[1])
        self._columns[rows], self._readout[rows], self._labels[rows] = seen.columns[0], seen.readout[0], labels[0]
        self._square = max(self._square, seen.square)

    def take(self, rows: Int64[Tensor, "trials images"]) -> tuple[PreparedImages, Float[Tensor, "trials images"]]:
        """The images of these rows; a slot's first row is ``slot * images``."""
        flat = rows.flatten()
        columns, readout, labels = (
            part.index_select(0, flat).unflatten(0, rows.shape) for part in (self._columns, self._readout, self._labels)
        )
        return PreparedImages(columns, readout, self._square), labels
