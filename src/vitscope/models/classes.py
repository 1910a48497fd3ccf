"""The number of a module's classes, and their names, which are never shifted."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import AbstractLibrary, Outputs
from vitscope.numerics.precision import to_float64


def outputs_of(
    module: nn.Module,
    library: type[AbstractLibrary] | None,
    width: int,
    saved: tuple[str, ...] | None,
    given: Sequence[str] | None,
    labels: Sequence[tuple[str, object]] = (),
) -> Outputs:
    """The classes of a module whose output is ``width`` numbers wide.

    Their names are those ``given``, else those ``saved`` with the weights, else those of ``labels`` (a foreign file's
    names, each with its key), else those that the module's library knows; its guess is not used if a file has names
    that cannot be read. As many names must be given as there are outputs; from any other source, a list of another
    length is left out with a note, because names are never shifted.
    """
    known = library.classes(module) if library else Outputs(width)
    count = width if known.count else 0
    if given is not None:
        if len(given) != count:
            raise UserError(f"{len(given)} class names were given for a model of {count} classes.")
        return Outputs(count, tuple(given))
    read = label_outputs(count, labels)
    if not saved and (read.names or (read.notes and known.notes)):
        return read
    names, notes = saved or known.names, () if saved else read.notes or known.notes
    if names is None or len(names) == count:
        return Outputs(count, names, notes)
    return Outputs(
        count,
        None,
        (f"The {len(names)} class names that come with the model are left out, because it has {count} classes.",),
    )


def refuse_probabilities(name: str, rows: Float[Tensor, "images classes"]) -> None:
    """Raise ``UserError`` if a classifier's outputs are probabilities, since a second softmax would be applied.

    They are if each lies between 0 and 1, and those of every picture sum to 1 within rounding.
    """
    values, rounding = to_float64(rows), max(4 * torch.finfo(rows.dtype).eps, 1e-5)
    if bool(((values >= 0) & (values <= 1)).all()) and bool(((values.sum(1) - 1).abs() <= rounding).all()):
        raise UserError(
            f"{name} returns probabilities (from 0 to 1, their sum 1), but the loss needs logits: leave its softmax "
            "out, or return its logarithm (log_softmax)."
        )


def label_outputs(count: int, labels: Sequence[tuple[str, object]]) -> Outputs:
    """``count`` classes with the names that a file holds, under one key or under several that agree."""
    found = [named_outputs(count, names, key) for key, names in labels]
    named = [one for one in found if one.names is not None]
    if len({one.names for one in named}) > 1:
        keys = " and ".join(key for (key, _), one in zip(labels, found, strict=True) if one.names is not None)
        return Outputs(count, None, (f"The class names in {keys} differ and are left out: give them as classes=...",))
    return named[0] if named else Outputs(count, None, tuple(note for one in found for note in one.notes))


def named_outputs(count: int, found: object, key: str) -> Outputs:
    """``count`` classes with the names that a configuration holds under ``key``, in the order of the outputs.

    ``found`` is a list of names, or a table of names by class number (text or integer) or of class numbers by name.
    Placeholders (``LABEL_0``) do not count as names. A class that a table leaves out is called "unnamed 3". Names that
    cannot be put in order are left out with a note.
    """
    if found is None or count == 0:
        return Outputs(count)
    names = _in_order(found, count)
    if names is None:
        said = f"The class names in {key} are left out: they are not a list or table for classes 0 to {count - 1}."
        return Outputs(count, None, (said,))
    if all(name == f"LABEL_{number}" for number, name in enumerate(names)):
        return Outputs(count)
    unnamed = [number for number, name in enumerate(names) if name is None]
    said = (f"{key} names {count - len(unnamed)} of the {count} classes.",) if unnamed else ()
    return Outputs(
        count, tuple(f"unnamed {number}" if name is None else name for number, name in enumerate(names)), said
    )


def last_width(head: nn.Module) -> int | None:
    """Outputs of the last linear or convolutional layer of a classifier's head; None if it has none."""
    widths = [
        layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        for layer in head.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    return widths[-1] if widths else None


def _in_order(found: object, count: int) -> list[str | None] | None:
    if isinstance(found, Mapping):
        table = cast("Mapping[object, object]", found)
        if all(map(_is_number, table.values())) and not all(_is_number(key) for key in table):
            table = {number: name for name, number in table.items()}
        if not all(_is_number(key) and 0 <= int(str(key)) < count for key in table):
            return None
        by_number = {int(str(key)): name for key, name in table.items()}
        if not by_number or len(by_number) < len(table):
            return None
        values = [by_number.get(number) for number in range(count)]
    elif isinstance(found, list | tuple) and len(cast("Sequence[object]", found)) == count:
        values = list(cast("Sequence[object]", found))
    else:
        return None
    if not all(value is None or isinstance(value, str | int) for value in values):
        return None
    return [None if value is None else str(value) for value in values]


def _is_number(key: object) -> bool:
    return str(key).isascii() and str(key).isdecimal()
