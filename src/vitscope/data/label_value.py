"""What one value says of the label of an image: a number, a word, or nothing."""

import re
from typing import Any, cast

NOTHING = frozenset({"NaN", "nan", "NA", "<NA>", "N/A", "n/a", "NULL", "null"})
"""Words that tables have where there is no value."""
NUMBER = re.compile(r"^[+-]?\d{1,18}(\.\d*)?$")
WHOLE = re.compile(r"^[+-]?\d{1,18}(\.0*)?$")


def is_nothing(text: str) -> bool:
    """Whether a text is blank, or a word for no value."""
    return not text.strip() or text.strip() in NOTHING


def plain(value: object) -> object:
    """A value as Python has it: whole numbers as integers, and None for null, NaN, blanks and words for no value."""
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
    """What a text that stands by itself says."""
    word = text.strip()
    return int(word.partition(".")[0]) if WHOLE.match(word) else None if is_nothing(word) else word


def read_cells(texts: list[str]) -> list[object]:
    """What the texts of a column say: numbers where all are, else the texts; None for those that are blank.

    Numbers that are written with zeros before them are names.
    """
    known = [text.strip() for text in texts if not is_nothing(text)]
    if not known or not all(NUMBER.match(text) and not _is_padded(text) for text in known):
        return [text if text.strip() else None for text in texts]
    whole = all(WHOLE.match(text) for text in known)
    return [None if is_nothing(text) else read_cell(text) if whole else float(text) for text in texts]


def _is_padded(text: str) -> bool:
    digits = text.lstrip("+-").partition(".")[0]
    return len(digits) > 1 and digits.startswith("0")
