"""A list of paths of image files, with or without labels."""

import os
from collections.abc import Sequence
from typing import cast, final

import numpy as np

from vitscope.data.array import is_series, labels_given, split_pair
from vitscope.data.folder import FilePictures
from vitscope.data.source import AbstractSource, FoundSource, SourceChoice, refuse_label, refuse_split


@final
class PathsSource(AbstractSource):
    """A list of paths, or a pair of such a list and labels; relative ones start at `root`, or at the current folder."""

    def claims(self, source: object) -> bool:
        """A list, an array or a column of pandas that holds only paths, alone or in a pair."""
        paths = _list_paths(split_pair(source)[0])
        return bool(paths) and all(isinstance(path, str | os.PathLike) for path in paths)

    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """Collect the paths without opening any."""
        where = "the given paths"
        refuse_split(where, choice.split)
        refuse_label(where, choice.label, "labels are given as the second of a pair (paths, labels)")
        paths, given = split_pair(source)
        root = os.path.abspath(choice.root or "")
        files = tuple(os.fsdecode(cast("str | os.PathLike[str]", path)) for path in _list_paths(paths))
        return FoundSource("paths", FilePictures(root, files), labels_given(given, len(files), where, choice))


def _list_paths(paths: object) -> list[object]:
    """The entries that may be paths; none for other types."""
    if isinstance(paths, np.ndarray):
        return cast("list[object]", paths.tolist() if paths.ndim == 1 and paths.dtype.kind in "UO" else [])
    return list(cast("Sequence[object]", paths)) if isinstance(paths, list | tuple) or is_series(paths) else []
