"""The pictures of several sources, one source after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import final

import numpy as np
from PIL import Image
from typing_extensions import override

from vitscope.data.decode import Decoding
from vitscope.data.label import Labels, first_names
from vitscope.data.source import AbstractPictures, FoundSource
from vitscope.measurement.errors import UserError


@final
@dataclass(frozen=True, eq=False)
class JoinedPictures(AbstractPictures):
    """The pictures of `parts`, in their order."""

    parts: tuple[AbstractPictures, ...]
    ends: tuple[int, ...]
    """The number of pictures up to the end of each part."""

    def __len__(self) -> int:
        return self.ends[-1]

    def _place(self, position: int) -> tuple[AbstractPictures, int]:
        number = int(np.searchsorted(self.ends, position, side="right"))
        return self.parts[number], position - (self.ends[number - 1] if number else 0)

    @override
    def name(self, position: int) -> str:
        part, place = self._place(position)
        return part.name(place)

    @override
    def content(self, position: int) -> bytes:
        part, place = self._place(position)
        return part.content(place)

    @override
    def read(self, position: int, decoding: Decoding) -> Image.Image:
        part, place = self._place(position)
        return part.read(place, decoding)


def join_sources(name: str, where: str, parts: Sequence[FoundSource]) -> FoundSource:
    """Join several opened sources into one; refused if their labels do not share one list of classes."""
    pictures = tuple(part.pictures for part in parts)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    ends = tuple(accumulate(map(len, pictures)))
    return FoundSource(
        name, JoinedPictures(pictures, ends), _join_labels([part.labels for part in parts], where), notes
    )


def _join_labels(parts: Sequence[Labels | None], where: str) -> Labels | None:
    labelled = [labels for labels in parts if labels is not None]
    if not labelled:
        return None
    if len(labelled) < len(parts):
        raise UserError(f"only {len(labelled)} of the {len(parts)} parts of {where} have labels: give those alone.")
    first = labelled[0]
    other = next((labels for labels in labelled if labels.classes != first.classes), None)
    if other is not None:
        ours, theirs = ("none" if each.classes is None else first_names(each.classes) for each in (first, other))
        raise UserError(
            f"the parts of {where} name their classes differently ({ours} and {theirs}), so a number means "
            "another class in each: give the parts one by one, or relabel them alike."
        )
    values = np.concatenate([labels.values for labels in labelled])
    most = max(labels.most for labels in labelled)
    return replace(first, values=values, count=max(labels.count for labels in labelled), whole_most=most)
