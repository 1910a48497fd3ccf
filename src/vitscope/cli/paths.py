"""Paths given on the command line: whether they exist, and which have similar names."""

import os
from itertools import islice

from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest

_BESIDE = 2_000
"""Most names in a folder that are compared with a mistyped one."""


def refuse_absent(source: str | None, flag: str) -> None:
    """Raise ``UserError`` for a local path that does not exist, with similar names; patterns and URLs pass."""
    if source not in (None, "digits") and is_absent(source):
        raise UserError(f"{flag}: {source} does not exist{near_path(source)}; give a path that does.")


def is_absent(source: str) -> bool:
    """Whether this is a local path (not a pattern or a URL) that does not exist."""
    return not os.path.exists(source) and not set(source) & set("*?[]{}:")


def near_path(source: str) -> str:
    """A suggestion for a mistyped path, from the names in its folder."""
    folder, name = os.path.split(source.rstrip(os.sep))
    try:
        with os.scandir(folder or os.curdir) as entries:
            return nearest(name, [entry.name for entry in islice(entries, _BESIDE)])
    except OSError:  # there is no such folder, or it cannot be listed
        return ""
