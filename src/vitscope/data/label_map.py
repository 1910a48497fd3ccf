"""Label maps: from the data set's classes to the model's."""

import json
import re
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, cast

import numpy as np

from vitscope.data.decode import BrokenImage
from vitscope.data.files import read_file
from vitscope.data.label import Labels, first_names, label_text
from vitscope.data.source import reason_of
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

WHOLE = re.compile(r"^-?\d{1,18}$")
MOST_CLASSES, MOST_BYTES = 2**31, 2**26

Whole = int | np.integer[Any]
LabelMap = Mapping[Whole | str, Whole] | Mapping[int | str, Whole] | Mapping[str, Whole] | Mapping[int, Whole]


def map_labels(labels: Labels | None, label_map: LabelMap | str | Path, where: str) -> Labels:
    """The labels with every value replaced as `label_map` says: a mapping, or a JSON file of one.

    Keys are class names of the images, or label values (in a JSON file as strings; a name wins over a value); the
    results are class numbers of the model. Every label that occurs must have an entry.
    """
    if labels is None:
        raise UserError(f"{where} has no labels to map: leave --label-map out.")
    origin = printable(str(label_map)) if isinstance(label_map, str | Path) else "the given map"
    targets = _targets(_entries(label_map, origin), labels.classes, where, origin)
    unmapped = sorted({int(value) for value in labels.values} - targets.keys())
    if unmapped:
        shown = ", ".join(label_text(value, labels.classes) for value in unmapped[:3])
        raise UserError(f"the label map {origin} has no entry for {len(unmapped)} labels of {where}, such as {shown}.")
    values = np.array([targets[int(value)] for value in labels.values], dtype=np.int64)
    classes = _mapped_names(targets, labels.classes)
    source = f"{labels.source}, mapped by {origin}"
    return Labels(values, classes, source, int(values.max()) + 1, chosen=True, mapped=True)


def _entries(label_map: LabelMap | str | Path, origin: str) -> dict[int | str, int]:
    parsed: object = label_map
    if isinstance(label_map, str | Path):
        try:
            parsed = json.loads(read_file(label_map, "the label map", MOST_BYTES))
        except BrokenImage as error:
            raise UserError(f"the label map {origin} cannot be read: {error.reason}.") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"the label map {origin} is not JSON: {reason_of(error)}.") from error
    if not isinstance(parsed, Mapping):
        raise UserError(f'the label map {origin} must be an object such as {{"tench": 0, "church": 497}}.')
    entries = cast("dict[Any, Any]", dict(parsed))
    for key, target in entries.items():
        if not _is_whole(target) or not 0 <= target < MOST_CLASSES:
            raise UserError(f"the label map {origin} sends {key!r} to {repr(target)[:40]}, not to a class number.")
        if not _is_whole(key) and not isinstance(key, str):
            raise UserError(f"the label map {origin} has the key {key!r}, which is not a class name or label.")
    return {key if isinstance(key, str) else int(key): int(target) for key, target in entries.items()}


def _is_whole(value: object) -> bool:
    """Whether this is an integer, of Python or NumPy."""
    return not isinstance(value, bool) and isinstance(value, Integral)


def _targets(entries: dict[int | str, int], classes: tuple[str, ...] | None, where: str, origin: str) -> dict[int, int]:
    targets: dict[int, int] = {}
    for key, target in entries.items():
        if isinstance(key, str) and classes is not None and key in classes:
            targets |= {value: target for value, name in enumerate(classes) if name == key}
        elif isinstance(key, int) or WHOLE.match(key):
            targets.setdefault(int(key), target)
        else:
            known = "its labels have no names" if classes is None else f"its classes are {first_names(classes)}"
            raise UserError(f"the label map {origin} names the class {key!r}, which {where} does not have: {known}.")
    return targets


def _mapped_names(targets: dict[int, int], classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Names of the mapped values, if they are 0, 1, ... without a gap; classes that were merged share a name."""
    if classes is None or set(targets.values()) != set(range(len(set(targets.values())))):
        return None
    names: list[list[str]] = [[] for _ in set(targets.values())]
    for value, target in sorted(targets.items()):
        if 0 <= value < len(classes):
            names[target].append(classes[value])
    return tuple(" / ".join(each) for each in names)
