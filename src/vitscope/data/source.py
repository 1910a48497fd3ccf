"""Sources of images: kinds that recognise what the user gave, and the pictures that they open."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from PIL import Image
from typing_extensions import override

from vitscope.data.decode import DEFAULT, Decoding, decode
from vitscope.data.label import NO_LABELS, Labels
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable


class AbstractPictures(ABC):
    """The pictures of one opened source, by position; read from several threads at once, and picklable."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of pictures."""

    @abstractmethod
    def name(self, position: int) -> str:
        """The picture's name for people, safe to show: its file, or its file and row."""

    @abstractmethod
    def content(self, position: int) -> bytes:
        """The bytes that determine the picture, for fingerprints; `BrokenImage` if there are none."""

    @abstractmethod
    def read(self, position: int, decoding: Decoding) -> Image.Image:
        """The picture, in mode `L` or `RGB`; `BrokenImage` if it cannot be read."""


class AbstractEncodedPictures(AbstractPictures):
    """Pictures whose content is an encoded image file."""

    @final
    @override
    def read(self, position: int, decoding: Decoding) -> Image.Image:
        return decode(self.content(position), self.name(position), decoding)


@final
@dataclass(frozen=True)
class SourceChoice:
    """The user's choices among what a source offers."""

    split: str | None = None
    label: str | None = None
    root: Path | None = None
    """The folder that paths in a table are relative to and must not leave; None for the table's own."""
    decoding: Decoding = DEFAULT


@final
@dataclass(frozen=True, eq=False)
class FoundSource:
    """A source that was found and inspected; nothing is decoded yet."""

    name: str
    pictures: AbstractPictures
    labels: Labels | None
    notes: tuple[str, ...] = ()
    """Sentences on what was assumed."""


class AbstractSource(ABC):
    """A kind of source; the first of `vitscope.data.load.SOURCES` that claims a source opens it."""

    @abstractmethod
    def claims(self, source: object) -> bool:
        """Whether `source` is of this kind, decided without reading images."""

    @abstractmethod
    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """Open `source`: the pictures of the chosen split, with the chosen labels if there are several.

        Raises `UserError`, in one sentence, for whatever the user can correct.
        """


def choose_split(where: str, splits: Sequence[str], split: str | None) -> str:
    """The split to read: the one requested, or the only one."""
    listed = ", ".join(sorted(splits))
    if split is None and len(splits) > 1:
        raise UserError(f"{where} has several splits ({listed}): choose one with --split.", tuple(splits))
    if split is not None and split not in splits:
        raise UserError(f"{where} has no split {split!r}; it has: {listed}.", tuple(splits))
    return split if split is not None else splits[0]


def refuse_split(where: str, split: str | None) -> None:
    """Refuse a `split` for a source without splits."""
    if split is not None:
        raise UserError(f"{where} has no splits, so there is no split {split!r}: leave --split out.", ())


def refuse_label(where: str, label: str | None, why: str) -> None:
    """Refuse a choice of `label` if there is none; `why` says where the labels come from instead."""
    if label is not None and label != NO_LABELS:
        raise UserError(f"{where} has no label column {label!r}: {why}; leave --label out.")


def refuse_root(root: Path | None) -> None:
    """Refuse a folder for relative paths if there is no table of paths."""
    if root is not None:
        raise UserError(
            f"--root {root} is the folder of a table's paths, but these images are not a table: leave --root out."
        )


@contextmanager
def parsing(where: str, kind: str) -> Generator[None]:
    """Turn whatever a parser of untrusted bytes raises in the block into one sentence that names the file.

    Parsers raise anything: `OSError`, `KeyError`, `UnicodeDecodeError`, `MemoryError`, errors of their own.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where} cannot be read as {kind}: {reason_of(error)}.") from error


def reason_of(error: Exception) -> str:
    """The first line of an exception's message, without its full stop; its type if it has no message."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first = (said.strip().splitlines() or [""])[0].strip().rstrip(".")
    return printable(first) or type(error).__name__
