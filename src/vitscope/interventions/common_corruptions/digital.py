"""Corruptions by light and by processing."""

import io

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy import fft, ndimage

from vitscope.interventions.common_corruptions.picture import Levels, Parameters, Picture


def brightness(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """More light: the value of hue-saturation-value is raised by a share of the range, hue and saturation stay."""
    del generator
    value = picture.max(2, keepdims=True) / 255
    raised = np.minimum(value + parameters[0], 1)
    return 255 * np.where(value > 0, picture / 255 * raised / np.maximum(value, 1 / 255), raised)


def contrast(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """Less contrast: the differences from each channel's mean shrink to this share."""
    del generator
    levels = picture / 255
    mean = levels.mean((0, 1), keepdims=True)
    return 255 * ((levels - mean) * parameters[0] + mean)


def elastic_transform(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """Stretched rubber: a random affine map, then smooth random displacements.

    ``parameters`` are the displacements' amplitude before smoothing, the deviation of the smoothing, and the affine
    map's largest shift of its three points, as shares of the shorter side.
    """
    side = min(picture.shape[:2])
    amplitude, deviation, shift = (side * parameter for parameter in parameters)
    levels = _affine(picture / 255, shift, generator)
    shape = picture.shape[:2]
    fields = [amplitude * smooth(generator.uniform(-1, 1, shape), deviation) for _ in range(2)]
    rows, columns = np.indices(shape, dtype=np.float64)
    places = np.stack([rows + fields[1], columns + fields[0]])
    return 255 * _read(levels, places, "reflect")


def _affine(levels: Levels, shift: float | int, generator: np.random.Generator) -> Levels:
    """The picture under the affine map that moves three points around the centre by up to ``shift`` on each axis."""
    centre = np.array(levels.shape[:2], dtype=np.float64) // 2
    reach = min(levels.shape[:2]) // 3
    before = np.stack([centre + reach, np.array([centre[0] + reach, centre[1] - reach]), centre - reach])
    after = before + generator.uniform(-shift, shift, before.shape)
    # columns come first in these points, as in the published program; the map back is read off their new places
    inverse = np.linalg.solve(np.column_stack([after, np.ones(3)]), before)
    rows, columns = np.indices(levels.shape[:2], dtype=np.float64)
    source = np.stack([columns, rows, np.ones_like(rows)], -1) @ inverse
    return _read(levels, np.stack([source[..., 1], source[..., 0]]), "mirror")


def _read(levels: Levels, places: Float[np.ndarray, "two height width"], border: str) -> Levels:
    channels = [ndimage.map_coordinates(channel, places, order=1, mode=border) for channel in np.moveaxis(levels, 2, 0)]
    return np.stack(channels, -1)


def smooth(field: Float[np.ndarray, "height width"], deviation: float | int) -> Float[np.ndarray, "height width"]:
    """A Gaussian blur cut off at three deviations, the border reflected; by the cosine transform, so of any width."""
    for axis, size in enumerate(field.shape):
        taps = np.arange(-int(3 * deviation + 0.5), int(3 * deviation + 0.5) + 1)
        weights = np.exp(-(taps**2) / (2 * max(deviation, 1e-6) ** 2))
        angles = np.pi * np.arange(size)[:, None] / size
        response = (np.cos(angles * taps[None]) * weights).sum(1) / weights.sum()
        response = response.reshape((-1, 1) if axis == 0 else (1, -1))
        field = np.asarray(fft.idct(np.asarray(fft.dct(field, axis=axis)) * response, axis=axis))
    return field


def pixelate(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """Low resolution: reduced to this share of the size and enlarged again, by box filters."""
    del generator
    height, width = picture.shape[:2]
    small = (max(1, int(width * parameters[0])), max(1, int(height * parameters[0])))
    image = _image(picture).resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float64).reshape(picture.shape)


def jpeg_compression(picture: Picture, parameters: Parameters, generator: np.random.Generator) -> Levels:
    """JPEG of this quality."""
    del generator
    content = io.BytesIO()
    _image(picture).save(content, "JPEG", quality=int(parameters[0]))
    return np.asarray(Image.open(content), dtype=np.float64).reshape(picture.shape)


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
