"""Finds the columns of a table that hold pictures, and those that may hold labels."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

import pyarrow as pa

from vitscope.data.decode import BrokenImage
from vitscope.data.files import inside, read_file
from vitscope.data.label import BOXES, FRACTIONS, MASKS, SEVERAL, LabelColumn, is_label_name
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

OBJECTS = frozenset({"objects", "bbox", "bboxes", "box", "boxes", "annotations"})
OTHER_MEDIA = {"Video": "videos", "Audio": "sounds"}


@final
@dataclass(frozen=True)
class TableLayout:
    """The columns of a table: those that may hold images, those that may hold labels, and all names."""

    images: tuple[str, ...]
    labels: tuple[LabelColumn, ...]
    names: tuple[str, ...]
    media: tuple[str, ...] = ()
    """Other media that the schema declares: videos, sounds."""


def read_layout(schema: Any) -> TableLayout:  # noqa: ANN401 - pyarrow has no types
    """The layout of a table: as the Hugging Face schema in its metadata declares it, else by the columns' types."""
    features = _features(schema)
    kinds = {name: str(_mapping(feature).get("_type")) for name, feature in features.items()}
    shaped = [each.name for each in schema if _may_hold_images(each.type) and kinds.get(each.name) not in OTHER_MEDIA]
    declared = [name for name in schema.names if kinds.get(name) == "Image"]
    images = tuple(declared or shaped)
    labels = [_column(each, features.get(each.name), images) for each in schema]
    media = dict.fromkeys(OTHER_MEDIA[kind] for kind in kinds.values() if kind in OTHER_MEDIA)
    return TableLayout(images, tuple(each for each in labels if each is not None), tuple(schema.names), tuple(media))


def one_image_column(layout: TableLayout, where: str) -> str:
    """The only image column found, or the one of them called image or img."""
    usual = [name for name in ("image", "img") if name in layout.images]
    if not usual and len(layout.images) != 1:
        if not layout.images and layout.media:
            raise UserError(f"{where} holds {' and '.join(layout.media)}, no images.")
        listed = ", ".join(layout.names)
        raise UserError(f"{where} has {len(layout.images) or 'no'} image columns; its columns are {listed}.")
    return usual[0] if usual else layout.images[0]


def cell_bytes(cell: object, find: Callable[[str], str | None], name: str) -> bytes:
    """The encoded image of one cell: plain bytes, or `{"bytes", "path"}`, of which one is enough.

    `find` returns the file that a path means, or None if it must not be followed.
    """
    fields = cast("Mapping[str, object]", cell) if isinstance(cell, Mapping) else {"bytes": cell}
    content, path = fields.get("bytes"), fields.get("path")
    if isinstance(content, bytes):
        return content
    if not isinstance(path, str) or not path:
        raise BrokenImage(name, "the cell is empty")
    found = find(path)
    if found is None:
        raise BrokenImage(name, f"its path {printable(path)!r} is absolute or leads out of the folder")
    try:
        return read_file(found, name)
    except BrokenImage as error:
        raise BrokenImage(name, f"{printable(path)}: {error.reason}") from error


def beside(file: str) -> Callable[[str], str | None]:
    """A function that resolves paths in ``file``, relative to its folder; None for those that lead out of it."""
    return lambda path: None if Path(path).is_absolute() else inside(Path(file).parent, path)


def _features(schema: Any) -> Mapping[str, object]:  # noqa: ANN401
    try:
        return _mapping(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _may_hold_images(kind: Any) -> bool:  # noqa: ANN401
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _may_hold_classes(kind: Any) -> bool:  # noqa: ANN401
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    names = ("is_integer", "is_boolean", "is_string", "is_large_string", "is_string_view")  # not all in old versions
    return any(getattr(pa.types, name)(kind) for name in names if hasattr(pa.types, name))


def _column(field: Any, feature: object, images: Sequence[str]) -> LabelColumn | None:  # noqa: ANN401
    """A column as a candidate for labels: classes, an annotation of another kind, or None."""
    kinds, kind, name = pa.types, field.type, str(field.name)
    if _may_hold_classes(kind):
        names = _mapping(feature).get("names")
        named = isinstance(names, Sequence) and not isinstance(names, str) and len(names) > 0
        return LabelColumn(name, tuple(map(str, cast("Sequence[object]", names))) if named else None)
    if name.lower() in OBJECTS:
        return LabelColumn(name, holds=BOXES)
    if name in images or _may_hold_images(kind):
        others = len(images) > 1 and (is_label_name(name) or any(word in name.lower() for word in ("mask", "segment")))
        return LabelColumn(name, holds=MASKS) if others or name.lower() == "annotation" else None
    if kinds.is_floating(kind) and is_label_name(name):
        return LabelColumn(name, holds=FRACTIONS)
    several = kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)
    return LabelColumn(name, holds=SEVERAL) if several and is_label_name(name) else None
