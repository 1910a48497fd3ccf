"""Sampling of images, each class in proportion to its size."""

import numpy as np
from jaxtyping import Int

from vitscope.measurement.bounds import SEED, check_number


def subset(labels: Int[np.ndarray, "images"] | None, images: int, limit: int, seed: int) -> Int[np.ndarray, "chosen"]:
    """The sorted positions of `limit` of the `images`, each class in proportion to its size; all if fewer.

    The n images of each class are numbered from 0 in a random order, shifted by one uniform number for the class and
    divided by n: these are their places on a line that all classes share, and the smallest are taken. A class's part of
    the sample is its size times a common factor, rounded up or down at random; for classes of one size, counts differ
    by at most one. So the sample's mean estimates that of the whole data set, and varies less than the mean of as many
    images drawn regardless of class, whose standard errors are therefore upper bounds. With one seed, a smaller subset
    lies in a larger one. Without labels, all images are one class.
    """
    check_number("The seed", seed, SEED)
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(images)
    if labels is None:
        return np.sort(shuffled[:limit])
    _, classes, sizes = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    grouped = np.argsort(classes, kind="stable")
    number = np.empty(images, dtype=np.int64)
    number[grouped] = np.arange(images) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = (number + generator.random(len(sizes))[classes]) / sizes[classes]
    return np.sort(shuffled[np.argsort(places, kind="stable")[:limit]])
