"""Tar files in the layout of WebDataset: the members of a sample share a name and differ in their extensions."""

import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast, final

import numpy as np
from jaxtyping import Int

from vitscope.data.decode import BrokenImage
from vitscope.data.files import IMAGES, SOUNDS, VIDEOS, has_suffix, is_clutter
from vitscope.data.label import (
    BOXES,
    FRACTIONS,
    MASKS,
    NO_LABELS,
    SEVERAL,
    LabelColumn,
    Labels,
    choose_column,
    column_labels,
    is_label_name,
)
from vitscope.data.label_value import plain, read_cell
from vitscope.data.layout import OBJECTS
from vitscope.data.shards import by_split, shards
from vitscope.data.source import (
    AbstractEncodedPictures,
    AbstractSource,
    FoundSource,
    SourceChoice,
    choose_split,
    parsing,
)
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

MOST_LABEL_BYTES = 2**20
"""Size in bytes of the largest member that is read as text."""


@final
@dataclass(frozen=True)
class TarMember:
    """A file in a tar: the number of the tar, the place of its bytes, and its name."""

    shard: int
    start: int
    size: int
    name: str


@final
@dataclass(frozen=True, eq=False)
class TarPictures(AbstractEncodedPictures):
    """Members of tar files, each read from its place when needed; `places` are tar, start and size."""

    files: tuple[str, ...]
    places: Int[np.ndarray, "pictures 3"]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, position: int) -> str:
        """Tar and member."""
        return printable(f"{Path(self.files[self.places[position, 0]]).name}:{self.names[position]}")

    def content(self, position: int) -> bytes:
        """The bytes of the member, an encoded image."""
        shard, start, size = self.places[position].tolist()
        try:
            return read_part(self.files[shard], start, size)
        except OSError as error:
            raise BrokenImage(self.name(position), error.strerror or str(error)) from error


@final
class WebDatasetSource(AbstractSource):
    """Tar files (one, a glob, `{00..09}`, or a folder of them), not compressed, in the layout of WebDataset.

    `a/0001.jpg` and `a/0001.cls` are one sample. Labels are in `.cls` (a number or a name), or a field of `.json`,
    which `label` can choose by name. Files belong to the split in their name (`train-0001.tar`) or to that of their
    folder.
    """

    def claims(self, source: object) -> bool:
        """Paths, globs and patterns of `.tar` files, but no folder with image files or with folders without tars."""
        if not isinstance(source, str | os.PathLike) or not shards(str(source), ".tar"):
            return False
        path = Path(source)
        held = [each for each in path.iterdir() if not is_clutter(each.name)] if path.is_dir() else []
        return all(any(each.glob("*.tar")) if each.is_dir() else not has_suffix(each.name, IMAGES) for each in held)

    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """Read the headers of all members and the labels, but no image."""
        where = printable(str(source))
        files = by_split(shards(str(source), ".tar"), numbered=True)
        chosen = choose_split(where, list(files), choice.split)
        paths = tuple(str(path.resolve()) for path in files[chosen])
        samples = [sample for number, path in enumerate(paths) for sample in _samples(number, path)]
        pictures = [(sample, found) for sample in samples if (found := _picture(sample, where)) is not None]
        if not pictures:
            _refuse_without_images(samples, where)
        labels, notes = _labels([sample for sample, _ in pictures], paths, choice.label, where)
        if len(pictures) < len(samples):
            notes += (f"{len(samples) - len(pictures)} samples of {where} have no image and were left out.",)
        members = [member for _, member in pictures]
        places = np.array([(each.shard, each.start, each.size) for each in members], dtype=np.int64).reshape(-1, 3)
        names = tuple(member.name for member in members)
        name = printable(f"{Path(paths[0]).parent.name}/{chosen}")
        return FoundSource(name, TarPictures(paths, places, names), labels, notes)


Sample = Mapping[str, TarMember]
"""The members of a sample, by extension in lower case, without the first dot."""


def read_part(path: str, start: int, size: int) -> bytes:
    """``size`` bytes of a file from ``start`` on."""
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(size)


def _samples(number: int, path: str) -> list[Sample]:
    """The samples of one tar, in order; links and devices are skipped."""
    length = os.path.getsize(path)
    samples: dict[str, dict[str, TarMember]] = {}
    with parsing(printable(path), "an uncompressed tar"), tarfile.open(path, "r:") as archive:
        for info in archive:
            parts = PurePosixPath(info.name)
            if not info.isreg() or info.issparse() or any(map(is_clutter, parts.parts)):
                continue
            if info.offset_data + info.size > length:
                raise UserError(f"{path} is cut short: {info.name} goes on past its end.")
            key, _, extension = parts.name.partition(".")
            sample = samples.setdefault(str(parts.parent / key), {})
            if extension.lower() in sample:
                raise UserError(f"{path} holds {info.name} twice.")
            sample[extension.lower()] = TarMember(number, info.offset_data, info.size, info.name)
            cast(Any, archive).members.clear()  # otherwise the archive would keep all that it has read
        _check_end(path, archive.offset, length)
    return list(samples.values())


