"""Labels: where they come from, how their classes are numbered, and whether they are the model's."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, final

import numpy as np
from jaxtyping import Int

from vitscope.data.class_names import Match, are_placeholders, match, placeholder_numbers
from vitscope.data.label_value import plain
from vitscope.measurement.errors import UserError

NO_LABELS = "none"
"""The choice of label that leaves labels out."""
FOLDER = "folder"
"""The choice of label that takes folders as classes, whatever their names and other contents."""
LABEL_NAMES = ("label", "labels", "class", "classes", "class_name", "category", "target", "cls")
SEVERAL = "several labels an image (multi-label)"
BOXES = "boxes (detection)"
MASKS = "masks (segmentation)"
FRACTIONS = "numbers that are no classes"
SEQUENCES = (list, tuple, set, frozenset, np.ndarray)
MOST = 2**62
"""Class numbers are below this."""

REMEDY = "choose a label column with --label, or map the labels with --label-map FILE"

Numbering = Literal["own", "sorted", "told"]
Order = Literal["text", "natural"]
"""How class names are sorted: as torchvision and datasets do, 10 before 2 and Z before a; or as timm, the reverse."""


@final
@dataclass(frozen=True, eq=False)
class Labels:
    """A class for every image, in [0, count).

    `classes` names the values, if they have names; `source` says where they come from; `chosen` is whether the user
    picked them (a column, a map, an array), so that their meaning is not guessed further.
    """

    values: Int[np.ndarray, "images"]
    classes: tuple[str, ...] | None
    source: str
    count: int
    chosen: bool = False
    mapped: bool = False
    numbering: Numbering = "own"
    """What the numbers are: the data's own, places of the sorted names, or places in the order that the user gave."""
    notes: tuple[str, ...] = ()
    """Sentences on what was assumed."""
    whole_most: int | None = None
    """The largest label of the whole source, if these are a part of it; else None."""

    @property
    def most(self) -> int:
        """The largest label of the source, whichever of its images were taken."""
        return int(self.values.max()) if self.whole_most is None else self.whole_most

    def take(self, positions: Int[np.ndarray, "chosen"]) -> "Labels":
        """The labels of the images at `positions`."""
        return replace(self, values=self.values[positions], whole_most=self.most)


@final
@dataclass(frozen=True)
class LabelColumn:
    """A column of a table that may hold labels; `classes` if its schema names them."""

    name: str
    classes: tuple[str, ...] | None = None
    holds: str | None = None
    """What it holds, if that is not a class for each image."""


def choose_column(columns: Sequence[LabelColumn], label: str | None, where: str) -> LabelColumn | None:
    """The column called `label`; else the one called "label"; else the only one with class names or a usual name.

    `columns` are those that hold integers or strings, and those that hold annotations of another kind, which are
    refused if they are chosen or if there is nothing else.
    """
    usable = [column for column in columns if column.holds is None]
    found = next((column for column in columns if column.name == label), None)
    if found is not None and found.holds is not None:
        raise UserError(f"{where} holds {found.holds} in {found.name!r}, but a label must be one class for each image.")
    if found is not None or label == NO_LABELS:
        return found
    if label is not None:
        first_names = ", ".join(column.name for column in usable) or "none"
        raise UserError(f"{where} has no label column {label!r}; columns that can hold labels: {first_names}.")
    likely = [column for column in usable if column.classes is not None or is_label_name(column.name)]
    exact = [column for column in likely if column.name == "label"]
    if not exact and len(likely) > 1:
        first_names = ", ".join(column.name for column in likely)
        raise UserError(f"{where} has several label columns ({first_names}): choose one with --label.")
    other = next((column for column in columns if column.holds is not None), None)
    if not likely and other is not None:
        refuse_annotation(where, f"{other.holds} in {other.name!r}")
    return next(iter(exact or likely), None)


def is_label_name(name: str) -> bool:
    """Whether a column of this name is likely to hold labels."""
    return name.lower() in LABEL_NAMES or name.lower().endswith(("label", "labels"))


