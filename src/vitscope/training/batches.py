"""Which images each step takes, in what order and how augmented: a function of seed and step alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, UInt8
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from vitscope.data.augmentation import DRAWS
from vitscope.training.augmentation import RecipeAugmentation
from vitscope.training.objective import TrainingBatch
from vitscope.training.pixels import Pixels


@dataclass(frozen=True, eq=False)
class Draw:
    """A device's share of one step: its images, and the numbers drawn for each of them."""

    indices: Int[np.ndarray, " batch"]
    uniforms: Float[np.ndarray, "batch draws"]
    seeds: Int[np.ndarray, " batch"]


@dataclass(frozen=True)
class StepPlan:
    """All steps of a training: ``epochs`` shuffled passes over ``count`` images, ``batch`` at a time.

    Each epoch has its own generator for order and draws, so a training can begin at any step. Each image has its own
    draws, so they do not depend on how devices share a batch.
    """

    seed: int
    count: int
    batch: int
    epochs: int
    rank: int = 0
    devices: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.count // self.batch

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.steps_per_epoch * self.epochs

    def draws(self, start: int) -> Iterator[Draw]:
        """The draws of this device for step ``start`` and later."""
        for epoch in range(start // self.steps_per_epoch, self.epochs):
            generator = np.random.default_rng([self.seed, epoch])
            order = generator.permutation(self.count)
            uniforms = generator.random((self.count, DRAWS), np.float32)
            seeds = generator.integers(0, 2**32, self.count)
            first = start % self.steps_per_epoch if epoch == start // self.steps_per_epoch else 0
            for step in range(first, self.steps_per_epoch):
                indices = order[step * self.batch + self.rank : (step + 1) * self.batch : self.devices]
                yield Draw(indices, uniforms[indices], seeds[indices])


@dataclass(frozen=True, eq=False)
class _Draws:
    plan: StepPlan
    start: int

    def __iter__(self) -> Iterator[Draw]:
        return self.plan.draws(self.start)

    def __len__(self) -> int:
        return self.plan.steps - self.start


@dataclass(frozen=True, eq=False)
class _Augmented(Dataset[tuple[Tensor, Tensor]]):
    pixels: Pixels
    augmentation: RecipeAugmentation

    def __getitem__(self, index: Draw) -> tuple[UInt8[Tensor, "batch height width channels"], Int64[Tensor, " batch"]]:
        labels = torch.from_numpy(self.pixels.labels[index.indices])
        return torch.from_numpy(np.ascontiguousarray(self._augment(index))), labels

    def _augment(self, draw: Draw) -> UInt8[np.ndarray, "batch height width channels"]:
        if self.augmentation.crop != "resized":
            return self.augmentation.batch(self.pixels.read(draw.indices), draw.uniforms, draw.seeds)
        rows = self.pixels.rows[draw.indices].tolist()
        pictures = (self.pixels.images.read(row) for row in rows)
        parts = [self.augmentation.part(*each) for each in zip(pictures, draw.uniforms, strict=True)]
        return self.augmentation.batch(np.stack(parts), draw.uniforms, draw.seeds)


def augmented_batches(
    pixels: Pixels, augmentation: RecipeAugmentation, plan: StepPlan, start: int, workers: int, pin: bool
) -> Iterator[tuple[UInt8[Tensor, "batch height width channels"], Int64[Tensor, " batch"]]]:
    """Bytes and labels for step ``start`` and later, prepared ahead of time by ``workers`` processes."""
    loader = DataLoader(
        _Augmented(pixels, augmentation),
        batch_size=None,  # a sample is a whole batch already
        sampler=_Draws(plan, start),  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(0),  # the loader draws from it, but nothing uses the draws
    )
    return iter(loader)


def as_batch(
    pixels: Pixels, indices: Int[np.ndarray, " batch"], classes: tuple[str, ...], device: torch.device
) -> TrainingBatch:
    """An evaluation batch: these images without augmentation, with one-hot targets if they have labels."""
    images = pixels.input.normalise(torch.from_numpy(pixels.read(indices)).to(device))
    if not pixels.labelled:
        return TrainingBatch(images, None, None, pixels.input, classes)
    labels = torch.from_numpy(pixels.labels[indices]).to(device)
    targets = functional.one_hot(labels, len(classes)).to(torch.float32)
    return TrainingBatch(images, labels, targets, pixels.input, classes)
