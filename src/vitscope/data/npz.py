"""Arrays in a NumPy `.npz` file."""

import os
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.lib.npyio import NpzFile
from PIL import Image

from vitscope.data.array import ArrayPictures, picture_values
from vitscope.data.label import Labels, read_labels
from vitscope.data.source import AbstractPictures, AbstractSource, Opened, choose_split, refuse_split
from vitscope.measurement.errors import UserError

IMAGE_KEYS = ("images", "x", "X", "pixels", "data")
LABEL_KEYS = ("labels", "y", "Y", "label", "targets")
CLASS_KEYS = ("classes", "class_names")


@final
@dataclass(frozen=True, eq=False)
class NpzPictures(AbstractPictures):
    """One array of a file, held in memory once read; pickles as the path alone."""

    path: str
    key: str

    @cached_property
    def rows(self) -> ArrayPictures:
        """The array, in the layout of pictures."""
        with np.load(self.path, allow_pickle=False) as arrays:
            return ArrayPictures(picture_values(arrays[self.key], self.path), f"{Path(self.path).name}:{self.key}")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "key": self.key}

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, position: int) -> str:
        """File, key and place."""
        return self.rows.name(position)

    def content(self, position: int) -> bytes:
        """Shape, type and samples."""
        return self.rows.content(position)

    def read(self, position: int) -> Image.Image:
        """The picture."""
        return self.rows.read(position)


@final
class NpzSource(AbstractSource):
    """A `.npz` file; no pickled objects are loaded from it.

    Images are under `images`, `x`, `X`, `pixels` or `data`, labels under `labels`, `y`, `Y`, `label` or `targets`
    (or the key given as `label`), class names under `classes` or `class_names`. With splits, the split's name comes
    before or after: `x_test` and `y_test`, or `test_images` and `test_labels`.
    """

    def claims(self, source: object) -> bool:
        """A path that ends in .npz."""
        return isinstance(source, str | os.PathLike) and str(source).endswith(".npz") and Path(source).is_file()

    def open(self, source: object, split: str | None, label: str | None) -> Opened:
        """Read the images' array, the labels and the class names."""
        path = Path(str(source)).resolve()
        if not zipfile.is_zipfile(path):
            raise UserError(f"{source} is no .npz file, whatever its name.")
        try:
            with np.load(path, allow_pickle=False) as arrays:
                image_key, chosen = _image_key(arrays.files, split, str(source))
                labels = _labels(arrays, label, chosen, str(source))
            pictures = NpzPictures(str(path), image_key)
            count = len(pictures)
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise UserError(f"{source} cannot be read as .npz: {error}.") from error
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{source} cannot be read as plain arrays: {error}.") from error
        if labels is not None and len(labels.values) != count:
            raise UserError(f"{source} has {count} images and {len(labels.values)} labels: give one for each.")
        return Opened(path.stem if chosen is None else f"{path.stem}/{chosen}", pictures, labels)


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
        raise UserError(f"{where} has no images: its keys are {', '.join(keys)}, not {', '.join(IMAGE_KEYS)} or so.")
    chosen = choose_split(where, list(splits), split)
    return splits[chosen], chosen


def _labels(arrays: NpzFile, label: str | None, split: str | None, where: str) -> Labels | None:
    keys = list(arrays)
    if label is not None and label not in keys:
        raise UserError(f"{where} has no labels under {label!r}; its keys are {', '.join(keys)}.")
    found = [key for key in LABEL_KEYS if key in keys] if split is None else []
    key = label or next(iter(found), None) or _splits(keys, LABEL_KEYS).get(split or "")
    if key is None:
        return None
    classes = next((tuple(map(str, arrays[name])) for name in CLASS_KEYS if name in keys), None)
    return read_labels(arrays[key], where, f"key {key!r}", classes, chosen=label is not None)
