"""Edits as JSON and tensors: every edit says in a file what it is, and is read from there without running code."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast, final

import numpy as np
from torch import Tensor

from vitscope.measurement.errors import UserError
from vitscope.models.subject import AbstractEdit
from vitscope.runs.registry import Registry

WRITTEN: Registry[Any] = Registry("value of an edit", "vitscope.interventions")
"""What a file may say: edits and the values in their fields, by name. No other class is made from a file."""

TENSORS = "vitscope.edits."
"""The beginning of the names of tensors that belong to edits."""
_PLAIN = (bool, int, float, str)


@final
@dataclass(frozen=True, eq=False)
class WrittenEdits:
    """Edits in the form in which a file holds them.

    ``edits`` are JSON: a registered value is ``{"is": NAME, FIELD: ...}``, a tuple a list, and a tensor ``{"is":
    "tensor", "name": NAME}``, its numbers being in ``tensors``.
    """

    edits: tuple[object, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def read(self) -> tuple[AbstractEdit, ...]:
        """The edits. Raises ``UserError`` for what :func:`write_edits` does not write."""
        try:
            found = tuple(_read(one, self.tensors) for one in self.edits)
        except UserError:
            raise
        except Exception as error:  # a hostile file chooses what is raised
            raise UserError(f"an edit is damaged ({type(error).__name__}: {error})") from error
        for one in found:
            if not isinstance(one, AbstractEdit):
                raise UserError(f"{one!r:.60} is no edit")
        return found


def write_edits(edits: Sequence[AbstractEdit]) -> WrittenEdits:
    """The edits as JSON and tensors, in order.

    Raises ``UserError`` naming an edit that holds what no file can say: a function, or a value that is not registered
    in :data:`WRITTEN`.
    """
    tensors: dict[str, Tensor] = {}
    written: list[object] = []
    for number, edit in enumerate(edits):
        try:
            written.append(_write(edit, f"{TENSORS}{number}", tensors))
        except UserError as error:
            raise UserError(f"{type(edit).__name__} holds {error}, which no file can say; leave it out.") from error
    return WrittenEdits(tuple(written), tensors)


def with_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401 - any value of an edit
    """The value with ``change`` applied to every tensor in it; the value itself if none of them changes."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        items = cast("tuple[Any, ...]", value)
        found = tuple(with_tensors(one, change) for one in items)
        return found if any(one is not other for one, other in zip(found, items, strict=True)) else items
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value) if one.init}
    new = {name: with_tensors(one, change) for name, one in fields.items()}
    changed = {name: one for name, one in new.items() if one is not fields[name]}
    return replace(cast(Any, value), **changed) if changed else value


def _write(value: object, path: str, tensors: dict[str, Tensor]) -> object:
    """The value as JSON; raises ``UserError`` that says what it is if that is impossible."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, tuple | list):
        items = cast("Sequence[object]", value)
        return [_write(one, f"{path}.{number}", tensors) for number, one in enumerate(items)]
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous()
        return {"is": "tensor", "name": path}
    name = next((name for name, cls in WRITTEN.items() if cls is type(value)), None)
    if name is None:
        raise UserError(_describe(value))
    fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(cast(Any, value))}
    return {"is": name, **{key: _write(one, f"{path}.{key}", tensors) for key, one in fields.items()}}


def _describe(value: object) -> str:
    named = getattr(value, "__qualname__", None)
    if named is not None:
        return f"the function {getattr(value, '__module__', '')}.{named}"
    return f"a value of {type(value).__module__}.{type(value).__qualname__}"


def _read(value: object, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401 - any value of an edit
    if isinstance(value, list):
        return tuple(_read(one, tensors) for one in cast("list[object]", value))
    if not isinstance(value, dict):
        return value
    fields = dict(cast("dict[str, object]", value))
    kind = fields.pop("is")
    if kind == "tensor":
        return tensors[cast(str, fields["name"])]
    if not isinstance(kind, str) or kind not in WRITTEN:
        raise UserError(f"this version of vitscope knows no edit {kind!r:.60}")
    return WRITTEN[kind](**{name: _read(one, tensors) for name, one in fields.items()})
