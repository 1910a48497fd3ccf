"""Augmentation: each image changed by numbers that were drawn for it, so that who changes it and when is all one."""

import random
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.mixup import Mixup
from torch import Tensor
from torch.nn import functional

from vitscope.models.pixels import PixelInput
from vitscope.training.recipe import Recipe

DRAWS = 5
"""Uniform numbers an image needs: mirroring, vertical and horizontal position, area, aspect ratio of the crop."""


def derived_seed(*numbers: int) -> int:
    """A seed of 32 bits from several numbers; other numbers, an unrelated seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextmanager
def python_seeded(seed: int) -> Generator[None]:
    """Python's and NumPy's global random states begin at ``seed`` in the block, and are as they were after it.

    timm's RandAugment, Mixup and CutMix draw from these two and cannot be given a generator. The states belong to the
    process, not to a thread: use it in one thread of a process at a time.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def step_seeded(seed: int, device: torch.device) -> Generator[None]:
    """The same, with torch's states of the CPU and of ``device``, from which dropout and stochastic depth draw."""
    devices = [device] if device.type == "cuda" else []
    with python_seeded(seed), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Augmentation:
    """Crop, mirror, RandAugment, in this order, for the input of a model; ``crop`` is ``padded``, ``resized`` or none.

    What the image does not reach is filled with the mean colour.
    """

    recipe: Recipe
    crop: str
    input: PixelInput

    def batch(
        self,
        pixels: UInt8[np.ndarray, "batch height width channels"],
        draws: Float[np.ndarray, "batch draws"],
        seeds: Int[np.ndarray, " batch"],
    ) -> UInt8[np.ndarray, "batch height width channels"]:
        """Images of the input's size, each changed by its own draws and seed. Cost: RandAugment, about 0.1 ms each."""
        pixels = self._shifted(pixels, draws) if self.crop == "padded" else pixels
        if self.recipe.flip:
            pixels = np.where((draws[:, 0] < 0.5)[:, None, None, None], pixels[:, :, ::-1], pixels)
        return self._randaugmented(pixels, seeds) if self.recipe.randaugment else pixels

    def part(
        self, picture: Image.Image, draws: Float[np.ndarray, " draws"]
    ) -> UInt8[np.ndarray, "height width channels"]:
        """A random part of a picture at the input's size (Szegedy et al. 2015).

        Its area is uniform between ``least_area`` and 1 of the picture's, the logarithm of its aspect ratio between
        those of 3/4 and 4/3; a side that does not fit into the picture is cut to it.
        """
        width, height = picture.size
        area = width * height * (self.recipe.least_area + (1 - self.recipe.least_area) * float(draws[3]))
        ratio = (4 / 3) ** (2 * float(draws[4]) - 1)
        w, h = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
        left, top = (width - w) * float(draws[2]), (height - h) * float(draws[1])
        mode = picture.convert("L" if self.input.channels == 1 else "RGB")
        size = (self.input.image, self.input.image)
        cut = mode.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))
        return np.array(cut).reshape(*size, self.input.channels)

    @property
    def _fill(self) -> tuple[int, ...]:
        mean = self.input.mean * (self.input.channels // len(self.input.mean))
        return tuple(min(255, round(255 * value)) for value in mean)

    def _shifted(
        self, pixels: UInt8[np.ndarray, "batch height width channels"], draws: Float[np.ndarray, "batch draws"]
    ) -> UInt8[np.ndarray, "batch height width channels"]:
        side = pixels.shape[1]
        border = round(self.recipe.padding * side)
        padded = np.empty((len(pixels), side + 2 * border, side + 2 * border, pixels.shape[3]), np.uint8)
        padded[:] = self._fill
        padded[:, border : border + side, border : border + side] = pixels
        top, left = (np.minimum(draws[:, i] * (2 * border + 1), 2 * border).astype(np.int64) for i in (1, 2))
        rows, columns = (start[:, None] + np.arange(side) for start in (top, left))
        return padded[np.arange(len(pixels))[:, None, None], rows[:, :, None], columns[:, None, :]]

    def _randaugmented(
        self, pixels: UInt8[np.ndarray, "batch height width channels"], seeds: Int[np.ndarray, " batch"]
    ) -> UInt8[np.ndarray, "batch height width channels"]:
        fill = self._fill[0] if self.input.channels == 1 else self._fill
        settings = {"translate_const": int(0.45 * self.input.image), "img_mean": fill}
        policy = rand_augment_transform(f"rand-m{self.recipe.randaugment}-n2-mstd1.0", settings)
        changed = np.empty(pixels.shape, np.uint8)
        for image, seed, out in zip(pixels, seeds, changed, strict=True):
            picture = Image.fromarray(image[:, :, 0] if self.input.channels == 1 else np.ascontiguousarray(image))
            with python_seeded(int(seed)):
                out[:] = np.asarray(policy(picture)).reshape(out.shape)
        return changed


def mixed(
    recipe: Recipe, images: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"], classes: int
) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, "batch classes"]]:
    """Images and targets after Mixup or CutMix and label smoothing; within :func:`step_seeded`."""
    smoothing = recipe.label_smoothing
    if recipe.mixes:
        mix = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=smoothing, num_classes=classes)
        return mix(images.clone(), labels)
    return images, functional.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
