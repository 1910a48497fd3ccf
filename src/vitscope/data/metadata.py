"""Folders of images with a table of metadata, as Hugging Face's `imagefolder` reads them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import final

from vitscope.data.files import IMAGES, has_suffix, inside, is_clutter
from vitscope.data.folder import FilePictures, FolderSource, walk_files
from vitscope.data.label import FOLDER
from vitscope.data.source import AbstractSource, FoundSource, SourceChoice, choose_split, refuse_split
from vitscope.data.split_column import split_cells
from vitscope.data.splits import names_split
from vitscope.data.table import table_labels
from vitscope.data.table_file import Columns, read_columns
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAMES = ("file_name", "image_file_name")


@final
@dataclass(frozen=True, eq=False)
class _TableRow:
    """A row of one of the tables: its file, its split ("" for none), and the place of its other cells."""

    file: str
    split: str
    columns: Columns
    place: int


@final
class MetadataSource(AbstractSource):
    """A folder with `metadata.csv`, `.jsonl` or `.parquet`, whose column `file_name` names the file of a row.

    Tables may lie in the folder and in its folders, such as those of splits; names are relative to each table's own
    folder. Labels are a column: with a table, class folders are ignored unless the label "folder" is chosen. A row's
    split is named by its column `split` or the like, or else by a folder of its file.
    """

    def claims(self, source: object) -> bool:
        """A folder that holds such a table."""
        return isinstance(source, str | os.PathLike) and bool(_tables(Path(source)))

    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """Read the tables without opening an image."""
        root, where = Path(str(source)).resolve(), printable(str(source))
        if choice.label == FOLDER:
            return FolderSource().open(source, choice)
        tables = {path: read_columns(path) for path in _tables(root)}
        strangers = [path for path, columns in tables.items() if not any(name in columns for name in FILE_NAMES)]
        if strangers:
            note = f"{printable(strangers[0].name)} in {where} has no column file_name and was skipped."
            folder = FolderSource().open(source, choice)
            return replace(folder, notes=(*folder.notes, note))
        rows = [row for path, columns in tables.items() for row in _rows(root, path, columns, where, choice.label)]
        unlisted = len({path for path in walk_files(root) if has_suffix(path, IMAGES)} - {row.file for row in rows})
        name = printable(root.name)
        if any(row.split for row in rows):
            chosen = choose_split(where, list(dict.fromkeys(row.split or "None" for row in rows)), choice.split)
            name, rows = f"{name}/{printable(chosen)}", [row for row in rows if (row.split or "None") == chosen]
        else:
            refuse_split(where, choice.split)
        labels, notes = table_labels(_join(rows), [row.file for row in rows], choice.label, where)
        if unlisted:
            notes += (f"{unlisted} image files of {where} are in no row of its tables and were left out.",)
        return FoundSource(name, FilePictures(str(root), tuple(row.file for row in rows)), labels, notes)


def _tables(root: Path) -> list[Path]:
    """The tables in a folder, in its folders, and in those of its splits."""
    folders = _folders(root)
    deeper = [
        inner for folder in folders if names_split(folder.name) or folder.name == "data" for inner in _folders(folder)
    ]
    return [path for folder in (root, *folders, *deeper) for name in TABLES if (path := folder / name).is_file()]


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:
        return sorted(Path(entry) for entry in entries if entry.is_dir() and not is_clutter(entry.name))


def _rows(root: Path, path: Path, columns: Columns, where: str, label: str | None) -> list[_TableRow]:
    named = next(name for name in FILE_NAMES if name in columns)
    column, splits = split_cells(list(columns), columns.__getitem__, (named, label)) or (
        "",
        [None] * len(columns[named]),
    )
    others = {name: values for name, values in columns.items() if name not in (*FILE_NAMES, column)}
    rows: list[_TableRow] = []
    for place, (file, split) in enumerate(zip(columns[named], splits, strict=True)):
        found = inside(root, os.path.join(path.parent, file)) if isinstance(file, str) and file else None
        if found is None or os.path.isabs(str(file)):
            raise UserError(f"row {place} of {printable(str(path))} names {file!r}, which is not a file below {where}.")
        relative = PurePosixPath(Path(found).relative_to(root).as_posix())
        folder = next((part for part in relative.parts[:-1] if names_split(part)), "")
        rows.append(_TableRow(str(relative), split or folder, others, place))
    return rows


def _join(rows: Sequence[_TableRow]) -> Columns:
    """The columns that all the tables have, row by row."""
    tables = {id(row.columns): row.columns for row in rows}
    shared = [name for name in next(iter(tables.values()), {}) if all(name in table for table in tables.values())]
    return {name: [row.columns[name][row.place] for row in rows] for name in shared}
