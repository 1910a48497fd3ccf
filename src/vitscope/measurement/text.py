"""Text from any source, made safe to show."""

import re
import unicodedata
from collections.abc import Sequence


def printable(text: str) -> str:
    """``text`` with control characters, invisible marks and undecodable bytes escaped.

    Names of files and classes are untrusted: an escape byte would reach the terminal, and a byte that is not UTF-8
    (an unpaired surrogate in Python) could not be written at all.
    """
    return text if text.isprintable() else "".join(map(_escape, text))


def first_line(text: str) -> str:
    """The first line of an untrusted text, without colours, safe to show, at most 120 characters."""
    line = next((one.strip() for one in text.splitlines() if one.strip()), "for no reason given")
    clean = printable(re.sub(r"\x1b\[[\d;]*m", "", line))
    return (clean if len(clean) <= 120 else f"{clean[:117]}...").rstrip(".")


def reason(error: BaseException) -> str:
    """Why an error was raised, in one line without a full stop: the first line of its message, or else its type."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return first_line(said) if said.strip() else type(error).__name__


def tell_apart(names: Sequence[str], longer: Sequence[str]) -> tuple[str, ...]:
    """Unique names: a name that occurs several times is replaced by its ``longer`` one, then numbered if needed."""
    told = [full if names.count(name) > 1 else name for name, full in zip(names, longer, strict=True)]
    return tuple(
        name if told.count(name) == 1 else f"{name} ({told[:i].count(name) + 1})" for i, name in enumerate(told)
    )


def _escape(character: str) -> str:
    safe = character.isprintable() or unicodedata.category(character) == "Zs"
    return character if safe else character.encode("unicode_escape").decode("ascii")
