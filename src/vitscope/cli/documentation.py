"""Descriptions of a dataclass's fields, from the strings below them in its source, and the flag of each."""

import ast
import dataclasses
import inspect
import re
import types
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from textwrap import dedent
from typing import Any, Literal, Union, get_args, get_origin

_TYPES = {"bool": bool, "int": int, "float": float, "str": str}


@dataclass(frozen=True)
class Flag:
    """How a field is given on the command line."""

    name: str
    """Its name, with underscores."""
    type: str
    """Name of the type that is parsed."""
    optional: bool
    """Whether it may be left out altogether."""
    choices: tuple[str, ...]
    """The allowed values; empty for any of the type."""
    many: bool = False
    """Whether it may be given several times."""

    @property
    def dashed(self) -> str:
        """The flag as it is typed."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def annotation(self) -> Any:  # noqa: ANN401 - a type, or a union of types
        """The type that the command line reads."""
        plain: Any = list[_TYPES[self.type]] if self.many else _TYPES[self.type]
        return plain | None if self.optional else plain


@dataclass(frozen=True)
class Field:
    """A dataclass's field, in words."""

    name: str
    default: str | None
    """As it is written in code; None if it must be given."""
    meaning: str
    flag: Flag | None
    """None if it cannot be given on the command line."""


def fields_of(cls: type[Any]) -> tuple[Field, ...]:
    """The fields of a dataclass: its own first, then those of its nearest base, and so on."""
    if not dataclasses.is_dataclass(cls):
        return ()
    line = [{field.name for field in dataclasses.fields(one)} for one in cls.__mro__ if dataclasses.is_dataclass(one)]
    documentation = _documentation(cls)

    def distance(field: "dataclasses.Field[Any]") -> int:
        return max(place for place, names in enumerate(line) if field.name in names)

    return tuple(
        Field(
            one.name,
            None if one.default is dataclasses.MISSING else repr(one.default),
            documentation.get(one.name, ""),
            _flag(one),
        )
        for one in sorted(dataclasses.fields(cls), key=distance)
    )


def plain(text: str) -> str:
    """Docstring markup as plain text, each paragraph on one line, which the terminal wraps."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("``", "")
    text = re.sub(r"^( *)\.\. math:: ?", r"\1   ", text, flags=re.MULTILINE)
    return re.sub(r"(?<=\S)\n(?=[^\s*-])", " ", text)


def _flag(field: "dataclasses.Field[Any]") -> Flag | None:
    """The flag of a field, whose metadata may give it another name; None if no flag can express it."""
    parts = _parts(field.type)
    values = [part for part in parts if part is not type(None)]
    choices = next((tuple(map(str, get_args(part))) for part in values if get_origin(part) is Literal), ())
    several = get_origin(values[0]) is tuple and get_args(values[0])[1:] == (...,)
    read = type(get_args(values[0])[0]) if choices else get_args(values[0])[0] if several else values[0]
    name = field.metadata.get("flag", field.name)
    if not name or len(values) != 1 or read not in _TYPES.values():
        return None
    return Flag(name, read.__name__, len(parts) > 1, choices, several)


def _parts(annotation: object) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _documentation(cls: type) -> dict[str, str]:
    """Each field's docstring on one line; that of a base if the class has none."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if dataclasses.is_dataclass(one):
            found |= _own(one)
    return found


def _own(cls: type) -> dict[str, str]:
    try:
        tree = ast.parse(dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # made without source, as by exec
        return {}
    body: Iterable[ast.stmt] = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    found: dict[str, str] = {}
    for field, text in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            found[field.target.id] = " ".join(text.value.value.split())
    return found
