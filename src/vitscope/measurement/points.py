"""Grids over the fields of a dataclass: their values as text, and the results at their points along their axes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from typing import Any, Literal, cast, final, get_args, get_origin

import numpy as np
import xarray as xr

from vitscope.measurement.axes import AXES
from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest
from vitscope.measurement.ranges import parse_numbers
from vitscope.measurement.trials import Along, Entries

Value = bool | int | float | str
_AXIS = {"image": "image_side", "batch": "batch_size"}
"""Axis names of settings whose own name is that of another axis."""


@final
@dataclass(frozen=True)
class Points:
    """The points of a grid: every combination of the values of some settings, the last one fastest."""

    values: Mapping[str, tuple[Value, ...]] = field(default_factory=dict[str, tuple[Value, ...]])

    @property
    def settings(self) -> list[dict[str, Value]]:
        """The settings at each point; a grid without axes has one point, without settings."""
        return [dict(zip(self.values, point, strict=True)) for point in product(*self.values.values())]

    @property
    def names(self) -> list[str]:
        """Each point in words: ``learning rate 0.001, mixup 0``."""
        return [
            ", ".join(f"{name.replace('_', ' ')} {_show(value)}" for name, value in settings.items())
            for settings in self.settings
        ]

    @property
    def axes(self) -> list[Along]:
        """The axes along which results are stacked, one for each setting."""
        return [
            Along(axis, cast(Entries, [_entry(one) for one in values]), AXES.get(axis, axis.replace("_", " ")))
            for axis, values in ((_AXIS.get(name, name), values) for name, values in self.values.items())
        ]

    def stack(self, datasets: Sequence[xr.Dataset]) -> xr.Dataset:
        """The points' datasets along the grid's axes, which come first; values a point lacks are NaN with count 0."""
        return _stack(self.axes, datasets)


def parse_points(owner: str, kind: type[Any], names: Mapping[str, str], texts: Mapping[str, str]) -> Points:
    """The grid written as text: for each field ``0.1,0.2`` or, for numbers, ``0.1:0.5:9``.

    ``names`` maps every name that a user may give to its field. Raises ``UserError``, naming the ``owner`` of the
    fields, for an unknown field and for a value that does not fit the field.
    """
    types = {one.name: one.type for one in fields(kind)}
    grid: dict[str, tuple[Value, ...]] = {}
    for given, text in texts.items():
        if given not in names:
            raise UserError(f"{owner} has no setting {given!r}{nearest(given, names)}; it has: {', '.join(names)}.")
        name = names[given]
        if name in grid:
            raise UserError(f"{given} is {name}, which the grid has already: give it once.")
        grid[name] = _parse_values(name, text, types[name])
    return Points(grid)


def _parse_values(name: str, text: str, kind: object) -> tuple[Value, ...]:
    """The values of a field, each once."""
    kind = _without_none(kind)
    if ":" not in text or kind is str:
        return tuple(dict.fromkeys(_parse_value(name, part.strip(), kind) for part in text.split(",")))
    if kind is not int and kind is not float:
        raise UserError(f"{text!r} is a range, but {name} is not a number: separate its values with commas.")
    numbers = parse_numbers(text)
    if kind is int and any(one != int(one) for one in numbers):
        raise UserError(
            f"{text!r} has values that are not whole, but {name} must be: {', '.join(f'{n:g}' for n in numbers)}."
        )
    return tuple(int(one) if kind is int else one for one in numbers)


def _without_none(kind: object) -> object:
    """The type of a field, without the None of an optional one."""
    parts = [one for one in get_args(kind) if one is not type(None)]
    return parts[0] if get_origin(kind) is not Literal and len(parts) == 1 and len(get_args(kind)) == 2 else kind


def _parse_value(name: str, text: str, kind: object) -> Value:
    """One value of a field."""
    if kind is str:
        return text
    literals = get_args(kind) if get_origin(kind) is Literal else ()
    choices = {"True": True, "False": False} if kind is bool else {str(one): one for one in literals}
    if choices and text not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}, not {text!r}.")
    if choices:
        return choices[text]
    try:
        return int(text) if kind is int else float(text)
    except ValueError as error:
        raise UserError(f"{text!r} is no value of {name}: separate numbers with commas, as in {name}=1,2.") from error


def _entry(value: Value) -> float | int | str:
    return str(value) if isinstance(value, bool | str) else value


def _show(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _stack(axes: Sequence[Along], datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    if not axes:
        return datasets[0]
    size = len(datasets) // len(axes[0].values)
    parts = [_stack(axes[1:], datasets[start : start + size]) for start in range(0, len(datasets), size)]
    joined = xr.concat(parts, dim=axes[0].name, join="outer", combine_attrs="override")
    counts = {name: joined[name].fillna(0).astype(np.int64) for name in joined if str(name).endswith("_count")}
    return joined.assign_coords({axes[0].name: axes[0].coordinate}).assign(counts)
