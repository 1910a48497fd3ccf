"""Text that is safe to show, whatever it was made of."""

import re
import unicodedata


def printable(text: str) -> str:
    """``text`` with control characters, invisible marks and undecodable bytes as escapes; all else as it is.

    Names of files and classes come from strangers: an escape byte would reach the terminal, and a byte that is no
    UTF-8 (an unpaired surrogate in Python) could not be written at all.
    """
    return text if text.isprintable() else "".join(map(_escape, text))


def first_line(text: str) -> str:
    """The first line of a foreign text, without colours, safe to show, and not too long."""
    line = next((one.strip() for one in text.splitlines() if one.strip()), "for no reason given")
    clean = printable(re.sub(r"\x1b\[[\d;]*m", "", line))
    return (clean if len(clean) <= 120 else f"{clean[:117]}...").rstrip(".")


def reason(error: BaseException) -> str:
    """Why an error was raised, in one line without a full stop: what it says first, or its kind if it says nothing."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return first_line(said) if said.strip() else type(error).__name__


def _escape(character: str) -> str:
    safe = character.isprintable() or unicodedata.category(character) == "Zs"
    return character if safe else character.encode("unicode_escape").decode("ascii")
