"""What reading images gives: batches, and the names of those that could not be read."""

from dataclasses import dataclass, replace
from typing import final

from jaxtyping import Bool, Float, Int
from torch import Tensor


@final
@dataclass(frozen=True)
class Broken:
    """An image that could not be read: where it is, and why it failed."""

    name: str
    reason: str


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """One fixed slice of the images, less those that are broken (all of them may be: then the batch has no rows).

    `indices` are positions in the `Images` the batch came from: `images.read(int(batch.indices[0]))` is its first
    image. `labels` is None where the images have none.
    """

    pixels: Float[Tensor, "batch channels height width"]
    labels: Int[Tensor, "batch"] | None
    indices: Int[Tensor, "batch"]
    broken: tuple[Broken, ...]
    targets: Float[Tensor, "batch classes"] | None = None
    """Soft labels (Mixup, CutMix, label smoothing); None where the labels say it all."""

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, rows: Bool[Tensor, "batch"]) -> "Batch":
        """These of its images."""
        labels, targets = (None if one is None else one[rows] for one in (self.labels, self.targets))
        return replace(self, pixels=self.pixels[rows], labels=labels, indices=self.indices[rows], targets=targets)
