"""Columns of a table that say which split a row belongs to."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int

from vitscope.data.label import LabelColumn, labels_among
from vitscope.data.label_value import plain
from vitscope.data.source import FoundSource, SourceChoice, choose_split
from vitscope.data.splits import names_split
from vitscope.data.taken import TakenPictures
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

CERTAIN = re.compile(r"^((data|dataset)[_ ]?)?splits?$|^partition$|^(k|cv)?[_ ]?folds?$")
LIKELY = re.compile(r"^(sub|data)?set$|^usage$|^phase$")
"""Columns of these names hold splits if one of their cells names one."""
FLAG = re.compile(r"^is[_ ]?(train|test|val|valid)(ing|idation)?([_ ](set|split|img|image))?$")
"""Columns of these names hold yes or no."""
NO = frozenset({"0", "false", "no", "n", "f"})

Read = Callable[[str], Sequence[object]]
"""Reads the cells of a column by its name."""


@final
@dataclass(frozen=True, eq=False)
class SplitRows:
    """The rows of one split, and the column that names it."""

    column: str
    split: str
    rows: Int[np.ndarray, "rows"]


def split_cells(
    columns: Sequence[str], read: Read, other: Collection[str | None] = ()
) -> tuple[str, list[str | None]] | None:
    """The column that names the split of a row, and the split of each; None if no column except `other` does."""
    likely = [name for name in columns if name not in other and _may_say(name)]
    for name in sorted(likely, key=lambda name: not CERTAIN.match(_key(name))):
        flag = FLAG.match(_key(name))
        cells = [None if value is None else str(value) for value in map(plain, read(name))]
        if flag:
            cells = [cell and f"{'not ' * (cell.lower() in NO)}{flag[1]}" for cell in cells]
        known = {cell for cell in cells if cell is not None}
        if known and (not LIKELY.match(_key(name)) or any(map(names_split, known))):
            return name, cells
    return None


def choose_part(
    columns: Sequence[str],
    read: Read,
    where: str,
    split: str | None,
    other: Collection[str | None] = (),
    within: bool = False,
) -> SplitRows | None:
    """The rows of the chosen split; None if no column names splits, or if `within` leaves none to choose.

    `within` is whether the rows are already those of one split, so that their column must not have several.
    """
    found = split_cells(columns, read, other)
    if found is None:
        return None
    name, cells = found
    splits = [str(cell) for cell in cells]
    names = list(dict.fromkeys(splits))
    if within and len(names) > 1:
        raise UserError(
            f"{where} is one split, but its column {printable(name)!r} has several ({', '.join(sorted(names))}): give "
            "it alone to choose one of these.",
            (),
        )
    if within:
        return None
    chosen = choose_split(where, names, split)
    return SplitRows(name, printable(chosen), np.flatnonzero(np.array(splits) == chosen))


def open_part(
    whole: FoundSource,
    columns: Sequence[LabelColumn],
    read: Read,
    part: SplitRows | None,
    choice: SourceChoice,
    where: str,
) -> FoundSource:
    """The images of a part, or all if it is None, with the labels in the chosen or evident column."""
    others = [column for column in columns if part is None or column.name != part.column]
    rows = range(len(whole.pictures)) if part is None else part.rows.tolist()

    def cells(column: str) -> list[object]:
        values = read(column)
        return [values[row] for row in rows]

    labels, notes = labels_among(others, cells, choice.label, where)
    pictures = whole.pictures if part is None else TakenPictures(whole.pictures, part.rows)
    name = whole.name if part is None else f"{whole.name}/{part.split}"
    return FoundSource(name, pictures, labels, notes)


def _key(name: str) -> str:
    return name.strip().lower()


def _may_say(name: str) -> bool:
    return any(pattern.match(_key(name)) for pattern in (CERTAIN, LIKELY, FLAG))
