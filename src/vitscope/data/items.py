"""Data sets that give one item after another: a picture, or a picture and its class, or a mapping of both."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, final, runtime_checkable

import numpy as np
import torch
from PIL import Image

from vitscope.data.array import one_picture
from vitscope.data.decode import BrokenImage, Decoding, displayed, from_array
from vitscope.data.label import BOXES, MASKS, SEVERAL, Labels, read_labels, refuse_annotation
from vitscope.data.source import AbstractPictures, reason_of
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

PICTURE_KEYS = ("image", "img", "picture", "pixels", "pixel_values", "x")
LABEL_KEYS = ("label", "labels", "target", "targets", "class", "y")
LISTS = ("targets", "labels", "_labels")
"""Where data sets keep the labels of all items, if they do."""
BOX_KEYS = frozenset({"boxes", "bbox", "bboxes", "masks", "annotation", "annotations"})
LOOKED_AT = 8
"""Items that are looked at before the others are believed to be of their kind."""


@runtime_checkable
class Items(Protocol):
    """A map-style data set."""

    def __len__(self) -> int:
        """How many items it has."""
        ...

    def __getitem__(self, index: int, /) -> object:
        """One of them."""
        ...


@final
@dataclass(frozen=True, eq=False)
class ItemPictures(AbstractPictures):
    """The pictures of a data set, one item at a time, since it need not bear several threads."""

    items: Items
    called: str
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __reduce__(self) -> tuple[type["ItemPictures"], tuple[Items, str]]:
        return ItemPictures, (self.items, self.called)

    def __len__(self) -> int:
        return len(self.items)

    def name(self, position: int) -> str:
        """Its place in the data set."""
        return f"{self.called}[{position}]"

    def content(self, position: int) -> bytes:
        """Shape, type and samples."""
        array = np.asarray(self.value(position))
        return repr((array.shape, array.dtype.str)).encode() + array.tobytes()

    def read(self, position: int, decoding: Decoding) -> Image.Image:
        """The picture."""
        value = self.value(position)
        try:
            return displayed(value, decoding) if isinstance(value, Image.Image) else from_array(value, decoding)
        except Exception as error:
            raise BrokenImage(self.name(position), reason_of(error)) from error

    def value(self, position: int) -> Image.Image | np.ndarray:
        """The picture as the data set gives it."""
        try:
            with self.lock:
                picture, _ = parts(self.items[position])
            return picture if isinstance(picture, Image.Image) else one_picture(picture, f"the items of {self.called}")
        except UserError:
            raise
        except Exception as error:  # it runs code of its own
            raise BrokenImage(self.name(position), reason_of(error)) from error

    def checked(self, where: str) -> tuple[str, ...]:
        """Look at a few items; refuse what cannot be known to be pixels, and say what was taken for what."""
        transform = next((t for name in ("transform", "transforms") if (t := getattr(self.items, name, None))), None)
        first, _ = parts(self.items[0])
        floats = isinstance(first, np.ndarray | torch.Tensor) and "float" in str(first.dtype)
        if isinstance(first, np.ndarray | torch.Tensor) and first.ndim > 3:
            raise UserError(f"the items of {where} have {first.ndim} axes, as videos have, and pictures have 2 or 3.")
        if floats and "Normalize" in repr(transform):
            raise UserError(
                f"the transform of {where} normalises, so that its pixels are not known: leave Normalize out, since "
                "the model brings its own."
            )
        places = np.unique(np.linspace(0, len(self) - 1, LOOKED_AT).astype(np.int64)).tolist()
        for place in places:
            self.value(place)
        if self.content(0) != self.content(0):
            raise UserError(f"{where} gives another picture each time: leave out what is random in its transform.")
        notes: tuple[str, ...] = ()
        if transform is not None:
            notes += (f"The images are as the transform of {where} leaves them, before the model's own preprocessing.",)
        if floats:
            notes += (f"The items of {where} are floats between 0 and 1, taken for plain pixels.",)
        return notes


def parts(item: object) -> tuple[object, object]:
    """The picture and the label of an item; None for no label."""
    if isinstance(item, Mapping):
        fields = cast("Mapping[str, object]", item)
        picture = next((fields[key] for key in PICTURE_KEYS if key in fields), None)
        if picture is None:
            raise UserError(f"an item has the keys {', '.join(map(str, fields))}, none of which is 'image'.")
        return picture, next((fields[key] for key in LABEL_KEYS if key in fields), None)
    if isinstance(item, tuple | list) and item:
        return item[0], item[1] if len(cast("Sequence[object]", item)) > 1 else None
    return item, None


def item_labels(dataset: Items, where: str) -> Labels | None:
    """The labels of a data set: as it lists them, if that list agrees with its items; else those of all its items."""
    count = len(dataset)
    places = sorted({0, count // 3, count // 2, count - 1})
    seen = {place: _label(parts(dataset[place])[1], where) for place in places}
    if all(value is None for value in seen.values()):
        return None
    values = next((listed for name in LISTS if (listed := _listed(dataset, name, seen)) is not None), None)
    if values is None:
        values = [_label(parts(dataset[place])[1], where) for place in range(count)]
    return read_labels(_filled(values), where, "the data set's labels", _classes(dataset))


def _listed(dataset: Items, name: str, seen: Mapping[int, object]) -> list[object] | None:
    """A list of all labels that the data set keeps, if it agrees with what items were seen to have."""
    listed = getattr(dataset, name, None)
    if not isinstance(listed, Sequence | np.ndarray | torch.Tensor) or len(listed) != len(dataset):
        return None
    values = cast("list[object]", listed.tolist() if isinstance(listed, np.ndarray | torch.Tensor) else list(listed))
    return values if all(values[place] == label for place, label in seen.items()) else None


def _filled(values: Sequence[object]) -> object:
    """Values with nulls as what `read_labels` takes for no label."""
    words = any(isinstance(value, str) for value in values)
    return np.array(values, dtype=object) if words else np.array([-1 if value is None else value for value in values])


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
        return cast(Any, value).item()
    if isinstance(value, tuple | list):
        inner = cast("Sequence[object]", value)
        refuse_annotation(where, BOXES if inner and isinstance(inner[0], Mapping) else SEVERAL)
    return value


def _classes(dataset: Items) -> tuple[str, ...] | None:
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple) or not all(
        isinstance(name, str) for name in cast("Sequence[object]", names)
    ):
        return None
    return tuple(map(printable, cast("Sequence[str]", names)))
