"""Images in Parquet files, in the layout of the Hugging Face hub."""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from vitscope.data.decode import BrokenImage
from vitscope.data.files import IMAGES, has_suffix
from vitscope.data.folder import walk_files
from vitscope.data.label import LabelColumn, first_names, is_label_name
from vitscope.data.layout import TableLayout, beside, cell_bytes, one_image_column, read_layout
from vitscope.data.shards import by_split, refuse_gaps, shards
from vitscope.data.source import (
    AbstractEncodedPictures,
    AbstractSource,
    FoundSource,
    SourceChoice,
    choose_split,
    parsing,
    reason_of,
    refuse_root,
)
from vitscope.data.split_column import choose_part, open_part
from vitscope.data.table import open_table, path_column
from vitscope.data.table_file import read_columns
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

GROUPS_KEPT = 4  # rows are read in order, so more would only cost memory


@final
class RecentGroups:
    """The row groups of one column that were read last; each is read once for all threads. Pickled empty."""

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
class ParquetPictures(AbstractEncodedPictures):
    """The rows of several files, read a row group at a time.

    `groups` lists (file, row group, row of the file at which it starts); `ends` the total rows up to the end of each.
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
        return f"{printable(Path(path).name)}, row {row}"

    def content(self, position: int) -> bytes:
        """The encoded image: the cell's bytes, or the file that it names."""
        path, group, row, _ = self._place(position)
        try:
            cell = self.recent.cell(path, group, row)
        except Exception as error:  # a damaged page raises whatever the decoder meets
            raise BrokenImage(self.name(position), f"its row group cannot be read: {reason_of(error)}") from error
        return cell_bytes(cell, beside(path), self.name(position))


@final
class ParquetSource(AbstractSource):
    """A Parquet file, a glob, or a folder of files such as `train-00000-of-00003.parquet`, also in `data/` or `train/`.

    The image column is a struct of `bytes` and `path`, or plain bytes; class names are read from the schema. Files
    belong to the split in their name (`train-00000-of-00003.parquet`) or, if they are only numbered, to that of their
    folder (`train/0000.parquet`).
    """

    def claims(self, source: object) -> bool:
        """Paths and globs that lead to `.parquet` files."""
        found = shards(str(source), ".parquet") if isinstance(source, str | os.PathLike) else []
        return bool(found) and not (os.path.isdir(str(source)) and _is_stray(found[0], Path(str(source))))

    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """Read the files' footers and the label column, no image."""
        where, found = printable(str(source)), shards(str(source), ".parquet")
        with parsing(where, "Parquet"):
            layout = read_layout(pq.read_schema(found[0]))
        names_files = not (layout.images or layout.media)
        if names_files and len(found) == 1:
            return _of_paths(printable(found[0].stem), where, found, choice)
        files = by_split(found)
        whole = len(files) == 1  # its rows may belong to several splits
        chosen = next(iter(files)) if whole else choose_split(where, list(files), choice.split)
        refuse_gaps(files[chosen], str(source), chosen)
        stem = Path(str(source)).resolve()
        name = printable(f"{(stem if stem.is_dir() else stem.parent).name}/{chosen}")
        if names_files:
            inner = choice.split if whole and choice.split != chosen else None
            return _of_paths(name, where, files[chosen], replace(choice, split=inner))
        refuse_root(choice.root)
        paths = [str(path.resolve()) for path in files[chosen]]
        with parsing(where, "Parquet"):
            layouts = [read_layout(pq.read_schema(path)) for path in paths]
            column = one_image_column(layouts[0], where)
            pictures = _pictures(paths, column)
            read = partial(_cells, paths)
            part = choose_part(layouts[0].names, read, where, choice.split, (column, choice.label), not whole)
            if part is None and whole:
                choose_split(where, [chosen], choice.split)
            columns = _common(paths, layouts, choice.label, where)
            return open_part(FoundSource(name, pictures, None), columns, read, part, choice, where)


def _is_stray(file: Path, folder: Path) -> bool:
    """Whether a file in a folder of pictures neither holds nor names any."""
    try:
        schema = pq.read_schema(file)
        layout = read_layout(schema)
        texts = [name for name in schema.names if pa.types.is_string(schema.field(name).type)]
        if layout.images or layout.media:
            return False
        path_column({name: pq.read_table(file, columns=[name]).column(0).to_pylist() for name in texts}, str(file))
    except UserError:
        return any(has_suffix(path, IMAGES) for path in walk_files(folder))
    except Exception:  # damage is reported when the file is opened
        return False
    return False


def _common(paths: Sequence[str], layouts: Sequence[TableLayout], label: str | None, where: str) -> list[LabelColumn]:
    """The columns that may hold labels; refused if a likely one is not the same in all files."""
    columns = {column.name: column for layout in reversed(layouts) for column in layout.labels}
    for path, layout in zip(paths, layouts, strict=True):
        own = {column.name: column for column in layout.labels}
        other = next(
            (name for name, column in columns.items() if own.get(name) != column and _matters(column, label)), None
        )
        if other is not None:
            ours, theirs = (_describe_column(each.get(other)) for each in (own, columns))
            raise UserError(
                f"the files of {where} do not have the same column {printable(other)!r}: {ours} in {Path(path).name}, "
                f"{theirs} in another: write them alike, or give one file alone."
            )
    return [columns[name] for name in dict.fromkeys(each.name for layout in layouts for each in layout.labels)]


def _matters(column: LabelColumn, label: str | None) -> bool:
    """Whether a column may be taken as the labels."""
    return column.name == label if label is not None else column.classes is not None or is_label_name(column.name)


def _describe_column(column: LabelColumn | None) -> str:
    """A file's column in words."""
    if column is None:
        return "no such column"
    return column.holds or ("no class names" if column.classes is None else f"classes {first_names(column.classes)}")


def _of_paths(name: str, where: str, paths: Sequence[Path], choice: SourceChoice) -> FoundSource:
    """Open tables that name files, as they have no column of images."""
    tables = [read_columns(path) for path in paths]
    sizes = [len(next(iter(table.values()), ())) for table in tables]
    names = dict.fromkeys(name for table in tables for name in table)
    parts = {
        name: [table.get(name, [None] * size) for table, size in zip(tables, sizes, strict=True)] for name in names
    }
    columns = {name: [value for part in values for value in part] for name, values in parts.items()}
    root = os.path.abspath(choice.root or paths[0].parent)
    return open_table(name, where, columns, root, choice, bounded=True)


def _pictures(paths: Sequence[str], column: str) -> ParquetPictures:
    groups: list[tuple[str, int, int]] = []
    rows: list[int] = []
    for path in paths:
        footer = pq.read_metadata(path)
        sizes = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
        groups += [(path, number, sum(sizes[:number])) for number in range(len(sizes))]
        rows += sizes
        if sum(sizes) > os.path.getsize(path):
            raise UserError(f"{path} declares {sum(sizes):,} rows, but has only {os.path.getsize(path):,} bytes.")
    return ParquetPictures(tuple(groups), np.cumsum(np.array(rows, dtype=np.int64)), RecentGroups(column))


def _cells(paths: Sequence[str], name: str) -> list[object]:
    """The cells of a column in all files."""
    return [cell for path in paths for cell in pq.read_table(path, columns=[name]).column(0).to_pylist()]
