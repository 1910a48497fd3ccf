"""The help of a dataclass's fields: the strings that stand below them in its source."""

import ast
import dataclasses
import inspect
from itertools import pairwise
from textwrap import dedent
from typing import Any


def field_documentation(cls: type) -> dict[str, str]:
    """Each field's docstring, in one line; that of a base where a class says nothing of it."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if dataclasses.is_dataclass(one):
            found |= _own(one)
    return {field.name: found[field.name] for field in dataclasses.fields(cls) if field.name in found}


def fields_in_order(cls: type) -> tuple["dataclasses.Field[Any]", ...]:
    """The fields of a dataclass: those that it brings itself first, then those of its nearest base, and so on."""
    line = [{field.name for field in dataclasses.fields(one)} for one in cls.__mro__ if dataclasses.is_dataclass(one)]

    def distance(field: "dataclasses.Field[Any]") -> int:
        return max(place for place, names in enumerate(line) if field.name in names)

    return tuple(sorted(dataclasses.fields(cls), key=distance))


def _own(cls: type) -> dict[str, str]:
    tree = ast.parse(dedent(inspect.getsource(cls)))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
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
