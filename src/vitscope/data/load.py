"""Finding the images that the user named."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vitscope.data.array import ArraySource
from vitscope.data.digits import DigitsSource
from vitscope.data.folder import FolderSource
from vitscope.data.hub import HubSource
from vitscope.data.image import Images
from vitscope.data.label import LabelMap, map_labels
from vitscope.data.npz import NpzSource
from vitscope.data.parquet import ParquetSource
from vitscope.data.source import AbstractSource, Opened
from vitscope.measurement.errors import UserError

# A sequence holds Pillow images, arrays or tensors, or is a pair (images, labels).
Source = str | os.PathLike[str] | np.ndarray | Tensor | Sequence[Any]

SOURCES: tuple[AbstractSource, ...] = (
    DigitsSource(),
    ArraySource(),
    HubSource(),
    NpzSource(),
    ParquetSource(),
    FolderSource(),
)


def images(
    source: Source | None = None,
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    label: str | None = None,
    label_map: LabelMap | str | Path | None = None,
    max_broken: int = 0,
) -> Images:
    """Open images to examine a model on; nothing is decoded yet.

    `source` is a folder of class folders, a flat folder, an image file, Parquet in the Hugging Face layout (a file, a
    glob, a folder of splits), a `.npz` file, `hub:owner/name`, an array or tensor of images, a list of Pillow images,
    a pair of any of these and labels, or "digits", the embedded default (of which `split=None` is the test split).

    `split` names one of several splits; `label` the column or key of the labels; `label_map`, a mapping or a JSON
    file, sends the data set's classes to the model's. `limit` takes that many images, as equal per class as can be,
    chosen by `seed`. Up to `max_broken` images may be unreadable before reading them stops.

    Raises `UserError`, in one sentence, for a source, split, label or limit that cannot be.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit takes at least one image, not {limit}.")
    if max_broken < 0:
        raise UserError(f"--max-broken cannot be negative, as {max_broken} is.")
    opened = _open(source, split, label)
    count, labels = len(opened.pictures), opened.labels
    if count == 0:
        raise UserError(f"{opened.name} holds no images.")
    if label is not None and labels is None:
        raise UserError(f"{opened.name} has no labels in {label!r}: all of them are negative or null.")
    if label_map is not None:
        labels = map_labels(labels, label_map, opened.name)
    found = Images(opened.name, opened.pictures, np.arange(count), labels, max_broken)
    return found if limit is None or limit >= count else found.sample(limit, seed)


def _open(source: object, split: str | None, label: str | None) -> Opened:
    for kind in SOURCES:
        if kind.claims(source):
            return kind.open(source, split, label)
    if isinstance(source, str | os.PathLike) and os.path.exists(source):
        raise UserError(f"{source} is neither a folder nor a .parquet, .npz or image file.")
    if isinstance(source, str | os.PathLike):
        raise UserError(
            f"{source} does not exist: give a folder, a .parquet or .npz file, a glob, hub:owner/name, or 'digits'."
        )
    raise UserError(f"images cannot be read from a {type(source).__name__}: give a path, an array or Pillow images.")
