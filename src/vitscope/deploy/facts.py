"""What an exported file says of its model: how pictures become its input, its classes, and what was changed."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import cast

from torch import Tensor

from vitscope.measurement.errors import UserError
from vitscope.models.subject import AbstractEdit, Preprocessing, Subject
from vitscope.models.written import write_edits

_COLOURS = {1: "grey", 3: "RGB"}


def describe_subject(subject: Subject) -> dict[str, str]:
    """Texts by name, for the metadata of a file: ``model``, ``classes``, ``preprocessing``, ``edits`` and the program.

    All but the model's name are JSON. ``preprocessing`` gives the size, the colours, mean and standard deviation by
    channel (of pixels from 0 to 1; null if they are not known) and the whole transform in words.
    """
    facts: dict[str, object] = {
        "classes": subject.classes,
        "preprocessing": _describe_input(subject.preprocessing),
        "edits": [_describe_edit(edit) for edit in subject.edits],
        "notes": subject.notes,
    }
    texts = {name: json.dumps(value) for name, value in facts.items() if value}
    return {"model": subject.name, **texts, "producer": f"vitscope {version('vitscope')}"}


def _describe_input(given: Preprocessing) -> dict[str, object]:
    channels, height, width = given.shape
    return {
        "height": height,
        "width": width,
        "colours": _COLOURS.get(channels, f"{channels} channels"),
        "mean": given.mean,
        "std": given.std,
        "transform": given.text,
    }


def _describe_edit(edit: AbstractEdit) -> object:
    """The edit as JSON, with shapes in place of tensors; its text if no file can say it."""
    try:
        written = write_edits([edit])
    except UserError:
        return repr(edit)
    return _with_shapes(written.edits[0], written.tensors)


def _with_shapes(value: object, tensors: Mapping[str, Tensor]) -> object:
    if isinstance(value, list):
        return [_with_shapes(one, tensors) for one in cast("Sequence[object]", value)]
    if not isinstance(value, dict):
        return value
    held = cast("dict[str, object]", value)
    if held.get("is") == "tensor":
        return {"is": "tensor", "shape": list(tensors[cast(str, held["name"])].shape)}
    return {name: _with_shapes(one, tensors) for name, one in held.items()}
