"""What is registered, in words: for ``vitscope list``, ``show`` and every ``--help``, without importing any of it.

The project's own stand in ``registered.json``, which ``docs/generate.py`` writes and a test holds to the registries.
What plugins register is described as they are loaded.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vitscope.cli.documentation import Field, Flag
from vitscope.cli.entry import KINDS, Entry
from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest
from vitscope.runs.registry import registered_by_others

INDEX = Path(__file__).with_name("registered.json")


def entries() -> dict[str, dict[str, Entry]]:
    """All that is registered, by kind and name, the project's own first."""
    found = {kind: dict(own) for kind, own in _own().items()}
    for kind, name, cls in registered_by_others():
        if kind in KINDS:
            from vitscope.cli.described import described

            found[KINDS[kind]][name] = described(KINDS[kind], name, cls)
    return found


def find(kind: str, name: str, noun: str) -> Entry:
    """The entry of a kind; ``UserError`` for a name that is not there."""
    registered = entries()
    if name in registered[kind]:
        return registered[kind][name]
    elsewhere = [f" (it is among the {other.lower()})" for other, named in registered.items() if name in named]
    hint = next(iter(elsewhere), nearest(name, registered[kind]))
    raise UserError(f"There is no {noun} named {name!r}{hint}; there are: {', '.join(registered[kind])}.")


@cache
def _own() -> Mapping[str, Mapping[str, Entry]]:
    stored = json.loads(INDEX.read_text(encoding="utf-8"))
    return {kind: {one["name"]: _entry(one) for one in named} for kind, named in stored.items()}


def _entry(stored: Mapping[str, Any]) -> Entry:
    pairs = {name: tuple(map(tuple, stored[name])) for name in ("facts", "quantities")}
    return Entry(**{**stored, **pairs, "fields": tuple(_fields(stored["fields"]))})


def _fields(stored: list[dict[str, Any]]) -> Iterator[Field]:
    for one in stored:
        flag = one["flag"] and Flag(**{**one["flag"], "choices": tuple(one["flag"]["choices"])})
        yield Field(**{**one, "flag": flag})
