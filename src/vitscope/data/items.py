"""Map-style data sets, whose items are a picture, a picture and its class, or a mapping of both."""

import re
import threading
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast, final, runtime_checkable

import numpy as np
import torch
from PIL import Image
from typing_extensions import override

from vitscope.data.array import notes_on, one_picture
from vitscope.data.decode import BrokenImage, Decoding, as_displayed, from_array
from vitscope.data.label import BOXES, MASKS, ORDERS, SEVERAL, Labels, is_label_name, read_labels, refuse_annotation
from vitscope.data.label_value import plain
from vitscope.data.source import AbstractPictures, reason_of
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

PICTURE_KEYS = ("image", "img", "picture", "pixels", "pixel_values", "x")
LABEL_KEYS = ("label", "labels", "target", "targets", "class", "y")
NUMBER_KEYS = frozenset({"class_id", "classid", "class_idx", "y"})
LISTS = ("targets", "labels", "_labels")
"""Attributes in which data sets may list the labels of all items."""
BOX_KEYS = frozenset({"boxes", "bbox", "bboxes", "masks", "annotation", "annotations"})
LOOKED_AT = 8
"""How many items are inspected; the others are taken to be of the same kind."""
RANDOM = re.compile("Random|Jitter|RandAug|AutoAug|TrivialAug|AugMix|MixUp|CutMix", re.IGNORECASE)
"""Names of transforms that change a picture at random, perhaps only now and then."""
PROBED = 32
"""How many items' labels are compared with a list of all labels, besides one of each class in it."""


@runtime_checkable
class Items(Protocol):
    """A map-style data set."""

    def __len__(self) -> int:
        """The number of items."""
        ...

    def __getitem__(self, index: int, /) -> object:
        """The item at a position."""
        ...


@final
@dataclass(frozen=True, eq=False)
class ItemPictures(AbstractPictures):
    """The pictures of a data set, read one at a time, since it may not be safe for several threads."""

    items: Items
    called: str
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __reduce__(self) -> tuple[type["ItemPictures"], tuple[Items, str]]:
        return ItemPictures, (self.items, self.called)

    def __len__(self) -> int:
        return len(self.items)

    def name(self, position: int) -> str:
        """The name of the data set, with the place in it."""
        return f"{self.called}[{position}]"

    def content(self, position: int) -> bytes:
        """Shape, type and samples."""
        array = np.asarray(self.value(position))
        return repr((array.shape, array.dtype.str)).encode() + array.tobytes()

    @override
    def read(self, position: int, decoding: Decoding) -> Image.Image:
        value = self.value(position)
        try:
            return as_displayed(value, decoding) if isinstance(value, Image.Image) else from_array(value, decoding)
        except Exception as error:
            raise BrokenImage(self.name(position), reason_of(error)) from error

    def value(self, position: int) -> Image.Image | np.ndarray:
        """The picture as the data set returns it."""
        try:
            with self.lock:
                picture, _ = parts(self.items[position])
            return picture if isinstance(picture, Image.Image) else one_picture(picture, f"the items of {self.called}")
        except UserError:
            raise
        except Exception as error:  # the data set runs code of its own
            raise BrokenImage(self.name(position), reason_of(error)) from error

    def check_items(self, where: str) -> tuple[str, ...]:
        """Inspect a few items; refuse those that may not be fixed, plain pixels, and return notes on assumptions."""
        transform = _picture_transform(self.items)
        first, _ = parts(self.items[0])
        floats = isinstance(first, np.ndarray | torch.Tensor) and "float" in str(first.dtype)
        if isinstance(first, np.ndarray | torch.Tensor) and first.ndim > 3:
            raise UserError(f"the items of {where} have {first.ndim} axes, like videos; pictures have 2 or 3.")
        if floats and "Normalize" in repr(transform):
            raise UserError(
                f"the transform of {where} normalises, so its original pixels are unknown: leave Normalize out, since "
                "the model brings its own."
            )
        places = np.unique(np.linspace(0, len(self) - 1, LOOKED_AT).astype(np.int64)).tolist()
        if RANDOM.search(repr(transform)) or any(self.content(place) != self.content(place) for place in places):
            raise UserError(f"{where} gives another picture each time: remove the random parts of its transform.")
        notes: tuple[str, ...] = ()
        if transform is not None:
            notes += (f"The images are as the transform of {where} leaves them, before the model's own preprocessing.",)
        if floats:
            notes += (f"The items of {where} are floats between 0 and 1, taken as plain pixels.",)
        value = self.value(0)
        notes += () if isinstance(value, Image.Image) else notes_on([value], f"the items of {where}")
        return notes


def _picture_transform(items: Items) -> object:
    """The transform that a data set applies to its pictures, if it has one."""
    both = getattr(items, "transforms", None)
    return getattr(items, "transform", None) or (getattr(both, "transform", None) if _is_standard(both) else both)


def _is_standard(transforms: object) -> bool:
    """Whether this is torchvision's pair of a transform for pictures and one for labels."""
    return hasattr(transforms, "transform") and hasattr(transforms, "target_transform")


def parts(item: object) -> tuple[object, object]:
    """The picture and the label of an item, None if it has no label."""
    if isinstance(item, Mapping):
        fields = cast("Mapping[str, object]", item)
        picture = next((fields[key] for key in PICTURE_KEYS if key in fields), None)
        if picture is None:
            raise UserError(f"an item has the keys {', '.join(map(str, fields))}, none of which is 'image'.")
        return picture, next((fields[key] for key in _label_keys(fields)), None)
    if isinstance(item, tuple | list) and item:
        return item[0], item[1] if len(cast("Sequence[object]", item)) > 1 else None
    return item, None


