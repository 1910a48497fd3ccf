"""Arrays in a NumPy `.npz` file."""

import math
import os
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image
from typing_extensions import override

from vitscope.data.array import ArrayPictures, notes_on, picture_values, refuse_single
from vitscope.data.decode import Decoding
from vitscope.data.label import NO_LABELS, Labels, read_labels
from vitscope.data.label_value import plain
from vitscope.data.source import (
    AbstractPictures,
    AbstractSource,
    FoundSource,
    SourceChoice,
    choose_split,
    parsing,
    refuse_split,
)
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

IMAGE_KEYS = ("images", "x", "X", "pixels", "data")
LABEL_KEYS = ("labels", "y", "Y", "label", "targets", "target")
CLASS_KEYS = ("classes", "class_names")
SMALL, TIGHTEST = 2**28, 200
"""An array of more bytes than the first must not be compressed more than the second: zip bombs are, images are not."""


@final
@dataclass(frozen=True, eq=False)
class NpzPictures(AbstractPictures):
    """One array of a file, kept in memory once read; pickled as its path and key."""

    path: str
    key: str
    bits: int | None = None
    """Depth of its samples, if they are stored in 16 bits."""

    @cached_property
    def rows(self) -> ArrayPictures:
        """The array, in the layout of pictures."""
        with zipfile.ZipFile(self.path) as archive:
            array = read_array(archive, self.key, printable(self.path))
        where = printable(self.path)
        return ArrayPictures(picture_values(array, where, self.bits), f"{Path(where).name}:{printable(self.key)}")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "key": self.key, "bits": self.bits}

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, position: int) -> str:
        """File, key and place."""
        return self.rows.name(position)

    def content(self, position: int) -> bytes:
        """Shape, type and samples."""
        return self.rows.content(position)

    @override
    def read(self, position: int, decoding: Decoding) -> Image.Image:
        return self.rows.read(position, decoding)


@final
class NpzSource(AbstractSource):
    """A `.npz` file; no pickled objects are loaded from it.

    Images are under `images`, `x`, `X`, `pixels` or `data`, labels under `labels`, `y`, `Y`, `label`, `targets` or
    `target` (or the key given as `label`), class names under `classes` or `class_names`. The name of a
    split comes before or after: `x_test` and `y_test`, or `test_images` and `test_labels`.
    """

    def claims(self, source: object) -> bool:
        """A path that ends in .npz."""
        return isinstance(source, str | os.PathLike) and str(source).endswith(".npz") and Path(source).is_file()

    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """Read the images' array, the labels and the class names."""
        path, where = Path(str(source)).resolve(), printable(str(source))
        if not zipfile.is_zipfile(path):
            raise UserError(f"{where} is not a .npz file, despite its name.")
        with parsing(where, "plain arrays"), zipfile.ZipFile(path) as archive:
            keys = [name.removesuffix(".npy") for name in archive.namelist()]
            image_key, chosen = _image_key(keys, choice.split, where)
            labels = None if choice.label == NO_LABELS else _labels(archive, keys, choice.label, chosen, where)
            pictures = NpzPictures(str(path), image_key, choice.decoding.bits)
            count = len(pictures)
            refuse_single(pictures.rows.values, None if labels is None else len(labels.values), where)
        if labels is not None and len(labels.values) != count:
            raise UserError(f"{where} has {count} images and {len(labels.values)} labels: give one for each.")
        name = path.stem if chosen is None else f"{path.stem}/{chosen}"
        notes = notes_on(pictures.rows.values, where)
        if labels is None and choice.label is None:
            notes += _notes(keys, where)
        return FoundSource(printable(name), pictures, labels, notes)


def read_array(archive: zipfile.ZipFile, key: str, where: str) -> np.ndarray:
    """One array of a `.npz` file, whose header is first checked against the size of the file."""
    info = archive.getinfo(f"{key}.npy" if f"{key}.npy" in archive.namelist() else key)
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read_header(file)
        size = math.prod(shape) * kind.itemsize
        if kind.hasobject:
            raise UserError(f"{where} cannot be read as plain arrays: {key!r} holds objects.")
        if file.tell() + size != info.file_size:
            raise UserError(
                f"{where} is damaged: {key!r} declares {size:,} bytes, but has {info.file_size:,} with its header."
            )
        if size > SMALL and size > TIGHTEST * max(info.compress_size, 1):
            raise UserError(f"{where} would grow to {size:,} bytes from {info.compress_size:,}, more than images do.")
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _splits(keys: list[str], stems: tuple[str, ...]) -> dict[str, str]:
    """Split names found in `keys`, with the key of each."""
    after = {key.removeprefix(f"{stem}_"): key for key in keys for stem in stems if key.startswith(f"{stem}_")}
    before = {key.removesuffix(f"_{stem}"): key for key in keys for stem in stems if key.endswith(f"_{stem}")}
    return after | before


def _image_key(keys: list[str], split: str | None, where: str) -> tuple[str, str | None]:
    plain = [key for key in IMAGE_KEYS if key in keys]
    if plain:
        refuse_split(where, split)
        return plain[0], None
    splits = _splits(keys, IMAGE_KEYS)
    if not splits:
        raise UserError(
            f"{where} has no images: its keys are {', '.join(keys)}, not {', '.join(IMAGE_KEYS)} or the like."
        )
    chosen = choose_split(where, list(splits), split)
    return splits[chosen], chosen


def _notes(keys: list[str], where: str) -> tuple[str, ...]:
    """A note on keys that could have been labels."""
    images = (*IMAGE_KEYS, *CLASS_KEYS, *_splits(keys, IMAGE_KEYS).values())
    listed = ", ".join(key for key in keys if key not in images and key not in _splits(keys, LABEL_KEYS).values())
    note = (
        f"No key of {where} was taken as labels, so there is no accuracy; --label chooses one of: {printable(listed)}."
    )
    return (note,) if listed else ()


def _labels(
    archive: zipfile.ZipFile, keys: list[str], label: str | None, split: str | None, where: str
) -> Labels | None:
    if label is not None and label not in keys:
        raise UserError(f"{where} has no labels under {label!r}; its keys are {', '.join(keys)}.")
    found = [key for key in LABEL_KEYS if key in keys] if split is None else []
    key = label or next(iter(found), None) or _splits(keys, LABEL_KEYS).get(split or "")
    if key is None:
        return None
    names = next((read_array(archive, name, where) for name in CLASS_KEYS if name in keys), None)
    classes = None if names is None else tuple(printable(str(plain(name))) for name in names.reshape(-1))
    return read_labels(read_array(archive, key, where), where, f"key {key!r}", classes, chosen=label is not None)
