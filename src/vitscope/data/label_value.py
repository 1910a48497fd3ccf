"""The label that one value gives an image: a number, a word, or none."""

import re
from typing import Any, cast

NOTHING = frozenset({"NaN", "nan", "NA", "<NA>", "N/A", "n/a", "NULL", "null"})
"""Words that tables use for a missing value."""
NUMBER = re.compile(r"^[+-]?\d{1,18}(\.\d*)?$")
WHOLE = re.compile(r"^[+-]?\d{1,18}(\.0*)?$")


def is_nothing(text: str) -> bool:
    """Whether a text is blank, or a word for a missing value."""
    return not text.strip() or text.strip() in NOTHING


def plain(value: object) -> object:
    """A value as Python has it: whole numbers as integers, and None for null, NaN, blanks and words for that."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # of NumPy or PyTorch
        value = cast(Any, value).item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return None if is_nothing(value) else value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value if value == value else None
    if isinstance(value, bool):
        return int(value)
    return None if type(value).__name__ == "NAType" else value  # of pandas, which need not be installed


def read_cell(text: str) -> int | str | None:
    """The value of a single text: a whole number, a word, or None."""
    word = text.strip()
    return int(word.partition(".")[0]) if WHOLE.match(word) else None if is_nothing(word) else word


def read_cells(texts: list[str]) -> list[object]:
    """The values of a column's texts: numbers if all are, else the texts; None for blank ones.

    Numbers written with leading zeros are names.
    """
    known = [text.strip() for text in texts if not is_nothing(text)]
    if not known or not all(NUMBER.match(text) and not _is_padded(text) for text in known):
        return [text if text.strip() else None for text in texts]
    whole = all(WHOLE.match(text) for text in known)
    return [None if is_nothing(text) else read_cell(text) if whole else float(text) for text in texts]


def _is_padded(text: str) -> bool:
    digits = text.lstrip("+-").partition(".")[0]
    return len(digits) > 1 and digits.startswith("0")
