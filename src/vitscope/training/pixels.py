"""The images of a training as bytes at the model's input size, decoded once if memory allows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

from vitscope.data.batch import Broken
from vitscope.data.decode import BrokenImage
from vitscope.data.image import Images
from vitscope.measurement.errors import UserError
from vitscope.models.pixels import PixelInput


@dataclass(frozen=True, eq=False)
class Pixels:
    """Readable images; ``cached`` holds the bytes of all, or None if each is read when it is needed.

    ``rows`` are the positions of the readable images in ``images``: broken ones are left out.
    """

    images: Images
    input: PixelInput
    rows: Int[np.ndarray, " count"]
    labels: Int[np.ndarray, " count"]
    """Their classes; zeros if they have none."""
    labelled: bool
    cached: UInt8[np.ndarray, "count height width channels"] | None

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, indices: Int[np.ndarray, " batch"]) -> UInt8[np.ndarray, "batch height width channels"]:
        """These images at the input's size."""
        if self.cached is not None:
            return self.cached[indices]
        return np.stack([self.input.pixels(self.images.read(int(row))) for row in self.rows[indices]])


def pixels(
    images: Images, input: PixelInput, cache_bytes: float, given: Int[np.ndarray, " images"] | None = None
) -> Pixels:
    """The images, decoded now if their bytes fit into ``cache_bytes``; if not, read once to find the broken ones.

    ``given`` labels replace their own. Raises ``UserError`` for more broken images than ``images`` allows.
    """
    found = images.labels if given is None else given
    rows, labels = np.arange(len(images)), np.asarray(np.zeros(len(images)) if found is None else found, np.int64)
    channels, height, width = input.shape
    size = (height, width, channels)
    fits = len(images) * int(np.prod(size)) <= cache_bytes
    broken: list[Broken] = []
    cached = np.empty((len(images), *size), np.uint8) if fits else None
    readable = np.ones(len(images), bool)
    for row in range(len(images)):
        try:
            picture = images.read(row)
            if cached is not None:
                cached[row] = input.pixels(picture)
        except BrokenImage as error:
            readable[row] = False
            broken.append(Broken(error.name, error.reason))
            images.check_broken(broken)
    if broken and cached is not None:
        cached = cached[readable]
    return Pixels(images, input, rows[readable], labels[readable], found is not None, cached)


def statistics(images: Images, input: PixelInput) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over at most 2000 evenly spaced images, in the range 0 to 1."""
    found: list[UInt8[np.ndarray, "height width channels"]] = []
    for row in np.unique(np.linspace(0, len(images) - 1, min(len(images), 2000)).astype(int)).tolist():
        try:
            found.append(input.pixels(images.read(row)))
        except BrokenImage:
            continue  # counted where all images are read
    if not found:
        raise UserError(f"{images.name} has no image that can be read.")
    stacked = np.stack(found) / 255
    mean, std = stacked.mean((0, 1, 2)), stacked.std((0, 1, 2)).clip(1 / 255)
    return _round_all(mean.tolist()), _round_all(std.tolist())


def _round_all(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values)