def _label_keys(fields: Mapping[str, object]) -> list[str]:
    """The key of an item's label; several if it is uncertain which."""
    usual = [key for key in LABEL_KEYS if key in fields]
    return usual[:1] or [key for key in map(str, fields) if is_label_name(key) or key.lower() in NUMBER_KEYS]


def _one_label(item: object, where: str) -> object:
    """The label of an item; several are refused."""
    keys = _label_keys(cast("Mapping[str, object]", item)) if isinstance(item, Mapping) else []
    if len(keys) > 1:
        refuse_annotation(where, f"several labels in each item ({', '.join(keys)})")
    return _label(parts(item)[1], where)


def item_labels(dataset: Items, where: str) -> Labels | None:
    """The labels of a data set: as it lists them, if that list agrees with its items; else those of all its items.

    Class names are those of the list, so labels that differ from it, or pass through a transform, have none.
    """
    count = len(dataset)
    changed = target_transform(dataset) is not None
    lists = [] if changed else [values for name in LISTS if (values := _list_labels(dataset, name)) is not None]
    seen = {place: _one_label(dataset[place], where) for place in _probes(count, lists)}
    if all(value is None for value in seen.values()):
        return None
    agreeing = [values for values in lists if all(values[place] == label for place, label in seen.items())]
    values = agreeing[0] if agreeing else [_one_label(dataset[place], where) for place in range(count)]
    classes = None if changed or (lists and not agreeing) else class_names(dataset)
    labels = read_labels(values, where, "the data set's labels", classes)
    if labels is None or classes is not None:
        return labels and mark_numbering(labels, dataset)
    return labels if class_names(dataset) is None else without_names(labels, where)


def without_names(labels: Labels, where: str) -> Labels:
    """The labels, with a note that the class names were left out, since the items change the labels."""
    note = f"The class names of {where} were left out: they belong to the labels before its items change them."
    return replace(labels, notes=(*labels.notes, note))


def target_transform(dataset: object) -> object:
    """The transform that a data set applies to its labels, if it has one."""
    held = (dataset, getattr(dataset, "transforms", None))
    return next((found for each in held if (found := getattr(each, "target_transform", None)) is not None), None)


def _probes(count: int, lists: Sequence[Sequence[object]]) -> list[int]:
    """Places of items to compare: some evenly spread, and one of each value of the lists."""
    spread = np.linspace(0, count - 1, min(PROBED, count)).astype(np.int64).tolist()
    firsts = [place for values in lists for place in {value: place for place, value in enumerate(values)}.values()]
    return sorted({*spread, *firsts})


def _list_labels(dataset: Items, name: str) -> list[object] | None:
    """The attribute ``name`` if it lists a label for each item, else None."""
    held = getattr(dataset, name, None)
    if isinstance(held, np.ndarray | torch.Tensor):
        held = held.tolist()
    if not isinstance(held, Sequence) or len(cast("Sequence[object]", held)) != len(dataset):
        return None
    values = list(map(plain, cast("Sequence[object]", held)))
    return values if all(isinstance(value, Hashable) for value in values) else None


def _label(value: object, where: str) -> object:
    """One class; annotations of another kind are refused."""
    if isinstance(value, Image.Image):
        refuse_annotation(where, MASKS)
    if isinstance(value, Mapping):
        refuse_annotation(where, BOXES if BOX_KEYS & {str(key) for key in value} else "annotations that are no class")
    if isinstance(value, np.ndarray | torch.Tensor | np.generic):
        if value.ndim > 1:
            refuse_annotation(where, MASKS)
        if value.ndim == 1 and len(cast(Any, value)) > 1:
            refuse_annotation(where, SEVERAL)
        value = cast(Any, value).item()
    if isinstance(value, tuple | list | set | frozenset):
        inner = list(cast("Sequence[object]", value))
        refuse_annotation(where, BOXES if inner and isinstance(inner[0], Mapping) else SEVERAL)
    return plain(value)


def class_names(dataset: object) -> tuple[str, ...] | None:
    """The names of a data set's classes, by number: from its list of classes, or else from its index of names."""
    held = getattr(dataset, "classes", None)
    if isinstance(held, list | tuple) and held:
        names = [_synonyms(name) for name in cast("Sequence[object]", held)]
        known = tuple(printable(name) for name in names if name is not None)
        if len(known) == len(names):
            return known
    return _index_names(dataset)


def _synonyms(name: object) -> str | None:
    """A class's name, or its several names joined, as torchvision has them for ImageNet."""
    words = cast("Sequence[object]", name) if isinstance(name, list | tuple) else (name,)
    known = [word for word in words if isinstance(word, str)]
    return ", ".join(known) if known and len(known) == len(words) else None


def _index_names(dataset: object) -> tuple[str, ...] | None:
    """The names in `class_to_idx`, which timm keeps in a reader of the data set."""
    held = (dataset, getattr(dataset, "reader", None))
    index = next((found for each in held if isinstance(found := getattr(each, "class_to_idx", None), Mapping)), {})
    places = {number: str(name) for name, number in cast("Mapping[object, object]", index).items()}
    if not places or len(places) < len(index) or set(places) != set(range(len(places))):
        return None
    return tuple(printable(places[number]) for number in range(len(places)))


def mark_numbering(labels: Labels, dataset: object) -> Labels:
    """The labels, marked as numbered by sorting if their names are those of sorted folders."""
    names = labels.classes
    sorts = [tuple(sorted(names, key=key)) for key in ORDERS.values()] if names is not None else []
    folders = hasattr(dataset, "samples") or not hasattr(dataset, "classes")
    return replace(labels, numbering="sorted") if folders and names in sorts else labels