def _check_end(path: str, end: int, length: int) -> None:
    """Refuse a tar whose members do not end in a block of zeros: `tarfile` mistakes a damaged header for the end."""
    block = read_part(path, end, tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        cut = end + tarfile.BLOCKSIZE > length
        raise UserError(f"{path} {'has no end, as if it were cut short' if cut else f'is damaged at byte {end:,}'}.")


def _picture(sample: Sample, where: str) -> TarMember | None:
    """The image of a sample, or None; several are refused, such as an image with masks."""
    found = [extension for extension in sample if has_suffix(f".{extension}", IMAGES)]
    plain = [extension for extension in found if "." not in extension or extension.split(".")[0] in ("image", "img")]
    if len(found) > 1:
        what = MASKS if len(plain) == 1 else "several images a sample"
        raise UserError(
            f"{where} holds {what} ({', '.join(sorted(found))}), but a sample must have one picture of one class."
        )
    return sample[found[0]] if found else None


def _refuse_without_images(samples: Sequence[Sample], where: str) -> None:
    extensions = list(dict.fromkeys(extension for sample in samples for extension in sample))
    for kind, suffixes in {"videos": VIDEOS, "sounds": SOUNDS}.items():
        if any(has_suffix(f".{extension}", suffixes) for extension in extensions):
            raise UserError(f"{where} holds {kind}, no images.")
    listed = ", ".join(extensions[:5]) or "none"
    raise UserError(f"{where} holds no images: the extensions of its members are {listed}.")


def _labels(
    samples: Sequence[Sample], files: Sequence[str], label: str | None, where: str
) -> tuple[Labels | None, tuple[str, ...]]:
    """The chosen or evident labels, and a note if there are none but some could be chosen."""
    extensions = dict.fromkeys(extension for sample in samples for extension in sample)
    texts = [extension for extension in extensions if not has_suffix(f".{extension}", IMAGES)]
    fields = {} if label == NO_LABELS else _known_fields(samples, files, where)
    columns = [LabelColumn(extension) for extension in texts if extension != "json"]
    columns += [column for name, value in fields.items() if (column := _column(name, value)) is not None]
    chosen = choose_column(columns, label, where)
    if chosen is None:
        return None, () if label == NO_LABELS else _notes(samples, columns, where)
    own = chosen.name in texts
    values = [
        _text(sample.get(chosen.name), files) if own else _fields(sample, files, where).get(chosen.name)
        for sample in samples
    ]
    return column_labels(values, chosen, where, chosen=label is not None), ()


def _notes(samples: Sequence[Sample], columns: Sequence[LabelColumn], where: str) -> tuple[str, ...]:
    """A note on what could have been labels."""
    listed = ", ".join(column.name for column in columns if column.holds is None)
    if listed:
        return (f"Nothing in {where} was taken as labels, so there is no accuracy; --label chooses one of: {listed}.",)
    several = len({PurePosixPath(member.name).parent for sample in samples for member in sample.values()}) > 1
    return (f"The folders in {where} were not taken as classes; unpack it to have them read.",) if several else ()


def _column(name: str, value: object) -> LabelColumn | None:
    value = plain(value)
    if isinstance(value, int | str):
        return LabelColumn(name)
    if name.lower() in OBJECTS:
        return LabelColumn(name, holds=BOXES)
    holds = SEVERAL if isinstance(value, list) else FRACTIONS if isinstance(value, float) else None
    return LabelColumn(name, holds=holds) if holds and is_label_name(name) else None


def _text(member: TarMember | None, files: Sequence[str]) -> int | str | None:
    """A member's text, as a number if it is one."""
    if member is None or member.size > MOST_LABEL_BYTES:
        return None
    cell = read_cell(read_part(files[member.shard], member.start, member.size).decode("utf-8", "backslashreplace"))
    return printable(cell) if isinstance(cell, str) else cell


def _fields(sample: Sample, files: Sequence[str], where: str) -> dict[str, Any]:
    """The fields of a sample's `.json`."""
    member = sample.get("json")
    if member is None or member.size > MOST_LABEL_BYTES:
        return {}
    with parsing(f"{printable(member.name)} in {where}", "JSON"):
        parsed = json.loads(read_part(files[member.shard], member.start, member.size))
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}


def _known_fields(samples: Sequence[Sample], files: Sequence[str], where: str) -> dict[str, Any]:
    """The first value that is not null of each field that a sample's `.json` has."""
    known: dict[str, Any] = {}
    for sample in samples:
        fields = _fields(sample, files, where)
        known = {name: value for name, value in fields.items() if plain(value) is not None} | known
    return known
