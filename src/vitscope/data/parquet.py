"""Images in Parquet files, in the layout of the Hugging Face hub."""

import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int
from PIL import Image

from vitscope.data.decode import BrokenImage, decode
from vitscope.data.label import Column, Labels, choose_column, column_labels
from vitscope.data.source import SPLITS, AbstractPictures, AbstractSource, Opened, choose_split
from vitscope.measurement.errors import UserError

SHARD = re.compile(r"^(?P<split>.+?)-(?P<number>\d+)-of-(?P<count>\d+)(-[0-9a-f]+)?$")
GROUPS_KEPT = 4  # rows are read in order, so more would only cost memory


@final
class RecentGroups:
    """The row groups read last, of one column: each is read once, whichever threads ask; pickles empty."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._kept: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["RecentGroups"], tuple[str]]:
        return RecentGroups, (self.column,)

    def cell(self, path: str, group: int, row: int) -> object:
        """The cell of one row of row group number `group` of the file."""
        with self._lock:
            if (path, group) not in self._kept:
                with pq.ParquetFile(path) as file:
                    self._kept[path, group] = file.read_row_group(group, columns=[self.column]).column(self.column)
                if len(self._kept) > GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end((path, group))
            column = self._kept[path, group]
        return column[row].as_py()


@final
@dataclass(frozen=True, eq=False)
class ParquetPictures(AbstractPictures):
    """The rows of several files, read a row group at a time.

    `groups` lists (file, row group, row of the file at which it starts); `ends` the total rows up to each one's end.
    """

    groups: tuple[tuple[str, int, int], ...]
    ends: Int[np.ndarray, "groups"]
    recent: RecentGroups = field(repr=False)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def _place(self, position: int) -> tuple[str, int, int, int]:
        """File, row group, row within the group, row within the file."""
        number = int(np.searchsorted(self.ends, position, side="right"))
        path, group, first = self.groups[number]
        row = position - (int(self.ends[number - 1]) if number else 0)
        return path, group, row, first + row

    def name(self, position: int) -> str:
        """File and row."""
        path, _, _, row = self._place(position)
        return f"{Path(path).name}, row {row}"

    def content(self, position: int) -> bytes:
        """The encoded image: the cell's bytes, or the file that it names."""
        path, group, row, _ = self._place(position)
        try:
            cell = self.recent.cell(path, group, row)
        except (OSError, pa.ArrowException) as error:
            raise BrokenImage(self.name(position), f"its row group cannot be read: {error}") from error
        return cell_bytes(cell, Path(path).parent, self.name(position))

    def read(self, position: int) -> Image.Image:
        """The picture."""
        return decode(self.content(position), self.name(position))


def cell_bytes(cell: object, folder: Path, name: str) -> bytes:
    """The encoded image of one cell: plain bytes, or `{"bytes", "path"}` of which one is enough."""
    fields = cast("Mapping[str, object]", cell) if isinstance(cell, Mapping) else {"bytes": cell}
    content, path = fields.get("bytes"), fields.get("path")
    if isinstance(content, bytes):
        return content
    if not isinstance(path, str):
        raise BrokenImage(name, "the cell is empty")
    try:
        return (folder / path).read_bytes()
    except OSError as error:
        raise BrokenImage(name, f"{path}: {error.strerror}") from error


@final
class ParquetSource(AbstractSource):
    """A Parquet file, a glob, or a folder of files such as `train-00000-of-00003.parquet`, also in `data/` or `train/`.

    The image column is a struct of `bytes` and `path`, or plain bytes; class names are read from the schema. Files
    belong to the split in their name (`train-00000-of-00003.parquet`) or, if they are just numbered, of their folder
    (`train/0000.parquet`).
    """

    def claims(self, source: object) -> bool:
        """Paths and globs that lead to `.parquet` files."""
        return isinstance(source, str | os.PathLike) and bool(parquet_files(str(source)))

    def open(self, source: object, split: str | None, label: str | None) -> Opened:
        """Read the files' footers and the label column, no image."""
        where = str(source)
        files = by_split(parquet_files(where))
        chosen = choose_split(where, list(files), split)
        paths = [str(path.resolve()) for path in files[chosen]]
        _refuse_gaps(files[chosen], where, chosen)
        try:
            layout = read_layout(paths[0])
            pictures = _pictures(paths, one_image_column(layout.images, layout.names, where))
            labels = _labels(paths, layout, label, where)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{where} cannot be read as Parquet: {error}.") from error
        stem = Path(where).resolve()
        folder = stem if stem.is_dir() else stem.parent
        return Opened(f"{folder.name}/{chosen}", pictures, labels)


