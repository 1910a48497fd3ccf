"""A list of paths of image files, with or without labels."""

import os
from collections.abc import Sequence
from typing import cast, final

from vitscope.data.array import labels_given, split_pair
from vitscope.data.folder import FilePictures
from vitscope.data.source import AbstractSource, Choice, Opened, refuse_label, refuse_split


@final
class PathsSource(AbstractSource):
    """A list of paths, or a pair of such a list and labels; relative ones lead from `root`, or from where one is."""

    def claims(self, source: object) -> bool:
        """A list or tuple that holds paths alone, by itself or in a pair."""
        paths, _ = split_pair(source)
        if not isinstance(paths, list | tuple) or not paths:
            return False
        return all(isinstance(path, str | os.PathLike) for path in cast("Sequence[object]", paths))

    def open(self, source: object, choice: Choice) -> Opened:
        """Take note of the paths; none is opened."""
        where = "the given paths"
        refuse_split(where, choice.split)
        refuse_label(where, choice.label, "labels are given as the second of a pair (paths, labels)")
        paths, given = split_pair(source)
        root = os.path.abspath(choice.root or "")
        files = tuple(os.fsdecode(path) for path in cast("Sequence[str | os.PathLike[str]]", paths))
        return Opened("paths", FilePictures(root, files), labels_given(given, len(files), where, choice))
