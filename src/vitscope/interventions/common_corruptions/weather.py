"""Corruptions by weather."""

import math

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from vitscope.interventions.common_corruptions.blur import along_line, magnify
from vitscope.interventions.common_corruptions.picture import Levels, Parameters, Picture

Field = Float[np.ndarray, "height width"]


def snow(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """Falling snow: a whitened picture with streaks of bright spots over it, and the same streaks upside down."""
    mean, deviation, zoom, threshold, radius, blur, kept = parameters
    levels = picture / 255
    spots = magnify(generator.normal(mean, deviation, (*picture.shape[:2], 1)), zoom)
    spots = np.clip(np.where(spots < threshold, 0, spots), 0, 1)
    streaks = along_line(spots, radius, blur, generator.uniform(-135, -45))
    streaks = np.round(streaks * 255) / 255
    grey = levels @ np.array([0.299, 0.587, 0.114])[:, None] if picture.shape[2] == 3 else levels
    whitened = kept * levels + (1 - kept) * np.maximum(levels, grey * 1.5 + 0.5)
    return 255 * (whitened + streaks + np.rot90(streaks, 2))


def fog(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """Fog: a plasma fractal added, then the whole dimmed to the picture's own white."""
    amount, decay = parameters
    levels = picture / 255
    height, width = picture.shape[:2]
    cloud = plasma(1 << (max(height, width) - 1).bit_length(), decay, generator)[:height, :width, None]
    white = levels.max()
    return 255 * (levels + amount * cloud) * white / (white + amount)


def plasma(side: int, decay: float | int, generator: np.random.Generator) -> Float[np.ndarray, "side side"]:
    """The diamond-square fractal on a torus, 0 to 1: each finer grid is the mean of its neighbours and a random term.

    The terms' range starts at 100 squared and is divided by ``decay`` squared from one grid to the next; ``side`` is a
    power of two.
    """
    heights = np.zeros((side, side))
    step, amplitude = side, 100.0
    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        centres = _disturb(pairs + np.roll(pairs, -1, 1), amplitude, generator)
        heights[half::step, half::step] = centres
        beside = centres + np.roll(centres, 1, 0) + corners + np.roll(corners, -1, 1)
        below = centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0)
        heights[::step, half::step] = _disturb(beside, amplitude, generator)
        heights[half::step, ::step] = _disturb(below, amplitude, generator)
        step, amplitude = half, amplitude / decay
    heights -= heights.min()
    return heights / max(float(heights.max()), 1e-12)


def _disturb(sums: Field, amplitude: float, generator: np.random.Generator) -> Field:
    return sums / 4 + amplitude * generator.uniform(-amplitude, amplitude, sums.shape)


def frost(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """Frost on a window: the picture darkened and a layer of frost added, at the published weights.

    The published sets add photographs of frost, which may not be redistributed; here the layer is drawn (see
    :func:`ice`), matching them in brightness, deviation and the fall of their spectra. Figures for frost can be
    compared with one another, not with published ones.
    """
    kept, added, size = parameters
    layer = ice(picture.shape[0], picture.shape[1], size, generator)
    if picture.shape[2] == 1:
        layer = layer.mean(2, keepdims=True)
    return kept * picture + added * 255 * layer


def ice(
    height: int, width: int, size: float | int, generator: np.random.Generator
) -> Float[np.ndarray, "height width 3"]:
    """A window of ice, 0 to 1: feathered needles over a cloudy ground, bluish.

    Mean brightness 0.47 to 0.83 and deviation 0.07 to 0.16, as of the published photographs; ``size`` is how much
    smaller than these it is shown.
    """
    shape = (math.ceil(2 * height / size), math.ceil(2 * width / size))
    drawn = _needles(shape, generator).resize((width, height), Image.Resampling.BOX)
    needles = np.asarray(drawn, dtype=np.float64)
    ground = _cloudy(height, width, generator)
    layer = _standard(needles) + 0.7 * _standard(ground)
    brightness, deviation = generator.uniform(0.47, 0.83), generator.uniform(0.07, 0.16)
    tint = generator.uniform(0.3, 1.0) * np.array([-0.06, 0.01, 0.05])
    return np.clip(brightness + deviation * _standard(layer)[..., None] + tint, 0, 1)


def _needles(shape: tuple[int, int], generator: np.random.Generator) -> Image.Image:
    """Bright feathers, needles with barbs at 60 degrees, one for some 800 square pixels, drawn at twice the size."""
    canvas = Image.new("L", (shape[1], shape[0]), 0)
    draw = ImageDraw.Draw(canvas)
    for _ in range(max(4, shape[0] * shape[1] // 800)):
        start = generator.uniform((0, 0), (shape[1], shape[0]))
        length, angle = 36 * math.exp(generator.normal(0, 0.6)), generator.uniform(0, 2 * math.pi)
        light = int(generator.integers(60, 256))
        along = np.array([math.cos(angle), math.sin(angle)])
        draw.line((*start, *(start + length * along)), fill=light, width=2)
        for share in np.arange(0.1, 1, 3.5 / length):
            root, barb = start + share * length * along, 0.3 * (1 - share) * length
            for side in (angle + math.pi / 3, angle - math.pi / 3):
                tip = root + barb * np.array([math.cos(side), math.sin(side)])
                draw.line((*root, *tip), fill=light * 3 // 4)
    return canvas


def _cloudy(height: int, width: int, generator: np.random.Generator) -> Field:
    """Gaussian noise whose power falls as the frequency to the power 1.6."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    modulus = np.hypot(rows, columns)
    modulus[0, 0] = np.inf
    spectrum = np.fft.rfft2(generator.standard_normal((height, width))) / modulus**0.8
    return np.fft.irfft2(spectrum, s=(height, width))


def _standard(field: Field) -> Field:
    return (field - field.mean()) / max(float(field.std()), 1e-6)
