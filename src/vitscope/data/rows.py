"""Data sets of the `datasets` library: rows whose images stay encoded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

from vitscope.data.files import inside
from vitscope.data.layout import cell_bytes, one_image_column, read_layout
from vitscope.data.source import (
    AbstractEncodedPictures,
    AbstractSource,
    FoundSource,
    SourceChoice,
    choose_split,
    refuse_split,
)
from vitscope.data.split_column import choose_part, open_part
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

MODULES = ("datasets.arrow_dataset", "datasets.dataset_dict", "datasets.iterable_dataset")


@final
@dataclass(frozen=True, eq=False)
class RowPictures(AbstractEncodedPictures):
    """The rows of one column of a `datasets.Dataset`.

    Images that are files must lie below one of `folders`; None for a data set made in this process.
    """

    rows: Any
    column: str
    called: str
    folders: tuple[Path, ...] | None

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, position: int) -> str:
        """Data set and row."""
        return f"{self.called}, row {position}"

    def content(self, position: int) -> bytes:
        """The encoded image."""
        return cell_bytes(self.rows[position][self.column], self._find, self.name(position))

    def _find(self, path: str) -> str | None:
        if self.folders is None:
            return path
        return next((found for folder in self.folders if (found := inside(folder, path)) is not None), None)


@final
class RowsSource(AbstractSource):
    """A `datasets.Dataset`, or a `DatasetDict` of splits; transforms set on it are left out."""

    def claims(self, source: object) -> bool:
        """Objects of that library, which need not be installed."""
        return any(each.__module__ in MODULES for each in type(source).__mro__)

    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """Find the image and label columns."""
        rows: Any = source
        kind = type(source).__name__
        if kind.startswith("Iterable"):
            raise UserError(f"an {kind} cannot be read in any order: give a datasets.Dataset (streaming=False).")
        where = "the data set"
        if isinstance(source, dict):
            chosen = choose_split(where, [str(name) for name in source], choice.split)
            rows, where = rows[chosen], f"{where}/{printable(chosen)}"
        return open_rows(where.removeprefix("the "), where, rows, choice, None, isinstance(source, dict))


def open_rows(
    name: str, where: str, data: object, choice: SourceChoice, folders: tuple[Path, ...] | None, within: bool
) -> FoundSource:
    """The images and labels of a `datasets.Dataset`; `within` is whether it is already the chosen split."""
    import datasets  # such rows come from this library

    rows = cast(Any, data).with_format(None)

    def cells(column: str) -> list[object]:
        return rows.select_columns([column]).with_format("arrow")[:][column].to_pylist()

    layout = read_layout(rows.features.arrow_schema)
    column = one_image_column(layout, where)
    part = choose_part(layout.names, cells, where, choice.split, (column, choice.label), within)
    if part is None and not within and choice.split != str(rows.split):
        refuse_split(where, choice.split)
    pictures = rows.select_columns([column])
    if isinstance(rows.features[column], datasets.Image):
        pictures = pictures.cast_column(column, datasets.Image(decode=False))
    whole = FoundSource(name, RowPictures(pictures, column, where, folders), None)
    return open_part(whole, layout.labels, cells, part, choice, where)
