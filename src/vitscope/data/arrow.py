"""Data sets that `datasets` saved with `save_to_disk`: Arrow files in a folder."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from vitscope.data.decode import BrokenImage
from vitscope.data.files import read_file
from vitscope.data.layout import beside, cell_bytes, one_image_column, read_layout
from vitscope.data.source import (
    AbstractEncodedPictures,
    AbstractSource,
    FoundSource,
    SourceChoice,
    choose_split,
    parsing,
    reason_of,
    refuse_split,
)
from vitscope.data.split_column import choose_part, open_part
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

STATE, SPLITS_FILE = "state.json", "dataset_dict.json"
MOST_BYTES = 2**26


@final
@dataclass(frozen=True, eq=False)
class ArrowPictures(AbstractEncodedPictures):
    """The rows of one column of Arrow files, mapped into memory and read when needed; pickled as paths."""

    files: tuple[str, ...]
    column: str
    ends: Int[np.ndarray, "files"]

    @cached_property
    def tables(self) -> tuple[Any, ...]:
        """The column of each file, as a table."""
        return tuple(_map_table(file).select([self.column]) for file in self.files)

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "column": self.column, "ends": self.ends}

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def _place(self, position: int) -> tuple[int, int]:
        number = int(np.searchsorted(self.ends, position, side="right"))
        return number, position - (int(self.ends[number - 1]) if number else 0)

    def name(self, position: int) -> str:
        """File and row."""
        number, row = self._place(position)
        return f"{printable(Path(self.files[number]).name)}, row {row}"

    def content(self, position: int) -> bytes:
        """The encoded image: the cell's bytes, or the file that it names."""
        number, row = self._place(position)
        try:
            cell = self.tables[number].column(0)[row].as_py()
        except Exception as error:  # damaged data raises whatever the library meets
            raise BrokenImage(self.name(position), reason_of(error)) from error
        return cell_bytes(cell, beside(self.files[number]), self.name(position))


@final
class ArrowSource(AbstractSource):
    """A folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote; the library itself is not needed."""

    def claims(self, source: object) -> bool:
        """A folder with `dataset_dict.json`, or with `state.json` and Arrow files or no folders."""
        if not isinstance(source, str | os.PathLike):
            return False
        path = Path(source)
        if not (path / STATE).is_file():
            return (path / SPLITS_FILE).is_file()
        return any(path.glob("*.arrow")) or not any(each.is_dir() for each in path.iterdir())

    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """Map the files and read the label column, no image."""
        root, where = Path(str(source)).resolve(), printable(str(source))
        name = printable(root.name)
        within = (root / SPLITS_FILE).is_file()
        if within:
            splits = _strings(_json(root / SPLITS_FILE, where).get("splits"), where, SPLITS_FILE)
            chosen = choose_split(where, splits, choice.split)
            root, name = root / chosen, f"{name}/{printable(chosen)}"
        described = _json(root / STATE, where).get("_data_files")
        entries = cast("list[object]", described) if isinstance(described, list) else []
        named = [cast("Mapping[str, object]", entry).get("filename") for entry in entries if isinstance(entry, Mapping)]
        paths = [str(root / file) for file in _strings(named, where, STATE)]
        with parsing(where, "Arrow"):
            tables = [_map_table(path) for path in paths]
            layout = read_layout(tables[0].schema)
            column = one_image_column(layout, where)
            for table in tables:
                table.select([column]).validate(full=True)
            pictures = ArrowPictures(
                tuple(paths), column, np.cumsum([each.num_rows for each in tables], dtype=np.int64)
            )
            read = partial(_cells, tables)
            part = choose_part(layout.names, read, where, choice.split, (column, choice.label), within)
            if part is None and not within:
                refuse_split(where, choice.split)
            return open_part(FoundSource(name, pictures, None), layout.labels, read, part, choice, where)


def _cells(tables: Sequence[Any], name: str) -> list[object]:
    """The cells of a column of all tables."""
    cells = pa.concat_tables(table.select([name]) for table in tables)
    cells.validate(full=True)
    return cells.column(0).to_pylist()


def _map_table(path: str) -> Any:  # noqa: ANN401 - pyarrow has no types
    """The table of an Arrow stream, mapped into memory."""
    if not os.path.isfile(path):
        raise UserError(f"{path} is not a file.")
    with pa.memory_map(path) as file:
        return pa.ipc.open_stream(file).read_all()


def _json(path: Path, where: str) -> Mapping[str, object]:
    with parsing(f"{path.name} of {where}", "JSON"):
        parsed = json.loads(read_file(path, path.name, MOST_BYTES))
        if not isinstance(parsed, Mapping):
            raise UserError(f"{path.name} of {where} is not a JSON object.")
        return cast("Mapping[str, object]", parsed)


def _strings(values: object, where: str, file: str) -> list[str]:
    """File or folder names; refused if one leads elsewhere."""
    names = cast("list[object]", values) if isinstance(values, list) else []
    plain = [name for name in names if isinstance(name, str) and name not in ("", ".", "..") and "\0" not in name]
    if not names or len(plain) < len(names) or any(Path(name).name != name for name in plain):
        raise UserError(f"{file} of {where} does not list plain file names, as save_to_disk writes them.")
    return plain
