"""Which images to take when not all are wanted."""

import numpy as np
from jaxtyping import Int

from vitscope.measurement.bounds import SEED, check_number


def subset(labels: Int[np.ndarray, "images"] | None, images: int, limit: int, seed: int) -> Int[np.ndarray, "chosen"]:
    """The positions of `limit` of the `images`, sorted, of each class in proportion to its size; all if fewer.

    Number the n images of each class in a random order from 0, add to all of them one uniform number of the class, and
    divide by n: these are their places on a line that all classes share, and the smallest are taken. A class's part of
    the sample is its size times a factor that is the same for all, rounded up or down at random; of classes of one
    size, counts differ by at most one. So the sample's mean estimates that of the whole data set, and varies less than
    the mean of as many images drawn without regard to class: standard errors stated for such are upper bounds. For one
    seed the smaller subset lies in the larger. Without labels, all images are one class.
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