def refuse_annotation(where: str, what: str) -> None:
    """Refuse annotations that are not a class for each image."""
    raise UserError(
        f"{where} holds {what}, but accuracy needs one class for each image: choose labels with --label, or go "
        f"without any with --label {NO_LABELS}."
    )


def read_labels(
    raw: object, where: str, source: str, classes: tuple[str, ...] | None = None, chosen: bool = False
) -> Labels | None:
    """Labels from a sequence of integers, or of strings (numbered in sorted order); None if all are -1 or null.

    Columns of shape (images, 1) are read as vectors, whole floats as integers, NaN and blanks as null.
    """
    cells = _cells(raw, where, source)
    words = any(isinstance(cell, str) for cell in cells)
    if words:
        cells = [None if cell is None or cell == -1 else str(cell) for cell in cells]
        classes = tuple(sorted({cell for cell in cells if cell is not None}))
        _refuse_joined(classes, where, source)
        numbers = {name: number for number, name in enumerate(classes)}
        cells = [None if cell is None else numbers[cell] for cell in cells]
    values = np.array([-1 if cell is None else cell for cell in cells], dtype=np.int64)
    missing = int((values < 0).sum())
    if missing == len(values):
        return None
    if missing:
        raise UserError(
            f"{missing} of the {len(values)} images of {where} have no label ({source}: negative, null, blank, or a "
            "word such as NaN): give only labelled images, or choose other labels with --label."
        )
    most = int(values.max())
    if classes is not None and most >= len(classes):
        raise UserError(f"{where} has the label {most} ({source}), but only {len(classes)} class names.")
    return Labels(
        values,
        classes,
        source,
        most + 1 if classes is None else len(classes),
        chosen,
        numbering="sorted" if words else "own",
    )


def _cells(raw: object, where: str, source: str) -> list[int | str | None]:
    """The labels one by one: an integer, a word, or None for no label."""
    array = raw if isinstance(raw, np.ndarray) else None
    rows = cast("list[Any]", list(cast("Sequence[Any]", raw)) if array is None else np.atleast_1d(array).tolist())
    column = all(isinstance(row, list | tuple) and len(cast("Sequence[Any]", row)) == 1 for row in rows)
    cells = [plain(row[0] if column else row) for row in rows]
    strange = [cell for cell in cells if not _is_label(cell)]
    if not strange:
        return cast("list[int | str | None]", cells)
    if isinstance(strange[0], SEQUENCES) and (array is None or array.ndim == 1):
        raise UserError(
            f"the labels of {where} ({source}) hold {strange[0]!r}, {SEVERAL}: give one class for each image."
        )
    size = len(cells) if array is None else "x".join(map(str, array.shape))
    kind = np.asarray(strange[:1]).dtype if array is None else array.dtype
    raise UserError(f"the labels of {where} ({source}) must be one integer per image, not {size} {kind}.")


def _is_label(cell: object) -> bool:
    return cell is None or isinstance(cell, str) or (isinstance(cell, int) and abs(cell) < MOST)


def _refuse_joined(classes: tuple[str, ...], where: str, source: str) -> None:
    """Refuse strings such as `cat|dog`, which hold several classes."""
    known = frozenset(classes)
    joined = next((name for name in classes if _is_joined(name, known)), None)
    if joined is not None:
        raise UserError(
            f"{where} has the label {joined!r} ({source}), which reads as {SEVERAL}: give one class for each image."
        )


def _is_joined(name: str, classes: frozenset[str]) -> bool:
    """Whether a name is a list, several numbers, or made of other classes' names."""
    if "|" in name or ";" in name or name.lstrip().startswith("["):
        return True
    by_comma, by_space = ([part for part in re.split(by, name.strip()) if part] for by in (r"\s*,\s*", r"[,\s]+"))
    if len(by_comma) > 1 and not classes.isdisjoint(by_comma):
        return True
    return len(by_space) > 1 and (all(map(str.isdecimal, by_space)) or classes.issuperset(by_space))


def column_labels(values: Sequence[object], column: LabelColumn, where: str, chosen: bool) -> Labels | None:
    """Labels from the cells of a column; null means no label."""
    return read_labels(values, where, f"column {column.name!r}", column.classes, chosen)


