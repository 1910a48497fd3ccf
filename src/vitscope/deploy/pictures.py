"""Images for contestants to run on, and the time to read them."""

import time
from collections.abc import Callable

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vitscope.data import Images
from vitscope.deploy.backend import Shape
from vitscope.measurement.errors import UserError

Transform = Callable[[Image.Image], Tensor]
_BATCHES = 5


def make_noise(batch: int, shape: Shape) -> Float[Tensor, "batch channels height width"]:
    """Images of standard normal noise, the same ones every time."""
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))


def first_batch(images: Images, transform: Transform, batch: int) -> Float[Tensor, "batch channels height width"]:
    """The first images as model input, repeated if there are too few."""
    found = next(iter(images.batches(transform, min(batch, len(images)))))
    if not len(found.pixels):
        raise UserError(f"None of the first {batch} of {images.name} can be read; give others to time the models on.")
    return found.pixels[torch.arange(batch) % len(found.pixels)]


def read_times(images: Images, transform: Transform, batch: int) -> tuple[float, ...]:
    """Seconds to read each of five batches after an untimed one, repeating batches if there are too few.

    Pictures are decoded by the threads of one process, as vitscope does it.
    """
    count = max(len(images) // batch, 1)
    found: list[float] = []
    for number in range(_BATCHES + 1):
        began = time.perf_counter()
        read = sum(len(one.pixels) for one in images.batches(transform, batch, number % count, number % count + 1))
        found.append((time.perf_counter() - began) * batch / max(read, 1))
    return tuple(found[1:])
