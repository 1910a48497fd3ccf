"""What a source of images is: a kind that recognises what the user gave, and the pictures that it opens."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from PIL import Image

from vitscope.data.decode import DEFAULT, Decoding, decode
from vitscope.data.label import NO_LABELS, Labels
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable


class AbstractPictures(ABC):
    """The pictures of one opened source, by position; read from several threads at once, and picklable."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def name(self, position: int) -> str:
        """What a person would call the picture, safe to show: its file, or its file and row."""

    @abstractmethod
    def content(self, position: int) -> bytes:
        """The bytes that determine the picture, for fingerprints; `BrokenImage` where there are none."""

    @abstractmethod
    def read(self, position: int, decoding: Decoding) -> Image.Image:
        """The picture, in mode `L` or `RGB`; `BrokenImage` where it cannot be read."""


class AbstractEncodedPictures(AbstractPictures):
    """Pictures whose content is that of image files."""

    @final
    def read(self, position: int, decoding: Decoding) -> Image.Image:
        """The picture."""
        return decode(self.content(position), self.name(position), decoding)


@final
@dataclass(frozen=True)
class SourceChoice:
    """What the user chose of what a source offers."""

    split: str | None = None
    label: str | None = None
    root: Path | None = None
    """The folder that paths in a table are relative to, and may not leave; None for the table's own."""
    decoding: Decoding = DEFAULT


@final
@dataclass(frozen=True, eq=False)
class FoundSource:
    """A source that was found and looked into: nothing is decoded yet."""

    name: str
    pictures: AbstractPictures
    labels: Labels | None
    notes: tuple[str, ...] = ()
    """Sentences on what was taken for what."""


class AbstractSource(ABC):
    """A kind of source. Kinds are tried in the order of `vitscope.data.load.SOURCES`; the first that claims opens."""

    @abstractmethod
    def claims(self, source: object) -> bool:
        """Whether `source` is of this kind, decided without reading images."""

    @abstractmethod
    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """Look into `source`: the pictures of the split chosen, with the labels chosen where there are several.

        Raises `UserError`, in one sentence, for whatever the user can put right.
        """


def choose_split(where: str, splits: Sequence[str], split: str | None) -> str:
    """The split to read: the one asked for, or the only one there is."""
    listed = ", ".join(sorted(splits))
    if split is None and len(splits) > 1:
        raise UserError(f"{where} has several splits ({listed}): choose one with --split.", tuple(splits))
    if split is not None and split not in splits:
        raise UserError(f"{where} has no split {split!r}; it has: {listed}.", tuple(splits))
    return split if split is not None else splits[0]


def refuse_split(where: str, split: str | None) -> None:
    """Refuse a `split` of a source that has none."""
    if split is not None:
        raise UserError(f"{where} has no splits, so there is no split {split!r}: leave --split out.", ())


def refuse_label(where: str, label: str | None, why: str) -> None:
    """Refuse a choice of `label` where there is none to make; `why` tells where the labels come from instead."""
    if label is not None and label != NO_LABELS:
        raise UserError(f"{where} has no label column {label!r}: {why}; leave --label out.")


def refuse_root(root: Path | None) -> None:
    """Refuse a folder for paths to lead from where there is no table of paths."""
    if root is not None:
        raise UserError(f"--root {root} says where the paths of a table lead from, and these images are no table.")


@contextmanager
def parsing(where: str, kind: str) -> Generator[None]:
    """Turns whatever a parser of foreign bytes raises in the block into one sentence that names the file.

    Parsers raise what they met: `OSError`, `KeyError`, `UnicodeDecodeError`, `MemoryError`, errors of their own.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where} cannot be read as {kind}: {reason_of(error)}.") from error


def reason_of(error: Exception) -> str:
    """The first line of what an exception says, without its full stop; its type where it says nothing."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first = (said.strip().splitlines() or [""])[0].strip().rstrip(".")
    return printable(first) or type(error).__name__
