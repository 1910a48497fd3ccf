"""Work as bytes, for worker processes of this very program.

A module travels; its anatomy, which is made of functions bound to it, is rebuilt on arrival.
"""

import dataclasses
import traceback
from contextlib import suppress
from typing import Any

import cloudpickle

from vitscope.engine.work.work import AbstractSubjectWork, AbstractWork, Result
from vitscope.models.catalogue import composition_of
from vitscope.models.edit import with_edits
from vitscope.models.subject import Composition, Subject


def pack(work: AbstractWork[Result]) -> bytes:
    """The work as bytes. Cost: the size of the model's weights, and of the pixels of images held in memory."""
    if not isinstance(work, AbstractSubjectWork):
        return cloudpickle.dumps(work)
    fields = {field.name: _take_apart(getattr(work, field.name)) for field in dataclasses.fields(work)}
    return cloudpickle.dumps((type(work), fields))


def unpack(content: bytes) -> AbstractWork[Any]:
    """The work that :func:`pack` made into bytes. Only for this program's own bytes: unpickling runs code."""
    found = cloudpickle.loads(content)
    if isinstance(found, AbstractWork):
        return found
    kind, fields = found
    return kind(**{name: _put_together(value) for name, value in fields.items()})


@dataclasses.dataclass(frozen=True, eq=False)
class _Parts:
    """A subject's fields, without its anatomy if that can be rebuilt."""

    fields: dict[str, Any]


def _take_apart(value: object) -> object:
    """A subject, or each of a tuple of subjects, as its parts; anything else as it is."""
    if isinstance(value, tuple) and any(isinstance(one, Subject) for one in value):
        return tuple(map(_take_apart, value))
    if not isinstance(value, Subject):
        return value
    return _Parts({**vars(value), **({"anatomy": None} if isinstance(value.anatomy, Composition) else {})})


def _put_together(value: object) -> object:
    """The value that :func:`_taken_apart` was given."""
    if isinstance(value, tuple) and any(isinstance(one, _Parts) for one in value):
        return tuple(map(_put_together, value))
    if not isinstance(value, _Parts):
        return value
    fields = dict(value.fields)
    if fields["anatomy"] is None:
        anatomy = composition_of(fields["module"])
        assert anatomy is not None, "a module whose adapter was found once is found again"
        fields["anatomy"] = with_edits(anatomy, fields["edits"])
    return Subject(**fields)


def pack_error(error: Exception) -> bytes:
    """An error as bytes, with its traceback; one that cannot be pickled becomes a ``RuntimeError`` with that text."""
    where = "".join(traceback.format_exception(error))
    error.add_note(f"In a worker process:\n{where}")
    with suppress(Exception):
        content = cloudpickle.dumps(error)
        cloudpickle.loads(content)
        return content
    return cloudpickle.dumps(RuntimeError(where))


def unpack_error(content: bytes) -> Exception:
    """The error that :func:`pack_error` made into bytes. Only for this program's own bytes."""
    return cloudpickle.loads(content)
