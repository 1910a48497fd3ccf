"""Augmentation: numbers drawn for each image decide its changes, so the process and the order do not matter."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from timm.data.mixup import Mixup
from torch import Tensor
from torch.nn import functional

from vitscope.data.augmentation import (
    apply_randaugment,
    mirror_half,
    python_seeded,
    randaugment,
    random_part,
    shift_crops,
)
from vitscope.models.pixels import PixelInput
from vitscope.training.recipe import Recipe


def derived_seed(*numbers: int) -> int:
    """A 32-bit seed from several numbers; different numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextmanager
def step_seeded(seed: int, device: torch.device) -> Generator[None]:
    """``python_seeded`` that also seeds torch on the CPU and ``device``, from which dropout and drop path draw."""
    devices = [device] if device.type == "cuda" else []
    with python_seeded(seed), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class RecipeAugmentation:
    """Crop, mirror and RandAugment, in this order, for a model's input; ``crop`` is ``padded``, ``resized`` or none.

    Empty areas are filled with the mean colour.
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
        """Augment images of the input's size, each by its own draws and seed. Cost: RandAugment, about 0.1 ms each."""
        pixels = shift_crops(pixels, draws, self.recipe.padding, self._fill) if self.crop == "padded" else pixels
        pixels = mirror_half(pixels, draws) if self.recipe.flip else pixels
        return self._apply_randaugment(pixels, seeds) if self.recipe.randaugment else pixels

    def part(
        self, picture: Image.Image, draws: Float[np.ndarray, " draws"]
    ) -> UInt8[np.ndarray, "height width channels"]:
        """A random part of a picture at the input's size; see :func:`~vitscope.data.augmentation.random_part`."""
        mode = picture.convert("L" if self.input.channels == 1 else "RGB")
        channels, height, width = self.input.shape
        box = random_part(picture.size, self.recipe.least_area, draws)
        cut = mode.resize((width, height), Image.Resampling.BICUBIC, box=box)
        return np.array(cut).reshape(height, width, channels)

    @property
    def _fill(self) -> tuple[int, ...]:
        mean = self.input.mean * (self.input.channels // len(self.input.mean))
        return tuple(min(255, round(255 * value)) for value in mean)

    def _apply_randaugment(
        self, pixels: UInt8[np.ndarray, "batch height width channels"], seeds: Int[np.ndarray, " batch"]
    ) -> UInt8[np.ndarray, "batch height width channels"]:
        policy = randaugment(self.recipe.randaugment, max(self.input.shape[1:]), self._fill)
        changed = [apply_randaugment(policy, image, int(seed)) for image, seed in zip(pixels, seeds, strict=True)]
        return np.stack(changed)


def mix_batch(
    recipe: Recipe, images: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"], classes: int
) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, "batch classes"]]:
    """Images and targets after Mixup or CutMix and label smoothing; call it within :func:`step_seeded`."""
    smoothing = recipe.label_smoothing
    if recipe.mixes:
        mix = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=smoothing, num_classes=classes)
        return mix(images.clone(), labels)
    return images, functional.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
