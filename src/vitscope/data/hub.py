"""Data sets of the Hugging Face hub, by name."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, final

from PIL import Image

from vitscope.data.decode import decode
from vitscope.data.label import Column, choose_column, column_labels
from vitscope.data.parquet import cell_bytes, one_image_column
from vitscope.data.source import AbstractPictures, AbstractSource, Opened, choose_split
from vitscope.measurement.errors import UserError

PREFIX = re.compile(r"^(hub:|hf://(datasets/)?)")
OWNER_AND_NAME = re.compile(r"^\w[\w.-]*/\w[\w.-]*$")
FILE_SUFFIX = re.compile(r"\.(parquet|npz|npy|jpe?g|png|webp|zip|tar|json)$", re.IGNORECASE)


@final
@dataclass(frozen=True, eq=False)
class HubPictures(AbstractPictures):
    """The rows of a `datasets.Dataset` of one column, whose images are left encoded."""

    rows: Any
    column: str
    called: str

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, position: int) -> str:
        """Data set and row."""
        return f"{self.called}, row {position}"

    def content(self, position: int) -> bytes:
        """The encoded image."""
        return cell_bytes(self.rows[position][self.column], Path(), self.name(position))

    def read(self, position: int) -> Image.Image:
        """The picture."""
        return decode(self.content(position), self.name(position))


@final
class HubSource(AbstractSource):
    """`hub:owner/name`, `hf://owner/name`, or `owner/name` where no such path or folder exists; needs `vitscope[hub]`.

    The split that is asked for is downloaded once, into the cache of the `datasets` library.
    """

    def claims(self, source: object) -> bool:
        """A prefix, or what looks like owner/name and is no path."""
        if not isinstance(source, str):
            return False
        plain = OWNER_AND_NAME.match(source) and not FILE_SUFFIX.search(source)
        # A missing file of an existing folder is a slip of the pen, not a name of the hub.
        here = os.path.exists(source) or os.path.exists(source.split("/")[0])
        return bool(PREFIX.match(source) or (plain and not here))

    def open(self, source: object, split: str | None, label: str | None) -> Opened:
        """Download what is not in the cache, and find the image and label columns."""
        name = PREFIX.sub("", str(source))
        library = _library(str(source))
        try:
            # A split that is asked for is not looked up first: what is in the cache is then read without network.
            splits = library.get_dataset_split_names(name) if split is None else [split]
            chosen = choose_split(f"the hub data set {name}", splits, split)
            rows = library.load_dataset(name, split=chosen)
        except UserError:
            raise
        except Exception as error:  # the library lets errors of its HTTP client, cache and builders through
            raise UserError(_unreachable(str(source), name, error)) from error
        where = f"{name}/{chosen}"
        column = _image_column(rows.features, library, where)
        pictures = rows.select_columns([column]).cast_column(column, library.Image(decode=False))
        labelling = choose_column(_columns(rows.features, library), label, where)
        labels = None
        if labelling is not None:
            raw = rows.select_columns([labelling.name]).with_format("arrow")[:][labelling.name].to_pylist()
            labels = column_labels(raw, labelling, where, chosen=label is not None)
        return Opened(where, HubPictures(pictures, column, where), labels)


def _library(source: str) -> ModuleType:
    try:
        import datasets  # optional, and slow to import
    except ImportError as error:
        raise UserError(
            f"{source!r} is no path here, and reading it from the Hugging Face hub needs the datasets library: "
            "pip install 'vitscope[hub]'."
        ) from error
    return datasets


def _unreachable(source: str, name: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if "split" in reason.lower() and isinstance(error, ValueError):
        return f"the hub data set {name} has no such split: {reason}."
    path = "" if PREFIX.match(source) else f"{source!r} is no path here, and "
    return f"{path}the data set {name!r} could not be had from the Hugging Face hub ({reason}): check name and network."


def _image_column(features: Mapping[str, object], library: ModuleType, where: str) -> str:
    found = [name for name, feature in features.items() if isinstance(feature, library.Image)]
    return one_image_column(found, list(features), where)


def _columns(features: Mapping[str, Any], library: ModuleType) -> list[Column]:
    """The columns that may hold labels: class labels, integers and strings."""
    columns: list[Column] = []
    for name, feature in features.items():
        if isinstance(feature, library.ClassLabel):
            columns.append(Column(name, tuple(feature.names)))
        elif isinstance(feature, library.Value) and feature.dtype.startswith(("int", "uint", "string", "large_string")):
            columns.append(Column(name, None))
    return columns