def labels_among(
    columns: Sequence[LabelColumn], read: Callable[[str], Sequence[object]], label: str | None, where: str
) -> tuple[Labels | None, tuple[str, ...]]:
    """The labels in the chosen or evident column, and a note if there is none but some could be chosen."""
    known = [
        replace(each, holds=None) if each.holds == FRACTIONS and _are_whole(read(each.name)) else each
        for each in columns
    ]
    column = choose_column(known, label, where)
    if column is not None:
        return column_labels(read(column.name), column, where, chosen=label is not None), ()
    first_names = ", ".join(column.name for column in known if column.holds is None)
    note = f"No column of {where} was taken as labels, so there is no accuracy; --label chooses one of: {first_names}."
    return None, (note,) if first_names and label != NO_LABELS else ()


def _are_whole(cells: Sequence[object]) -> bool:
    return all(isinstance(plain(cell), int | None) for cell in cells)


def text(name: str) -> str:
    """The key by which torchvision sorts class names: the name itself."""
    return name


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """The key by which timm sorts class names: digits as numbers, letters without case; then the name itself."""
    parts = re.split(r"(\d+)", name.lower())
    numbers = [part.lstrip("0") if place % 2 else part for place, part in enumerate(parts)]
    return [(len(part) * (place % 2), part) for place, part in enumerate(numbers)], name


ORDERS: dict[str, Callable[[str], Any]] = {"text": text, "natural": natural}


def order_labels(labels: Labels | None, order: Order, where: str) -> Labels:
    """The labels with classes numbered in this order of their names, which the user says is the model's."""
    if order not in ORDERS:
        raise UserError(f"--label-order must be {' or '.join(ORDERS)}, not {order!r}.")
    if labels is None or labels.classes is None or labels.numbering != "sorted":
        raise UserError(f"{where} has no class names that could be put into an order: leave --label-order out.")
    classes = sorted(labels.classes, key=ORDERS[order])
    numbers = np.array([classes.index(name) for name in labels.classes], dtype=np.int64)
    source = f"{labels.source}, in {order} order"
    values = numbers[labels.values]
    return replace(labels, values=values, classes=tuple(classes), source=source, numbering="told", whole_most=None)


def fit_labels(labels: Labels, count: int, names: tuple[str, ...] | None, where: str) -> Labels:
    """The labels as class numbers of a model of `count` classes called `names`, or a `UserError` if they are not.

    If the model names its classes, those of the images are found by name. Otherwise the numbers must be the data's own,
    or places in an order that the user gave, or the names must have only one possible order. Classes other than the
    model's are refused unless the user chose the labels.
    """
    names = None if names is None or are_placeholders(names) else names
    if not labels.mapped and (found := _by_name(labels, count, names, where)) is not None:
        return found
    settled = labels.mapped or (labels.chosen and labels.numbering == "own")
    ours = None if labels.mapped or labels.numbering == "told" else labels.classes
    if ours is not None and names is not None:
        raise UserError(
            f"the classes of {where} ({first_names(ours)}) are not the model's ({first_names(names)}): {REMEDY}."
        )
    if labels.most >= count:
        one = label_text(labels.most, labels.classes)
        raise UserError(f"the label {one} of {where} has no class in a model of {count} classes: {REMEDY}.")
    if not settled and labels.count != count:
        raise UserError(
            f"{where} has {labels.count} classes ({labels.source}), the model {count}, so the labels cannot be taken "
            f"as the model's: {REMEDY}."
        )
    if labels.numbering == "sorted" and labels.classes is not None:
        _refuse_two_orders(labels.classes, where)
    return (
        _note_missing_names(labels, where)
        if names is not None and labels.classes is None and not labels.mapped
        else labels
    )


def _note_missing_names(labels: Labels, where: str) -> Labels:
    """The labels, with a note that, having no names, they were taken as the model's class numbers."""
    note = f"The labels of {where} ({labels.source}) have no names: they were taken as the model's class numbers."
    return replace(labels, notes=(*labels.notes, note))


