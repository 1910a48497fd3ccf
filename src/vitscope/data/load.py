"""Opens the images that the user names."""

import os
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

from vitscope.data.array import ArraySource
from vitscope.data.arrow import ArrowSource
from vitscope.data.decode import MAX_PIXELS, Decoding
from vitscope.data.digits import DigitsSource
from vitscope.data.files import IMAGES, SOUNDS, VIDEOS, has_suffix
from vitscope.data.folder import FolderSource
from vitscope.data.hub import HubSource
from vitscope.data.image import Images
from vitscope.data.label import NO_LABELS, Order, order_labels
from vitscope.data.label_map import LabelMap, map_labels
from vitscope.data.metadata import MetadataSource
from vitscope.data.npz import NpzSource
from vitscope.data.parquet import ParquetSource
from vitscope.data.paths import PathsSource
from vitscope.data.rows import RowsSource
from vitscope.data.source import AbstractSource, FoundSource, SourceChoice, reason_of, refuse_root
from vitscope.data.table import TableSource
from vitscope.data.torch_dataset import TorchSource
from vitscope.data.webdataset import WebDatasetSource
from vitscope.measurement.bounds import Bounds, check_number
from vitscope.measurement.errors import UserError

# A sequence holds Pillow images, arrays, tensors or paths, or is a pair (images, labels); an object is a data set.
Source = str | os.PathLike[str] | np.ndarray | Tensor | Sequence[Any] | object

SOURCES: tuple[AbstractSource, ...] = (
    DigitsSource(),
    RowsSource(),
    TorchSource(),
    PathsSource(),
    ArraySource(),
    HubSource(),
    NpzSource(),
    ArrowSource(),
    MetadataSource(),
    ParquetSource(),
    WebDatasetSource(),
    TableSource(),
    FolderSource(),
)
FILES = ".parquet, .npz, .tar, .csv, .tsv, .jsonl or image file"
ARCHIVES = frozenset({".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"})


def images(
    source: Source = None,
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    label: str | None = None,
    label_map: LabelMap | str | Path | None = None,
    label_order: Order | None = None,
    root: str | os.PathLike[str] | None = None,
    bits: int | None = None,
    max_pixels: int = MAX_PIXELS,
    max_broken: int = 0,
) -> Images:
    """Open images to examine a model on; nothing is decoded yet.

    `source` is one of

    * a folder of class folders, a flat folder, a folder with `metadata.csv` or the like, or an image file;
    * Parquet in the Hugging Face layout (a file, a glob, a folder of splits), a folder of `save_to_disk`, WebDataset
      tars, a `.npz` file, or `hub:owner/name`;
    * a table with a column of paths: `.csv`, `.tsv`, `.jsonl`, `.json`, `.parquet`, or a pandas data frame;
    * a `datasets.Dataset`, a `torch.utils.data.Dataset` or `DataLoader`, or a data set of torchvision;
    * an array or tensor of images, a list of Pillow images, arrays or paths, or a pair of one of these and labels;
    * "digits", the embedded default (of which `split=None` is the test split).

    `split` names one of several splits. `label` is the column or key of the labels, "none" for no labels, or "folder"
    if folders that might be splits are classes. `label_map`, a mapping or a JSON file, maps the data set's classes to
    the model's; `label_order` says how the model numbers classes that only have names: "text" (10 before 2, as
    torchvision sorts) or "natural" (2 before 10, as timm does). `limit` takes that many images, each class in
    proportion to its size, chosen by `seed`. `root` is the folder that a table's paths are relative to and must not
    leave. `bits` is the depth of samples stored in 16 bits, `max_pixels` the size of the largest picture that is read.
    Up to `max_broken` images may be unreadable before reading them stops.

    Raises `UserError`, in one sentence, for an invalid source, split, label or limit.
    """
    if limit is not None:
        check_number("--limit", limit, Bounds())
    if limit is not None and limit < 1:
        raise UserError(f"--limit takes at least one image, not {limit}.")
    if max_broken < 0:
        raise UserError(f"--max-broken cannot be negative; it is {max_broken}.")
    decoding = Decoding(max_pixels, bits)
    opened = _open(source, SourceChoice(split, label, None if root is None else Path(root), decoding))
    count, labels = len(opened.pictures), None if label == NO_LABELS else opened.labels
    if count == 0:
        raise UserError(f"{opened.name} holds no images.")
    if label is not None and label != NO_LABELS and labels is None:
        raise UserError(f"{opened.name} has no labels in {label!r}: all of them are negative or null.")
    if label_order is not None:
        labels = order_labels(labels, label_order, opened.name)
    if label_map is not None:
        labels = map_labels(labels, label_map, opened.name)
    found = Images(
        opened.name, opened.pictures, np.arange(count), labels, max_broken, notes=opened.notes, decoding=decoding
    )
    return found if limit is None or limit >= count else found.sample(limit, seed)


def _open(source: object, choice: SourceChoice) -> FoundSource:
    if isinstance(source, str | os.PathLike) and "\0" in str(source):
        raise UserError(f"{source} is not a path: a path holds no zero byte.")
    try:
        kind = next((kind for kind in SOURCES if kind.claims(source)), None)
        if kind is None:
            _refuse(source)
        if not isinstance(kind, TableSource | ParquetSource | PathsSource):
            refuse_root(choice.root)
        return kind.open(source, choice)
    except OSError as error:
        raise UserError(f"{source} cannot be read: {reason_of(error)}.") from error


def _refuse(source: object) -> NoReturn:
    """Raise ``UserError`` with the reason why this is not a source of images."""
    if not isinstance(source, str | os.PathLike):
        raise UserError(
            f"images cannot be read from a {type(source).__name__}: give a path, an array or Pillow images."
        )
    if not os.path.exists(source) and has_magic(str(source)) and has_suffix(str(source), IMAGES):
        raise UserError(f"{source} is a pattern of image files: name their folder, or give a list of paths in Python.")
    if not os.path.exists(source):
        raise UserError(f"{source} does not exist: give a folder, a {FILES}, a glob, hub:owner/name, or 'digits'.")
    if has_suffix(str(source), VIDEOS | SOUNDS):
        raise UserError(f"{source} is a video or a sound, not images: save its frames as image files.")
    if has_suffix(str(source), ARCHIVES):
        raise UserError(f"{source} is compressed, so single images cannot be read from it: unpack it first.")
    raise UserError(f"{source} is neither a folder nor a {FILES}.")
