"""Images already in memory: arrays, tensors, and lists of Pillow images or arrays, with or without labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image
from typing_extensions import override

from vitscope.data.decode import DEEPEST, BrokenImage, Decoding, as_displayed, from_array, refuse_dark
from vitscope.data.label import NO_LABELS, SEVERAL, Labels, read_labels
from vitscope.data.source import AbstractPictures, AbstractSource, FoundSource, SourceChoice, refuse_label, refuse_split
from vitscope.measurement.errors import UserError

CHANNELS = (1, 3, 4)

Samples = Shaped[np.ndarray, "..."]
Rows = Sequence[Image.Image | np.ndarray] | Samples


@final
@dataclass(frozen=True, eq=False)
class ArrayPictures(AbstractPictures):
    """Pictures held in memory: the rows of an array, or a sequence of images."""

    values: Rows
    called: str

    def __len__(self) -> int:
        return len(self.values)

    def name(self, position: int) -> str:
        """The name of the sequence, with the place in it."""
        return f"{self.called}[{position}]"

    def content(self, position: int) -> bytes:
        """Shape, type and samples."""
        value = self.values[position]
        if isinstance(value, Image.Image):
            value = self.read(position, Decoding(bits=DEEPEST))
        array = np.asarray(value)
        return repr((array.shape, array.dtype.str)).encode() + array.tobytes()

    @override
    def read(self, position: int, decoding: Decoding) -> Image.Image:
        value = self.values[position]
        try:
            return as_displayed(value, decoding) if isinstance(value, Image.Image) else from_array(value, decoding)
        except Exception as error:  # a lazily opened file fails here, in whatever way its decoder chooses
            raise BrokenImage(self.name(position), str(error) or type(error).__name__) from error


@final
class ArraySource(AbstractSource):
    """Images in memory: an array, a tensor, a sequence of images, or a pair of one of these and labels."""

    def claims(self, source: object) -> bool:
        """Arrays, tensors, lists and tuples, and a single Pillow image."""
        return isinstance(source, np.ndarray | torch.Tensor | list | tuple | Image.Image)

    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """Check shape and range; copy only if the layout or the number type requires it."""
        where = "the given images"
        refuse_split(where, choice.split)
        refuse_label(where, choice.label, "labels are given as the second of a pair (images, labels)")
        pixels, given = split_pair(source)
        refuse_single(pixels, None if given is None else len(cast("Sequence[object]", given)), where)
        values = picture_values([pixels] if isinstance(pixels, Image.Image) else pixels, where, choice.decoding.bits)
        labels = labels_given(given, len(values), where, choice)
        return FoundSource("images", ArrayPictures(values, "images"), labels, notes_on(values, where))


def refuse_single(pixels: object, labels: int | None, where: str) -> None:
    """Refuse three axes that may be one picture or many grey ones, unless there are as many labels."""
    shape = tuple(pixels.shape) if isinstance(pixels, np.ndarray | torch.Tensor) else ()
    if len(shape) != 3 or shape[0] == labels:
        return
    if shape[0] == 3 or (shape[-1] in CHANNELS and shape[1] > shape[-1]):
        raise UserError(
            f"{where} have the shape {'x'.join(map(str, shape))}, which may be one picture or {shape[0]} grey ones: "
            "give images[None] for one, or images[..., None] for many."
        )


def notes_on(values: Rows, where: str) -> tuple[str, ...]:
    """A note if a fourth channel was taken as transparency."""
    arrays = [values] if isinstance(values, np.ndarray) else [each for each in values if isinstance(each, np.ndarray)]
    least = 4 if isinstance(values, np.ndarray) else 3
    clear = any(array.ndim == least and array.shape[-1] == 4 for array in arrays)
    return (f"The fourth channel of {where} was taken as transparency and laid over white.",) if clear else ()


def split_pair(source: object) -> tuple[object, object]:
    """Images and labels, if this is a pair whose second is a vector; otherwise all of it is images."""
    if not (isinstance(source, tuple) and len(source) == 2):
        return source, None
    first, second = source
    shape = _shape(second)
    stacked = isinstance(first, list | tuple) or (isinstance(first, np.ndarray | torch.Tensor) and first.ndim != 2)
    if stacked and len(shape) == 2 and shape[1] > 1 and len(first) == shape[0]:
        raise UserError(f"the labels given are {shape[0]} x {shape[1]}, {SEVERAL}: give one class for each image.")
    return (first, second) if len(shape) == 1 or shape[1:] == (1,) else (source, None)


def _shape(labels: object) -> tuple[int, ...]:
    """The shape of what may be labels; () for what cannot be."""
    if isinstance(labels, np.ndarray | torch.Tensor):
        return tuple(labels.shape)
    if not isinstance(labels, list | tuple | range) and not is_series(labels):
        return ()
    rows = list(cast("Sequence[object]", labels))
    sizes = {len(cast("list[object]", row)) if isinstance(row, list | tuple) else None for row in rows}
    pictures = any(isinstance(row, Image.Image) or getattr(row, "ndim", 0) > 0 for row in rows)
    return () if pictures else (len(rows), *(size for size in sizes if size and len(sizes) == 1))


def is_series(source: object) -> bool:
    """Whether this is a column of pandas, which need not be installed."""
    return type(source).__name__ == "Series" and type(source).__module__.partition(".")[0] == "pandas"


def labels_given(given: object, count: int, where: str, choice: SourceChoice) -> Labels | None:
    """The labels given with ``count`` images, one for each."""
    if given is None or choice.label == NO_LABELS:
        return None
    given = given.tolist() if isinstance(given, torch.Tensor) else given
    labels = read_labels(given, where, "the labels given", chosen=True)
    if labels is not None and len(labels.values) != count:
        raise UserError(f"{count} images were given with {len(labels.values)} labels: give one for each.")
    return labels


def picture_values(pixels: object, where: str, bits: int | None = None) -> Rows:
    """Pixels in the layout of pictures: (images, height, width) or (images, height, width, channels), or a list.

    Channels may come first or last; if both readings are possible, tensors are read as channels first and arrays
    as channels last. Floats must lie in [0, 1] and integers in [0, 255] (16-bit ones in the range of their ``bits``).
    """
    if isinstance(pixels, list | tuple):
        values = [
            value if isinstance(value, Image.Image) else one_picture(value, where)
            for value in cast("list[Any]", pixels)
        ]
        _check_depth([value for value in values if isinstance(value, np.ndarray)], where, bits)
        return values
    array = _numpy(pixels)
    _check_depth([array], where, bits)
    return _check(_channels_last(array, isinstance(pixels, torch.Tensor), where), where)


def _check_depth(arrays: Sequence[Samples], where: str, bits: int | None) -> None:
    """Refuse 16-bit samples that exceed the given depth, or whose depth is neither given nor clear from the largest."""
    deep = [array for array in arrays if array.dtype == np.uint16 and array.size]
    most = float(max((array.max() for array in deep), default=0))
    if bits is not None and most >= 2**bits:
        raise UserError(f"the 16-bit samples of {where} reach {most:g}, more than {bits} bits hold.")
    try:
        refuse_dark(most, bits, f"the 16-bit samples of {where}")
    except ValueError as error:
        raise UserError(f"{error}.") from error


def one_picture(value: object, where: str) -> Samples:
    """The samples of one picture, checked as for many."""
    if not isinstance(value, np.ndarray | torch.Tensor):
        raise UserError(f"{where} hold a {type(value).__name__}: give Pillow images, arrays or tensors.")
    array = _numpy(value)[None]
    return _check(_channels_last(array, isinstance(value, torch.Tensor), where), where)[0]


def _numpy(pixels: object) -> Samples:
    if isinstance(pixels, torch.Tensor):
        return (pixels.detach().float() if pixels.is_floating_point() else pixels).cpu().numpy()
    return np.asarray(pixels)


def _channels_last(array: Samples, first: bool, where: str) -> Samples:
    if array.ndim == 3:
        return array
    leading = array.ndim == 4 and array.shape[1] in CHANNELS
    trailing = array.ndim == 4 and array.shape[-1] in CHANNELS
    if leading and (first or not trailing):
        return array.transpose(0, 2, 3, 1)
    if trailing:
        return array
    shape = "x".join(map(str, array.shape))
    raise UserError(
        f"{where} have the shape {shape}: give (images, height, width), or 1, 3 or 4 channels before or after them."
    )


def _check(array: Samples, where: str) -> Samples:
    if array.dtype.kind not in "fiub":
        raise UserError(f"{where} hold {array.dtype} values: give uint8, or floats in [0, 1].")
    if array.size == 0 or array.dtype.name in ("bool", "uint8", "uint16"):
        return array
    least, most, top = float(array.min()), float(array.max()), 1 + 1e-6 if array.dtype.kind == "f" else 255
    if not (least >= -1e-6 and most <= top):
        wanted = "floats must lie in [0, 1]" if array.dtype.kind == "f" else "integers must lie in [0, 255]"
        raise UserError(f"{where} run from {least:g} to {most:g}: {wanted}.")
    return array
