"""What a source of images is: a kind that recognises what the user gave, and the pictures that it opens."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from PIL import Image

from vitscope.data.label import Labels
from vitscope.measurement.errors import UserError

# Folders of these names are splits, not classes.
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"})


class AbstractPictures(ABC):
    """The pictures of one opened source, by position; read from several threads at once, and picklable."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def name(self, position: int) -> str:
        """What a person would call the picture: its file, or its file and row."""

    @abstractmethod
    def content(self, position: int) -> bytes:
        """The bytes that determine the picture, for fingerprints; `BrokenImage` where there are none."""

    @abstractmethod
    def read(self, position: int) -> Image.Image:
        """The picture, in mode `L` or `RGB`; `BrokenImage` where it cannot be read."""


@final
@dataclass(frozen=True, eq=False)
class Opened:
    """A source that was found and looked into: nothing is decoded yet."""

    name: str
    pictures: AbstractPictures
    labels: Labels | None


class AbstractSource(ABC):
    """A kind of source. Kinds are asked in the order of `vitscope.data.load.SOURCES`; the first that claims opens."""

    @abstractmethod
    def claims(self, source: object) -> bool:
        """Whether `source` is of this kind, decided without reading images."""

    @abstractmethod
    def open(self, source: object, split: str | None, label: str | None) -> Opened:
        """Look into `source`: the pictures of `split`, labelled by `label` where the kind has a choice of labels.

        Raises `UserError`, in one sentence, for whatever the user can put right.
        """


def choose_split(where: str, splits: Sequence[str], split: str | None) -> str:
    """The split to read: the one asked for, or the only one there is."""
    listed = ", ".join(sorted(splits))
    if split is None and len(splits) > 1:
        raise UserError(f"{where} has several splits ({listed}): choose one with --split.")
    if split is not None and split not in splits:
        raise UserError(f"{where} has no split {split!r}; it has: {listed}.")
    return split if split is not None else splits[0]


def refuse_split(where: str, split: str | None) -> None:
    """Refuse a `split` of a source that has none."""
    if split is not None:
        raise UserError(f"{where} has no splits, so there is no split {split!r}: leave --split out.")


def refuse_label(where: str, label: str | None, why: str) -> None:
    """Refuse a choice of `label` where there is none to make; `why` tells where the labels come from instead."""
    if label is not None:
        raise UserError(f"{where} has no label column {label!r}: {why}; leave --label out.")
