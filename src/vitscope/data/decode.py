"""From encoded bytes or arrays to the picture that a person would see."""

import io
import struct
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageFile, ImageOps

from vitscope.measurement.errors import UserError

GREY_MODES = frozenset({"1", "L", "LA", "La"})
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "ICO", "JPEG2000", "AVIF", "HEIF", "TGA")
"""The raster formats that are read. Pillow knows more, some of which start other programs (Ghostscript for EPS)."""
SHOWN_FORMATS = frozenset({*FORMATS, "MPO"})
MAX_PIXELS = 178_956_970
"""Pixels of the largest picture that is read by default: Pillow's own limit."""
DARKEST = 2**14 - 1
"""16-bit samples up to this may just as well have 14 bits or fewer."""
SHALLOWEST, DEEPEST = 8, 16


@final
class BrokenImage(ValueError):
    """An image that cannot be read: `name` says which, `reason` why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@final
@dataclass(frozen=True)
class Decoding:
    """What a picture's file does not say: how large it may be, and how deep its samples are."""

    max_pixels: int = MAX_PIXELS
    bits: int | None = None
    """Depth of samples stored in 16 bits (12 for many cameras and microscopes); None if not given."""

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise UserError(f"--max-pixels takes at least one pixel, not {self.max_pixels}.")
        if self.bits is not None and not SHALLOWEST <= self.bits <= DEEPEST:
            raise UserError(f"--bits runs from {SHALLOWEST} to {DEEPEST}; it cannot be {self.bits}.")


DEFAULT = Decoding()
"""The default size limit, and no depth given."""


def decode(content: bytes, name: str, decoding: Decoding) -> Image.Image:
    """The picture in `content`, a file of one of `FORMATS`, as `as_displayed` shows it.

    For an animation, this is the first frame. Raises `BrokenImage` for whatever keeps the picture from being shown
    whole: a truncated or foreign file, a picture of more pixels than allowed.
    """
    if not content:
        raise BrokenImage(name, "the file is empty")
    try:
        with _recognise(content) as image:
            width, height = image.size
            if width * height > decoding.max_pixels:
                raise ValueError(
                    f"{width} x {height} pixels are more than the {decoding.max_pixels:,} that --max-pixels allows"
                )
            return as_displayed(image, decoding)
    except Exception as error:  # decoders raise anything: OSError, SyntaxError, struct.error, ...
        reason = str(error).replace(repr(error.args[0]), "") if isinstance(error, KeyError) else str(error)
        raise BrokenImage(name, reason.strip() or type(error).__name__) from error


def _recognise(content: bytes) -> ImageFile.ImageFile:
    """Read the file's header by the first of `FORMATS` that fits.

    `Image.open` does the same, but applies a size limit that belongs to the whole process.
    """
    Image.init()
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or (accept is not None and accept(content[:16]) is not True):
            continue
        try:
            return factory(io.BytesIO(content), "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    raise ValueError("not an image of a known format")


def as_displayed(image: Image.Image, decoding: Decoding) -> Image.Image:
    """The picture as a viewer shows it, in mode `L` if it is grey and `RGB` otherwise.

    EXIF rotation is applied; transparency is laid over white; palettes, CMYK and other colour spaces become RGB;
    samples of 16 bits are scaled to 8, so that 65535 becomes 255. The image given is left as it is.
    """
    if isinstance(image, ImageFile.ImageFile) and image.format not in SHOWN_FORMATS:
        raise ValueError(f"{image.format} pictures are not read")
    stored = [str(tile.args) for tile in getattr(image, "tile", ())]
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        bits = 12 if any("I;12" in each for each in stored) else decoding.bits
        return Image.fromarray(_deep_grey(np.asarray(upright), bits))
    if any(";16" in each for each in stored):
        _check_deep_colour(np.asarray(upright), decoding.bits)
    mode = "L" if upright.mode in GREY_MODES else "RGB"
    if upright.has_transparency_data:
        colours = upright.convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        return Image.alpha_composite(white, colours).convert(mode)
    return upright.convert(mode)


def _deep_grey(samples: Shaped[np.ndarray, "height width"], bits: int | None) -> UInt8[np.ndarray, "height width"]:
    """Grey samples of up to 16 bits (which Pillow may hand over in 32) or floats in [0, 1], as 8 bits."""
    least, most = float(samples.min()), float(samples.max())
    whole = samples.dtype.kind in "iu"
    top = float(2 ** (bits or DEEPEST) - 1) if whole else 1.0
    if not (least >= 0 and most <= top):
        raise ValueError(f"grey samples from {least:g} to {most:g} have no known scale")
    if whole:
        refuse_dark(most, bits, "its 16-bit samples")
    return eight_bit(samples.astype(np.uint16) if whole else samples, bits)


def refuse_dark(most: float, bits: int | None, what: str) -> None:
    """Raise `ValueError` if the depth of samples is neither given nor clear from the largest of them."""
    if bits is None and 0 < most <= DARKEST:
        raise ValueError(
            f"{what} reach {most:g} of 65535, which may be a dark picture or one of fewer bits; say which with "
            "--bits 16, or --bits 12 and the like"
        )


def _check_deep_colour(pixels: UInt8[np.ndarray, "height width channels"], bits: int | None) -> None:
    """Refuse colours of fewer than 16 bits: Pillow keeps only the upper 8 of the 16 that are stored."""
    if bits is not None and bits < DEEPEST:
        raise ValueError(f"colours of {bits} bits stored in 16 are not read; scale them to the full range first")
    refuse_dark(256.0 * float(pixels[..., :3].max()), bits, "its 16-bit colours")


def eight_bit(samples: Shaped[np.ndarray, "*shape"], bits: int | None = None) -> UInt8[np.ndarray, "*shape"]:
    """Samples as 8 bits: floats from [0, 1], 16-bit integers from their depth's range, others from [0, 255]."""
    if samples.dtype == np.bool_:
        return samples.astype(np.uint8) * np.uint8(255)
    if samples.dtype.kind == "f":
        return np.rint(np.clip(samples.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    if samples.dtype == np.uint16:
        top = 2 ** (bits or DEEPEST) - 1
        return ((np.minimum(samples, top).astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)
    return samples.astype(np.uint8)


def from_array(pixels: Shaped[np.ndarray, "height width *channels"], decoding: Decoding) -> Image.Image:
    """The picture of one array of shape (height, width) or (height, width, 1, 3 or 4), as `as_displayed` shows it."""
    array = np.ascontiguousarray(eight_bit(pixels, decoding.bits))
    return as_displayed(Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array), decoding)
