"""From encoded bytes or arrays to the picture that a person would see."""

import io
from typing import final

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageOps

GREY_MODES = frozenset({"1", "L", "LA", "La"})


@final
class BrokenImage(ValueError):
    """An image that cannot be read: `name` says which, `reason` why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def decode(content: bytes, name: str) -> Image.Image:
    """The picture in `content`, a file of any format that Pillow reads, as `displayed` shows it.

    Of an animation it is the first frame. Raises `BrokenImage` for whatever keeps the picture from being shown whole:
    a truncated or foreign file, a decompression bomb.
    """
    if not content:
        raise BrokenImage(name, "the file is empty")
    try:
        with Image.open(io.BytesIO(content)) as image:
            return displayed(image)
    except Exception as error:  # decoders raise whatever they met: OSError, SyntaxError, struct.error, ...
        reason = str(error).replace(repr(error.args[0]), "") if isinstance(error, KeyError) else str(error)
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "not an image of a known format"
        raise BrokenImage(name, reason.strip() or type(error).__name__) from error


def displayed(image: Image.Image) -> Image.Image:
    """The picture as a viewer shows it, in mode `L` where it is grey and `RGB` otherwise.

    EXIF rotation is applied; transparency is laid over white; palettes, CMYK and other colour spaces become RGB;
    samples of 16 bits are scaled to 8, so that 65535 becomes 255. The image given is left as it is.
    """
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        return Image.fromarray(_deep_grey(np.asarray(upright)))
    mode = "L" if upright.mode in GREY_MODES else "RGB"
    if upright.has_transparency_data:
        colours = upright.convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        return Image.alpha_composite(white, colours).convert(mode)
    return upright.convert(mode)


def _deep_grey(samples: Shaped[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
    """Grey samples of 16 bits (which Pillow may hand over in 32) or floats in [0, 1], as 8 bits."""
    least, most = float(samples.min()), float(samples.max())
    whole = samples.dtype.kind in "iu"
    top = 65535.0 if whole else 1.0
    if not (least >= 0 and most <= top):
        raise ValueError(f"grey samples from {least:g} to {most:g} have no known scale")
    return eight_bit(samples.astype(np.uint16) if whole else samples)


def eight_bit(samples: Shaped[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Samples as 8 bits: floats from [0, 1], 16-bit integers from [0, 65535], other integers from [0, 255]."""
    if samples.dtype == np.bool_:
        return samples.astype(np.uint8) * np.uint8(255)
    if samples.dtype.kind == "f":
        return np.rint(np.clip(samples.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    if samples.dtype == np.uint16:
        return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return samples.astype(np.uint8)


def from_array(pixels: Shaped[np.ndarray, "height width *channels"]) -> Image.Image:
    """The picture of one array of shape (height, width) or (height, width, 1, 3 or 4), as `displayed` shows it."""
    array = np.ascontiguousarray(eight_bit(pixels))
    return displayed(Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array))
