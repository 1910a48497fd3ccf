"""Labels: where they come from, how they are mapped, and whether they are the model's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, final

import numpy as np
from jaxtyping import Int

from vitscope.measurement.errors import UserError

LabelMap = Mapping[int | str, int] | Mapping[str, int] | Mapping[int, int]


@final
@dataclass(frozen=True, eq=False)
class Labels:
    """A class for every image, in [0, count).

    `classes` names the values where they have names; `source` says where they come from; `chosen` is whether the user
    picked them (a column, a map, an array), so that no further guess at their meaning is due.
    """

    values: Int[np.ndarray, "images"]
    classes: tuple[str, ...] | None
    source: str
    count: int
    chosen: bool = False
    mapped: bool = False

    def take(self, positions: Int[np.ndarray, "chosen"]) -> "Labels":
        """The labels of the images at `positions`."""
        return replace(self, values=self.values[positions])


@final
@dataclass(frozen=True)
class Column:
    """A column of a table that may hold labels; `classes` where its schema names them."""

    name: str
    classes: tuple[str, ...] | None


def choose_column(columns: Sequence[Column], label: str | None, where: str) -> Column | None:
    """The column called `label`; else the one called "label"; else the only one with class names or so named; or None.

    `columns` are those that hold integers or strings.
    """
    if label is not None:
        for column in columns:
            if column.name == label:
                return column
        listed = ", ".join(column.name for column in columns) or "none"
        raise UserError(f"{where} has no label column {label!r}; columns that can hold labels: {listed}.")
    likely = [column for column in columns if column.classes is not None or column.name.endswith(("label", "labels"))]
    exact = [column for column in likely if column.name == "label"]
    if not exact and len(likely) > 1:
        listed = ", ".join(column.name for column in likely)
        raise UserError(f"{where} has several label columns ({listed}): choose one with --label.")
    return next(iter(exact or likely), None)


def read_labels(
    raw: object, where: str, source: str, classes: tuple[str, ...] | None = None, chosen: bool = False
) -> Labels | None:
    """Labels from a sequence of integers, or of strings (numbered in sorted order); None where all are -1 or null.

    Columns of shape (images, 1) are taken for vectors.
    """
    values = np.asarray(raw)
    if values.size == 0:
        return None
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1 or values.dtype.kind not in "iubUO":
        shape = "x".join(map(str, values.shape))
        raise UserError(f"the labels of {where} ({source}) must be one integer per image, not {shape} {values.dtype}.")
    if values.dtype.kind in "UO":
        known = np.array([value is not None and str(value) != "" for value in values], dtype=bool)
        names, numbers = np.unique([str(value) for value in values[known]], return_inverse=True)
        classes = tuple(map(str, names))
        values = np.full(len(known), -1)
        values[known] = numbers
    values = values.astype(np.int64)
    missing = int((values < 0).sum())
    if missing == len(values):
        return None
    if missing:
        raise UserError(
            f"{missing} of the {len(values)} images of {where} have no label ({source} is negative or null there): "
            "give only labelled images, or choose other labels with --label."
        )
    most = int(values.max())
    if classes is not None and most >= len(classes):
        raise UserError(f"{where} has the label {most} ({source}), but only {len(classes)} class names.")
    return Labels(values, classes, source, most + 1 if classes is None else len(classes), chosen)


def column_labels(values: Sequence[int | str | None], column: Column, where: str, chosen: bool) -> Labels | None:
    """Labels from the cells of a column; null is no label."""
    strings = any(isinstance(value, str) for value in values)
    raw = np.array(values, dtype=object) if strings else np.array([-1 if value is None else value for value in values])
    return read_labels(raw, where, f"column {column.name!r}", column.classes, chosen)


def map_labels(labels: Labels | None, label_map: LabelMap | str | Path, where: str) -> Labels:
    """The labels with every value replaced as `label_map` says: a mapping, or a JSON file of one.

    Keys are class names of the images, or label values (in a JSON file as strings; a name wins over a value); the
    results are class numbers of the model. Every label that occurs must have an entry.
    """
    if labels is None:
        raise UserError(f"{where} has no labels to map: leave --label-map out.")
    origin = str(label_map) if isinstance(label_map, str | Path) else "the given map"
    targets = _targets(_entries(label_map, origin), labels.classes, where, origin)
    unmapped = sorted({int(value) for value in labels.values} - targets.keys())
    if unmapped:
        shown = ", ".join(_called(value, labels.classes) for value in unmapped[:3])
        raise UserError(f"the label map {origin} has no entry for {len(unmapped)} labels of {where}, such as {shown}.")
    values = np.array([targets[int(value)] for value in labels.values], dtype=np.int64)
    classes = _mapped_names(targets, labels.classes)
    source = f"{labels.source}, mapped by {origin}"
    return Labels(values, classes, source, int(values.max()) + 1, chosen=True, mapped=True)


def _entries(label_map: LabelMap | str | Path, origin: str) -> dict[int | str, int]:
    parsed: object = label_map
    if isinstance(label_map, str | Path):
        try:
            parsed = json.loads(Path(label_map).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"the label map {origin} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise UserError(f"the label map {origin} is not JSON: {error}.") from error
    if not isinstance(parsed, Mapping):
        raise UserError(f'the label map {origin} must be an object such as {{"tench": 0, "church": 497}}.')
    entries = cast("dict[int | str, object]", dict(parsed))
    for key, target in entries.items():
        if isinstance(target, bool) or not isinstance(target, int) or target < 0:
            raise UserError(f"the label map {origin} sends {key!r} to {target!r}, which is no class number.")
    return cast("dict[int | str, int]", entries)


def _targets(entries: dict[int | str, int], classes: tuple[str, ...] | None, where: str, origin: str) -> dict[int, int]:
    targets: dict[int, int] = {}
    for key, target in entries.items():
        if isinstance(key, str) and classes is not None and key in classes:
            targets |= {value: target for value, name in enumerate(classes) if name == key}
        elif isinstance(key, int) or key.lstrip("-").isdecimal():
            targets.setdefault(int(key), target)
        else:
            known = "its labels have no names" if classes is None else f"its classes are {_listed(classes)}"
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


def fit_labels(labels: Labels, count: int, names: tuple[str, ...] | None, where: str) -> Labels:
    """The labels as class numbers of a model of `count` classes called `names`, or a `UserError` where they are not.

    Class names in another order than the model's are put into the model's. Beyond that nothing is guessed: other
    classes than the model's are refused unless the user chose the labels.
    """
    remedy = "choose a label column with --label, or map the labels with --label-map FILE"
    most = int(labels.values.max())
    if most >= count:
        called = _called(most, labels.classes)
        raise UserError(f"the label {called} of {where} has no class in a model of {count} classes: {remedy}.")
    if not labels.chosen and labels.count != count:
        raise UserError(
            f"{where} has {labels.count} classes ({labels.source}), the model {count}, so the labels cannot be taken "
            f"for the model's: {remedy}."
        )
    if labels.mapped or labels.classes is None or names is None or labels.classes == names:
        return labels
    if len(set(names)) == len(names) == len(labels.classes) and set(names) == set(labels.classes):
        order = np.array([names.index(name) for name in labels.classes], dtype=np.int64)
        source = f"{labels.source}, in the model's order by name"
        return replace(labels, values=order[labels.values], classes=names, source=source)
    if not labels.chosen and not _alike(labels.classes, names):
        raise UserError(
            f"the classes of {where} ({_listed(labels.classes)}) are not the model's ({_listed(names)}): {remedy}."
        )
    return labels


def _alike(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Whether two spellings of class names may mean the same: some agree, and none is at another place."""
    places: dict[str, set[int]] = {}
    for place, name in enumerate(theirs):
        places.setdefault(name.casefold(), set()).add(place)
    shared = [place in places[name.casefold()] for place, name in enumerate(ours) if name.casefold() in places]
    return bool(shared) and all(shared)


def _called(value: int, classes: tuple[str, ...] | None) -> str:
    named = classes is not None and value < len(classes)
    return f"{value} ({classes[value]})" if named and classes is not None else str(value)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
