"""The augmentation of pictures, given the numbers drawn for them."""

import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

DRAWS = 5
"""Uniform numbers that a picture needs: mirroring, vertical and horizontal position, area, aspect ratio of the crop."""

Policy = Callable[[Image.Image], Image.Image]


@contextmanager
def python_seeded(seed: int) -> Generator[None]:
    """Seed Python's and NumPy's global random states within the block, and restore them after it.

    timm's RandAugment, Mixup and CutMix draw from these two and cannot be given a generator. The states belong to the
    process, not to a thread: use this in one thread of a process at a time.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def randaugment(magnitude: int, side: int, fill: tuple[int, ...]) -> Policy:
    """RandAugment (Cubuk et al. 2020) by timm: two operations of ``magnitude``, standard deviation 1.

    ``side`` is that of the pictures, which it shifts by at most 0.45 of it; ``fill`` is the colour of uncovered areas.
    Posterising keeps at least one bit: below magnitude 2.5 timm would keep none, and Pillow fails. The returned policy
    draws from global states: call it within :func:`python_seeded`.
    """
    from timm.data.auto_augment import rand_augment_transform

    settings = {"translate_const": int(0.45 * side), "img_mean": fill[0] if len(fill) == 1 else fill}
    policy: Any = rand_augment_transform(f"rand-m{magnitude}-n2-mstd1.0", settings)
    for operation in policy.ops:
        if operation.name == "Posterize":
            operation.level_fn = partial(_at_least_one, operation.level_fn)
    return policy


def _at_least_one(level: Callable[..., tuple[int]], magnitude: float, hparams: object) -> tuple[int]:
    return (max(1, level(magnitude, hparams)[0]),)


def apply_randaugment(
    policy: Policy, pixels: UInt8[np.ndarray, "height width channels"], seed: int
) -> UInt8[np.ndarray, "height width channels"]:
    """The picture after ``policy``, whose randomness follows from ``seed``. Cost: about 0.1 ms."""
    grey = pixels.shape[2] == 1
    picture = Image.fromarray(pixels[:, :, 0] if grey else np.ascontiguousarray(pixels))
    with python_seeded(seed):
        return np.asarray(policy(picture)).reshape(pixels.shape)


def shift_crops(
    pixels: UInt8[np.ndarray, "batch height width channels"],
    draws: Float[np.ndarray, "batch draws"],
    padding: float,
    fill: tuple[int, ...],
) -> UInt8[np.ndarray, "batch height width channels"]:
    """Crops of the pictures' own size from the pictures within a border of ``padding`` times the side."""
    count, height, width, channels = pixels.shape
    down, right = round(padding * height), round(padding * width)
    padded = np.empty((count, height + 2 * down, width + 2 * right, channels), np.uint8)
    padded[:] = fill
    padded[:, down : down + height, right : right + width] = pixels
    top = np.minimum(draws[:, 1] * (2 * down + 1), 2 * down).astype(np.int64)
    left = np.minimum(draws[:, 2] * (2 * right + 1), 2 * right).astype(np.int64)
    rows, columns = top[:, None] + np.arange(height), left[:, None] + np.arange(width)
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def mirror_half(
    pixels: UInt8[np.ndarray, "batch height width channels"], draws: Float[np.ndarray, "batch draws"]
) -> UInt8[np.ndarray, "batch height width channels"]:
    """Mirror half of the pictures left to right, and leave the others as they are."""
    return np.where((draws[:, 0] < 0.5)[:, None, None, None], pixels[:, :, ::-1], pixels)


def random_part(
    size: tuple[int, int], least_area: float, draws: Float[np.ndarray, " draws"]
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a random part of a picture of ``size`` (Szegedy et al. 2015).

    Its area is uniform between ``least_area`` and 1 of the picture's, the logarithm of its aspect ratio between those
    of 3/4 and 4/3; a side longer than the picture's is cut to it.
    """
    width, height = size
    area = width * height * (least_area + (1 - least_area) * float(draws[3]))
    ratio = (4 / 3) ** (2 * float(draws[4]) - 1)
    w, h = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
    left, top = (width - w) * float(draws[2]), (height - h) * float(draws[1])
    return left, top, left + w, top + h
