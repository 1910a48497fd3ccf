"""The results of reading images: batches, and the images that could not be read."""

from dataclasses import dataclass, replace
from typing import final

from jaxtyping import Bool, Float, Int
from torch import Tensor


@final
@dataclass(frozen=True)
class Broken:
    """An image that could not be read: its name, and why it failed."""

    name: str
    reason: str


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """One fixed slice of the images without the broken ones (the batch has no rows if all are broken).

    `indices` are positions in the `Images` the batch came from: `images.read(int(batch.indices[0]))` is its first
    image. `labels` is None if the images have none.
    """

    pixels: Float[Tensor, "batch channels height width"]
    labels: Int[Tensor, "batch"] | None
    indices: Int[Tensor, "batch"]
    broken: tuple[Broken, ...]
    targets: Float[Tensor, "batch classes"] | None = None
    """Soft labels (Mixup, CutMix, label smoothing); None if targets are the labels."""

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, rows: Bool[Tensor, "batch"]) -> "Batch":
        """The batch of the images at these rows."""
        labels, targets = (None if one is None else one[rows] for one in (self.labels, self.targets))
        return replace(self, pixels=self.pixels[rows], labels=labels, indices=self.indices[rows], targets=targets)
