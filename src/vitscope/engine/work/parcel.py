"""Work as bytes, for worker processes of this very program.

A module travels; its anatomy, which is made of functions bound to it, is found again where it arrives.
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


def packed(work: AbstractWork[Result]) -> bytes:
    """The work as bytes. Cost: a model's weights and, of images held in memory, their pixels."""
    if not isinstance(work, AbstractSubjectWork):
        return cloudpickle.dumps(work)
    subject = dict(vars(work.subject))
    if isinstance(work.subject.anatomy, Composition):
        subject["anatomy"] = None
    fields = {field.name: getattr(work, field.name) for field in dataclasses.fields(work) if field.name != "subject"}
    return cloudpickle.dumps((type(work), subject, fields))


def unpacked(content: bytes) -> AbstractWork[Any]:
    """The work that :func:`packed` made into bytes. Only for bytes of this program's own: unpickling runs code."""
    found = cloudpickle.loads(content)
    if isinstance(found, AbstractWork):
        return found
    kind, subject, fields = found
    if subject["anatomy"] is None:
        anatomy = composition_of(subject["module"])
        assert anatomy is not None, "a module whose adapter was found once is found again"
        subject["anatomy"] = with_edits(anatomy, subject["edits"])
    return kind(subject=Subject(**subject), **fields)


def packed_error(error: Exception) -> bytes:
    """An error as bytes, with where it happened; one that cannot travel becomes one that tells it in words."""
    where = "".join(traceback.format_exception(error))
    error.add_note(f"In a worker process:\n{where}")
    with suppress(Exception):
        content = cloudpickle.dumps(error)
        cloudpickle.loads(content)
        return content
    return cloudpickle.dumps(RuntimeError(where))


def raised(content: bytes) -> Exception:
    """The error that :func:`packed_error` made into bytes. Only for bytes of this program's own."""
    return cloudpickle.loads(content)
