"""Tables with a column of paths: CSV, TSV, JSON, Parquet, or a pandas data frame."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, final

import numpy as np

from vitscope.data.files import IMAGES, has_suffix, inside
from vitscope.data.folder import FilePictures
from vitscope.data.label import (
    BOXES,
    FRACTIONS,
    MASKS,
    NO_LABELS,
    SEQUENCES,
    SEVERAL,
    LabelColumn,
    Labels,
    is_label_name,
    label_text,
    labels_among,
    refuse_annotation,
)
from vitscope.data.label_value import plain
from vitscope.data.layout import OBJECTS
from vitscope.data.source import AbstractSource, FoundSource, SourceChoice, refuse_split
from vitscope.data.split_column import choose_part
from vitscope.data.table_file import READERS, Columns, read_columns
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

PATH_NAMES = ("path", "file_name", "filename", "filepath", "file_path", "file", "image_path", "img_path", "image_file")
PICTURE_NAMES = ("image", "img", "picture", "photo")
CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("xcenter", "ycenter", "width", "height"),
)
"""Names of the columns of a box, without "bbox" before them."""


@final
class TableSource(AbstractSource):
    """A table whose rows name image files, with a column of labels if there is one.

    Paths are in the column called `path`, `file_name` or the like, or the only one that names image files. Those in a
    file are relative to the file's folder, or to `root`, and must stay below it; those in a data frame may lead
    anywhere. A column `split`, `fold` or the like says which rows belong together.
    """

    def claims(self, source: object) -> bool:
        """A file that ends in .csv, .tsv, .jsonl, .ndjson or .json, or a data frame."""
        if isinstance(source, str | os.PathLike):
            return Path(source).suffix.lower() in READERS and Path(source).is_file()
        return is_frame(source)

    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """Read the table without opening an image."""
        if is_frame(source):
            frame, root = cast(Any, source), os.path.abspath(choice.root or "")
            names = [str(name) for name in frame.columns]
            if len(set(names)) < len(names):
                raise UserError(f"the data frame names a column twice; its columns are {', '.join(names)}.")
            columns = {str(name): [_plain(value) for value in frame[name].tolist()] for name in frame.columns}
            return open_table("data frame", "the data frame", columns, root, choice, bounded=False)
        path, where = Path(str(source)), printable(str(source))
        root = os.path.abspath(choice.root or path.parent)
        return open_table(printable(path.stem), where, read_columns(path), root, choice, bounded=True)


def is_frame(source: object) -> bool:
    """Whether this is a data frame of pandas, which need not be installed."""
    return type(source).__name__ == "DataFrame" and type(source).__module__.partition(".")[0] == "pandas"


def _plain(value: object) -> object:
    """A cell of a data frame as Python has it, None for NaN and NA."""
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    value = value.item() if isinstance(value, np.generic) else value
    return None if plain(value) is None and not isinstance(value, str) else value


def open_table(name: str, where: str, columns: Columns, root: str, choice: SourceChoice, bounded: bool) -> FoundSource:
    """The pictures that a table's rows name, of the chosen split; if `bounded`, their paths must stay below `root`."""
    column = path_column(columns, where)
    part = choose_part(list(columns), columns.__getitem__, where, choice.split, (column, choice.label))
    if part is None:
        refuse_split(where, choice.split)
    rows = list(range(len(columns[column]))) if part is None else part.rows.tolist()
    paths = [check_path(columns[column][row], root, where, row, bounded) for row in rows]
    others = [each for each in columns if each == choice.label or each not in (column, part and part.column)]
    taken = {each: [columns[each][row] for row in rows] for each in others}
    labels, notes = table_labels(taken, paths, choice.label, where)
    return FoundSource(
        name if part is None else f"{name}/{part.split}", FilePictures(root, tuple(paths)), labels, notes
    )


def path_column(columns: Columns, where: str) -> str:
    """The column that names image files."""
    texts = {name: values for name, values in columns.items() if _all(values, str) or not values}
    for usual in PATH_NAMES:
        named = [name for name in texts if name.lower() == usual or name.lower() == f"image_{usual}"]
        if named:
            return named[0]
    files = [name for name, values in texts.items() if values and all(has_suffix(str(v), IMAGES) for v in values if v)]
    usual = [name for name in files if name.lower() in PICTURE_NAMES]
    if not usual and len(files) != 1:
        listed = ", ".join(columns) or "none"
        raise UserError(
            f"{where} has {len(files) or 'no'} image columns; its columns are {listed}: rename the one that names "
            "image files to 'path'."
        )
    return (usual or files)[0]


def check_path(value: object, root: str, where: str, row: int, bounded: bool) -> str:
    """The path of one row, which must lead below `root` if it is `bounded`."""
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise UserError(f"row {row} of {where} names no file.")
    path = str(value)
    if bounded and inside(root, path) is None:
        raise UserError(
            f"row {row} of {where} names {path}, which is not below {root}: choose with --root the folder that its "
            "paths may lead to."
        )
    return path


def table_labels(
    columns: Columns, files: Sequence[str], label: str | None, where: str
) -> tuple[Labels | None, tuple[str, ...]]:
    """The labels of `files`, row by row, in the chosen or evident column, and a note if none is chosen."""
    found = [_column(name, values) for name, values in columns.items()]
    if label is None and (box := _box(columns)):
        refuse_annotation(where, f"{BOXES} in {', '.join(map(repr, box))}")
    labels, notes = labels_among([column for column in found if column is not None], columns.__getitem__, label, where)
    if labels is not None:
        _refuse_several(labels, files, where)
    return labels, notes


def _box(columns: Columns) -> tuple[str, ...]:
    """The columns that hold the corners of a box; () for none."""
    names = {re.sub(r"^(bbox|box|roi)|[\W_]", "", name.lower()): name for name in columns}
    return next((tuple(names[each] for each in corners) for corners in CORNERS if names.keys() >= set(corners)), ())


def _refuse_several(labels: Labels, files: Sequence[str], where: str) -> None:
    """Refuse a picture that several rows give different labels."""
    first: dict[str, int] = {}
    for file, value in zip(files, labels.values.tolist(), strict=True):
        if first.setdefault(file, value) != value:
            both = " and ".join(label_text(each, labels.classes) for each in (first[file], value))
            raise UserError(
                f"{where} gives {printable(file)} the labels {both} in different rows, {SEVERAL}: give one class for "
                f"each image, or go without labels with --label {NO_LABELS}."
            )


def _column(name: str, cells: Sequence[object]) -> LabelColumn | None:
    values = list(map(plain, cells))
    if _all(values, str) and all(has_suffix(str(value), IMAGES) for value in values if value is not None):
        return LabelColumn(name, holds=MASKS) if is_label_name(name) or "mask" in name.lower() else None
    if _all(values, int, str):
        return LabelColumn(name)
    if name.lower() in OBJECTS:
        return LabelColumn(name, holds=BOXES)
    if not is_label_name(name) or all(value is None for value in values):
        return None
    return LabelColumn(name, holds=SEVERAL if _all(values, *SEQUENCES, Mapping) else FRACTIONS)


def _all(values: Sequence[object], *kinds: type) -> bool:
    """Whether all values but nulls are of these types, and some are."""
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(value, kinds) for value in known)
