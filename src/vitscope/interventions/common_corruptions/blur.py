"""Corruptions by blur."""

import math

import numpy as np
from jaxtyping import Float
from scipy import ndimage, signal

from vitscope.interventions.common_corruptions.picture import Levels, Parameters, Picture


def defocus_blur(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """A lens out of focus: the mean over a disc of given radius, its edge softened by a Gaussian of given deviation."""
    del generator
    kernel = softened_disc(*parameters)
    reach = len(kernel) // 2
    padded = np.pad(picture / 255, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    return 255 * np.asarray(signal.oaconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1)))


def softened_disc(radius: float | int, softness: float | int) -> Float[np.ndarray, "side side"]:
    """The kernel of the defocus blur. As published, its sum is not quite one where the disc fills its square."""
    reach = max(8, int(radius))
    axis = np.arange(-reach, reach + 1)
    disc = (axis[:, None] ** 2 + axis[None] ** 2 <= radius**2).astype(np.float64)
    disc /= disc.sum()
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    gauss = np.exp(-(taps**2) / (2 * softness**2))
    for dimension in (0, 1):
        disc = ndimage.correlate1d(disc, gauss / gauss.sum(), axis=dimension, mode="mirror")
    return disc


def glass_blur(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """Frosted glass: a Gaussian blur, pixels taken from near by, the blur again.

    From the last pixel to the first, each takes the value that a random neighbour has by then. The published program
    means to swap the two, but its swap of two views of one array copies, and the published pictures were made that way.
    """
    deviation, reach, rounds = parameters[0], int(parameters[1]), int(parameters[2])
    height, width, channels = picture.shape
    blurred = np.floor(gaussian(picture / 255, deviation) * 255)
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    here = (rows[:, None] * width + columns[None]).ravel()
    taken = list(range(height * width))
    for _ in range(rounds):
        moves = generator.integers(-reach, reach, size=(len(here), 2))
        there = here + moves[:, 1] * width + moves[:, 0]
        for target, source in zip(here.tolist(), there.tolist(), strict=True):
            taken[target] = taken[source]
    shuffled = blurred.reshape(-1, channels)[taken].reshape(picture.shape)
    return 255 * gaussian(shuffled / 255, deviation)


def gaussian(levels: Levels, deviation: float | int) -> Levels:
    """Each channel blurred by a Gaussian cut off at four deviations, the border repeated."""
    return ndimage.gaussian_filter(levels, (deviation, deviation, 0), mode="nearest", truncate=4.0)


def motion_blur(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """A moving camera: the mean along half a line within 45 degrees of the horizontal."""
    return along_line(picture.astype(np.float64), parameters[0], parameters[1], generator.uniform(-45, 45))


def along_line(levels: Levels, radius: float | int, deviation: float | int, degrees: float | int) -> Levels:
    """ImageMagick's motion blur: half a Gaussian of ``2 radius + 1`` taps from each pixel on, the border repeated."""
    taps = 2 * math.ceil(radius) + 1
    weights = np.exp(-(np.arange(taps) ** 2) / (2 * deviation**2))
    weights /= weights.sum()
    angle = math.radians(degrees)
    rows, columns = np.arange(levels.shape[0]), np.arange(levels.shape[1])
    total = np.zeros_like(levels)
    for tap, weight in enumerate(weights):
        down, right = math.ceil(tap * math.sin(angle) - 0.5), math.ceil(tap * math.cos(angle) - 0.5)
        lines = np.take(levels, np.clip(rows + down, 0, len(rows) - 1), axis=0)
        total += weight * np.take(lines, np.clip(columns + right, 0, len(columns) - 1), axis=1)
    return total


def zoom_blur(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """A camera moving towards the scene: the mean of the picture and its centre magnified step by step."""
    del generator
    stop, step = parameters
    factors = np.arange(1, stop, step)
    levels = picture.astype(np.float64)
    return (levels + sum(magnify(levels, float(factor)) for factor in factors)) / (len(factors) + 1)


def magnify(levels: Levels, factor: float | int) -> Levels:
    """The centre of the picture, magnified to the size of the whole by linear interpolation."""
    sizes = levels.shape[:2]
    crops = [math.ceil(size / factor) for size in sizes]
    tops = [(size - crop) // 2 for size, crop in zip(sizes, crops, strict=True)]
    centre = levels[tops[0] : tops[0] + crops[0], tops[1] : tops[1] + crops[1]]
    zoomed = np.asarray(ndimage.zoom(centre, (factor, factor, 1), order=1))
    trims = [(grown - size) // 2 for grown, size in zip(zoomed.shape, sizes, strict=False)]
    return zoomed[trims[0] : trims[0] + sizes[0], trims[1] : trims[1] + sizes[1]]
