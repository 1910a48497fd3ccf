"""Descriptions of all that is registered, for ``vitscope list``, ``show`` and every ``--help``, without imports.

The project's own are in ``registered.json``, which ``docs/generate.py`` writes and a test compares with the registries.
What plugins register is described when they are loaded.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vitscope.cli.documentation import Field, Flag
from vitscope.cli.entry import KINDS, Entry
from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest
from vitscope.runs.registry import list_foreign_classes

INDEX = Path(__file__).with_name("registered.json")


def entries() -> dict[str, dict[str, Entry]]:
    """All that is registered, by kind and name, the project's own first."""
    found = {kind: dict(own) for kind, own in _own().items()}
    for kind, name, cls in list_foreign_classes():
        if kind in KINDS:
            from vitscope.cli.described import describe

            found[KINDS[kind]][name] = describe(KINDS[kind], name, cls)
    return found


def find(kind: str, name: str, noun: str) -> Entry:
    """The entry of a kind; ``UserError`` for an unknown name."""
    registered = entries()
    if name in registered[kind]:
        return registered[kind][name]
    elsewhere = [f" (it is among the {other.lower()})" for other, named in registered.items() if name in named]
    hint = next(iter(elsewhere), nearest(name, registered[kind]))
    raise UserError(f"There is no {noun} named {name!r}{hint}; there are: {', '.join(registered[kind])}.")


def own_names(kind: str) -> tuple[str, ...]:
    """The names of the project's own entries of a kind. Loads no plugin, so it may be called at import."""
    return tuple(_own()[kind])


@cache
def _own() -> Mapping[str, Mapping[str, Entry]]:
    stored = json.loads(INDEX.read_text(encoding="utf-8"))
    return {kind: {one["name"]: _entry(one) for one in named} for kind, named in stored.items()}


def _entry(stored: dict[str, Any]) -> Entry:
    for pairs in ("facts", "quantities"):
        stored[pairs] = tuple(map(tuple, stored[pairs]))
    stored["fields"] = tuple(map(_field, stored["fields"]))
    return Entry(**stored)


def _field(stored: dict[str, Any]) -> Field:
    if (flag := stored["flag"]) is not None:
        flag["choices"] = tuple(flag["choices"])
        stored["flag"] = Flag(**flag)
    return Field(**stored)