def _refuse_two_orders(classes: tuple[str, ...], where: str) -> None:
    """Refuse names whose order depends on which sorting rule the model was trained with."""
    by_text, by_number = (sorted(classes, key=key) for key in (text, natural))
    if by_text != by_number:
        raise UserError(
            f"the model does not name its classes, and the order of those of {where} is not certain: text "
            f"({first_names(by_text)}, as torchvision sorts) or natural ({first_names(by_number)}, as timm does); say "
            "which with --label-order, or map the labels with --label-map FILE."
        )


def _by_name(labels: Labels, count: int, names: tuple[str, ...] | None, where: str) -> Labels | None:
    """The labels as the model's classes, if names determine these; else None."""
    if labels.classes is None:
        return None if names is None or labels.chosen else _by_number(labels, names, where)
    if labels.classes == names:
        return labels
    if names is None:
        numbers = placeholder_numbers(labels.classes)
        if numbers is None or max(numbers) >= count or len(set(numbers)) < len(numbers):
            return None
        if 0 not in numbers and not all(name.lower().startswith("label") for name in labels.classes):
            raise UserError(
                f"the classes of {where} ({first_names(labels.classes)}) are numbered, the model does not name its, "
                f"and no class is called 0: say with --label-map FILE which class of the model {labels.classes[0]} is."
            )
        return _place(labels, Match(numbers, "by the numbers in their names"), count, None, where)
    found = match(labels.classes, names)
    if found is None and not any(name.isdecimal() for name in labels.classes):
        found = _match_of_shown(labels, labels.classes, names)
    return None if found is None else _place(labels, found, count, names, where)


def _match_of_shown(labels: Labels, classes: tuple[str, ...], names: tuple[str, ...]) -> Match | None:
    """The match of the classes that have images, if only classes without images are not the model's."""
    shown = sorted({int(value) for value in labels.values})
    found = match([classes[value] for value in shown], names)
    if found is None or len(shown) == len(classes):
        return None
    places = dict(zip(shown, found.places, strict=True))
    missing = [name for value, name in enumerate(classes) if value not in places]
    how = f"{found.how or 'by name'}, but for those without images ({first_names(missing)})"
    return Match(tuple(places.get(value, -1) for value in range(len(classes))), how)


def _by_number(labels: Labels, names: tuple[str, ...], where: str) -> Labels | None:
    """Numbers that are names of the model: 3 is its class "3", unless that might be its class number 3."""
    places = {name: place for place, name in enumerate(names)}
    values = np.unique(labels.values).tolist()
    counted = all(name == str(place) for name, place in places.items())
    if counted or not all(map(str.isdecimal, names)) or not all(str(value) in places for value in values):
        return None
    if max(values) < len(names):
        raise UserError(
            f"the labels of {where} ({labels.source}) are numbers, and so are the names of the model's classes "
            f"({first_names(names)}), in another order: say with --label-map FILE whether 1 is the class number 1 or "
            'the class "1".'
        )
    found = Match(tuple(places.get(str(value), -1) for value in range(max(values) + 1)), "by numbers that are names")
    return _place(labels, found, len(names), names, where)


def _place(labels: Labels, found: Match, count: int, names: tuple[str, ...] | None, where: str) -> Labels:
    """The labels, renumbered as the model's classes that were found."""
    shown = len([place for place in found.places if place >= 0])
    notes = [f"The classes of {where} were matched to the model's {found.how}."] if found.how else []
    if shown < count:
        notes.append(f"{where} has {shown} of the model's {count} classes; predictions are among all of them.")
    return replace(
        labels,
        values=np.array(found.places, dtype=np.int64)[labels.values],
        classes=names,
        source=f"{labels.source}, in the model's order by name",
        count=count,
        numbering="own",
        notes=(*labels.notes, *notes),
        whole_most=None,
    )


def label_text(value: int, classes: tuple[str, ...] | None) -> str:
    """A label as a person would name it."""
    named = classes is not None and value < len(classes)
    return f"{value} ({classes[value]})" if named and classes is not None else str(value)


def first_names(names: Sequence[str]) -> str:
    """The first few of these names."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
