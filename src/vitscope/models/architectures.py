"""The architecture of a file's weights, looked up by their names and shapes without building any model.

The index beside this file was made by ``python docs/architectures.py`` from every classifier of timm and
torchvision, each built without memory for its weights. It only serves messages and decides nothing.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

Shapes = Mapping[str, tuple[int, ...]]

INDEX = Path(__file__).with_name("architectures.json")
"""One architecture per line: the fields of :class:`Architecture`."""


@dataclass(frozen=True)
class Architecture:
    """An architecture's digests: of the names of all weights, and of the shapes of all but its classifier's."""

    name: str
    names: str
    shapes: str
    parameters: int
    classifier: tuple[str, ...]
    """The submodules whose shapes depend on the number of classes."""


def nearest_architectures(shapes: Shapes, most: int = 3) -> tuple[str, bool] | None:
    """``(words, exact)``: the architectures with the names of these weights, nearest first; None if there is none.

    ``exact`` says that their shapes match too, except the classifier's. Cost: a few digests of the names.
    """
    names = _names(shapes)
    alike = [one for one in _read_index() if one.names == names]
    by_head = {one.classifier: _shapes(shapes, one.classifier) for one in alike}
    exact = [one for one in alike if one.shapes == by_head[one.classifier]]
    count = _count(shapes)
    ordered = sorted(exact or alike, key=lambda one: (abs(one.parameters - count), len(one.name)))
    if not ordered:
        return None
    shown = [one.name for one in ordered[:most]]
    more = f" (and {len(ordered) - most} more)" if exact and len(ordered) > most else ""
    return (" or ".join(shown) if exact else shown[0]) + more, bool(exact)


def architecture_entry(name: str, shapes: Shapes, classifier: tuple[str, ...]) -> Architecture:
    """The entry of an architecture whose weights have these shapes."""
    return Architecture(name, _names(shapes), _shapes(shapes, classifier), _count(shapes), classifier)


def _names(shapes: Shapes) -> str:
    return _digest(sorted(shapes))


def _shapes(shapes: Shapes, classifier: tuple[str, ...]) -> str:
    heads = tuple(f"{one}." for one in classifier)
    return _digest(f"{name}{tuple(shape)}" for name, shape in sorted(shapes.items()) if not name.startswith(heads))


def _count(shapes: Shapes) -> int:
    total = 0
    for shape in shapes.values():
        size = 1
        for side in shape:
            size *= side
        total += size
    return total


def _digest(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:10]


@cache
def _read_index() -> tuple[Architecture, ...]:
    rows = json.loads(INDEX.read_text()) if INDEX.is_file() else []
    return tuple(Architecture(row[0], row[1], row[2], row[3], tuple(row[4])) for row in rows)
