"""Reads table files into columns: CSV, TSV, JSON lines, JSON records, Parquet."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq

from vitscope.data.decode import BrokenImage
from vitscope.data.files import IMAGES, has_suffix, read_file
from vitscope.data.label_value import read_cells
from vitscope.data.source import parsing
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

Columns = Mapping[str, Sequence[object]]
MOST_BYTES = 2**31


def read_columns(path: Path) -> Columns:
    """The columns of a table, all of one length; `UserError` names the file if it is damaged.

    Cells of CSV files are text, read as numbers in columns that hold nothing else; an empty cell is null.
    """
    where = printable(str(path))
    with parsing(where, READERS[path.suffix.lower()][0]):
        columns = READERS[path.suffix.lower()][1](path)
        if len({len(values) for values in columns.values()}) > 1:
            raise UserError(f"{where} has columns of different lengths.")
        return columns


def _text(path: Path) -> str:
    try:
        return read_file(path, path.name, MOST_BYTES).decode("utf-8-sig")
    except BrokenImage as error:
        raise UserError(f"{path} cannot be read: {error.reason}.") from error


def _read_csv(path: Path) -> Columns:
    lines = io.StringIO(_text(path), newline=None)  # str.splitlines would break lines at more than line ends
    header = next(lines, "")
    lines.seek(0)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in header and "," not in header else ","
    rows = [row for row in csv.reader(lines, delimiter=delimiter, strict=True) if row]
    if not rows:
        return {}
    names = rows[0]
    first = next((name for name in names if has_suffix(name, IMAGES)), None)
    if first is not None:
        raise UserError(
            f"the first row of {path} holds {first}, but must name the columns: add a row such as path,label."
        )
    if len(set(names)) < len(names):
        raise UserError(f"{path} names a column twice; its columns are {', '.join(names)}.")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise UserError(f"row {number} of {path} has {len(row)} cells, but its first row names {len(names)}.")
    return {name: read_cells([row[place] for row in rows[1:]]) for place, name in enumerate(names)}


def _read_lines(path: Path) -> Columns:
    return _records([json.loads(line) for line in _text(path).split("\n") if line.strip()], path)


def _read_json(path: Path) -> Columns:
    parsed = json.loads(_text(path))
    if isinstance(parsed, dict) and "images" in parsed and "annotations" in parsed:
        raise UserError(
            f"{path} holds annotations like those of COCO, for detection or segmentation, but accuracy needs one class "
            "for each image: name the folder of the images to go without labels."
        )
    return _records(parsed, path)


def _records(rows: object, path: Path) -> Columns:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in cast("list[object]", rows)):
        raise UserError(f'{path} is not a table: each row must be an object such as {{"path": "a.png", "label": 0}}.')
    records = cast("list[dict[str, Any]]", rows)
    names = dict.fromkeys(name for row in records for name in row)
    return {name: [row.get(name) for row in records] for name in names}


def _read_parquet(path: Path) -> Columns:
    if not path.is_file():
        raise UserError(f"{path} is not a file.")
    if pq.read_metadata(path).num_rows > path.stat().st_size:
        raise UserError(f"{path} declares more rows than it has bytes.")
    table = pq.read_table(path)
    return {name: table.column(place).to_pylist() for place, name in enumerate(table.column_names)}


READERS: dict[str, tuple[str, Callable[[Path], Columns]]] = {
    ".csv": ("CSV", _read_csv),
    ".tsv": ("TSV", _read_csv),
    ".jsonl": ("JSON lines", _read_lines),
    ".ndjson": ("JSON lines", _read_lines),
    ".json": ("JSON", _read_json),
    ".parquet": ("Parquet", _read_parquet),
}