def parquet_files(source: str) -> list[Path]:
    """The Parquet files that a path or glob leads to, sorted."""
    path = Path(source)
    if path.is_dir():
        found = [each for name in (".", "data", *SPLITS) for each in (path / name).glob("*.parquet")]
    elif path.is_file():
        found = [path]
    else:
        found = [Path(each) for each in glob(source, recursive=True)] if has_magic(source) else []
    return sorted(each for each in found if each.suffix == ".parquet")


def by_split(files: Sequence[Path]) -> dict[str, list[Path]]:
    """The files of each split, the splits sorted by name."""
    splits: dict[str, list[Path]] = {}
    for path in files:
        shard = SHARD.match(path.stem)
        numbered = path.parent.name if path.stem.isdecimal() else path.stem
        splits.setdefault(shard["split"] if shard else numbered, []).append(path)
    return dict(sorted(splits.items()))


def _refuse_gaps(files: Sequence[Path], where: str, split: str) -> None:
    """Refuse a folder that lacks some of its numbered files; a file or a glob names what is meant."""
    shards = [shard for path in files if (shard := SHARD.match(path.stem))]
    if shards and Path(where).is_dir() and len(shards) < int(shards[0]["count"]):
        raise UserError(
            f"{where} has only {len(shards)} of the {int(shards[0]['count'])} files of split {split!r}: "
            "complete it, or name the files with a glob."
        )


@final
@dataclass(frozen=True)
class Layout:
    """What the columns of a file are for: those that may hold images, those that may hold labels, and all names."""

    images: tuple[str, ...]
    labels: tuple[Column, ...]
    names: tuple[str, ...]


def read_layout(path: str) -> Layout:
    """The layout of a Parquet file: as the hub's schema in its metadata declares it, else by the columns' types."""
    schema, kinds = pq.read_schema(path), pa.types
    try:
        features = dict(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError):
        features = {}
    shaped: list[str] = []
    labels: list[Column] = []
    for each in schema:
        kind = each.type
        if kinds.is_integer(kind) or kinds.is_string(kind) or kinds.is_large_string(kind):
            names = features.get(each.name, {}).get("names")
            labels.append(Column(each.name, tuple(names) if names else None))
        elif kinds.is_struct(kind) and kind.get_field_index("bytes") < 0:
            continue
        elif kinds.is_struct(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind):
            shaped.append(each.name)
    declared = [name for name, feature in features.items() if feature.get("_type") == "Image"]
    return Layout(tuple(declared or shaped), tuple(labels), tuple(schema.names))


def one_image_column(found: Sequence[str], columns: Sequence[str], where: str) -> str:
    """The only image column found, or the one of them called image or img."""
    usual = [name for name in ("image", "img") if name in found]
    if not usual and len(found) != 1:
        raise UserError(f"{where} has {len(found) or 'no'} image columns; its columns are {', '.join(columns)}.")
    return usual[0] if usual else found[0]


def _pictures(paths: Sequence[str], column: str) -> ParquetPictures:
    groups: list[tuple[str, int, int]] = []
    rows: list[int] = []
    for path in paths:
        footer = pq.read_metadata(path)
        sizes = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
        groups += [(path, number, sum(sizes[:number])) for number in range(len(sizes))]
        rows += sizes
    return ParquetPictures(tuple(groups), np.cumsum(np.array(rows, dtype=np.int64)), RecentGroups(column))


def _labels(paths: Sequence[str], layout: Layout, label: str | None, where: str) -> Labels | None:
    column = choose_column(layout.labels, label, where)
    if column is None:
        return None
    values: list[int | str | None] = []
    for path in paths:
        values += pq.read_table(path, columns=[column.name]).column(0).to_pylist()
    return column_labels(values, column, where, chosen=label is not None)
