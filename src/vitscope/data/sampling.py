"""Which images to take when not all are wanted."""

import numpy as np
from jaxtyping import Int


def subset(labels: Int[np.ndarray, "images"] | None, images: int, limit: int, seed: int) -> Int[np.ndarray, "chosen"]:
    """The positions of `limit` of the `images`, sorted: as equal per class as can be, else uniform; all if fewer.

    Shuffle, number the images of each class in that order, and take the smallest numbers: class counts then differ
    by at most one, except for classes that have too few. For one seed the smaller subset lies in the larger.
    """
    shuffled = np.random.default_rng(seed).permutation(images)
    if labels is None:
        return np.sort(shuffled[:limit])
    grouped = np.argsort(labels[shuffled], kind="stable")
    _, first, count = np.unique(labels[shuffled][grouped], return_index=True, return_counts=True)
    number = np.empty(images, dtype=np.int64)
    number[grouped] = np.arange(images) - np.repeat(first, count)
    return np.sort(shuffled[np.argsort(number, kind="stable")[:limit]])
