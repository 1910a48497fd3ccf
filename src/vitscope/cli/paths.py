"""Paths that are given on the command line: whether they are there, and which are near."""

import os
from itertools import islice

from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest

_BESIDE = 2_000
"""Names in a folder that are compared with a mistyped one."""


def refuse_absent(source: str | None, flag: str) -> None:
    """Raise ``UserError`` for a path of this machine that is not there, with those near it; others may be anything."""
    if source not in (None, "digits") and is_absent(source):
        raise UserError(f"{flag}: {source} does not exist{near_path(source)}; give a path that does.")


def is_absent(source: str) -> bool:
    """Whether this is a path of this machine, no pattern and no URL, and nothing is there."""
    return not os.path.exists(source) and not set(source) & set("*?[]{}:")


def near_path(source: str) -> str:
    """What a mistyped path may mean, of that which is in its folder."""
    folder, name = os.path.split(source.rstrip(os.sep))
    try:
        with os.scandir(folder or os.curdir) as entries:
            return nearest(name, [entry.name for entry in islice(entries, _BESIDE)])
    except OSError:  # there is no such folder, or it cannot be listed
        return ""
