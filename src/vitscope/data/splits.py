"""Distinguishes folders that are splits from those that are classes."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

SPLITS = frozenset(
    {"train", "training", "val", "valid", "validation", "dev", "eval", "evaluation", "test", "testing", "trainval"}
    | {"holdout", "heldout"}
)
"""Folders of these names are splits, not classes."""
PARTS = re.compile(
    r"^(query|gallery|probe|support|fold|labell?ed|unlabell?ed|public|private|distractors?)([\W_]*(set|test))?"
    r"[\W_]*(\d+|[a-z])?$"
)
"""Folders of these names are splits if there are several of them: a single `gallery` may be a class."""
PICTURE_FOLDERS = frozenset({"images", "image", "imgs", "img", "jpegimages", "img_dir", "photos", "pictures", "jpg"})
"""Folders of these names hold the pictures of the folder they are in."""
ANNOTATION_FOLDERS = frozenset(
    {"annotations", "annotation", "labels", "masks", "mask", "segmentationclass", "segmentationobject", "ann_dir"}
    | {"groundtruth", "ground_truth", "gt", "gtfine", "gtcoarse"}
)


def names_split(name: str) -> bool:
    """Whether a name is that of a split, perhaps with a number: `test`, `val2017`, `hold-out`."""
    return re.sub(r"[\W_]|\d+", "", name.lower()) in SPLITS


def _words_of_split(name: str) -> set[str]:
    """The splits among the words of a name: `seg_train` mentions train."""
    return {word for word in re.split(r"[\W_\d]+", name.lower()) if word in SPLITS}


def speak_of_splits(names: Sequence[str]) -> bool:
    """Whether folders are named like splits: any by its whole name, two by one of their words, or several as parts."""
    parts = [name for name in names if PARTS.match(name.lower())]
    return any(map(names_split, names)) or len(set[str]().union(*map(_words_of_split, names))) > 1 or len(parts) > 1


@final
@dataclass(frozen=True)
class Below:
    """A folder's content: image files at any depth, whether some lie directly in it, and its folders that have any."""

    files: tuple[str, ...]
    direct: bool
    folders: frozenset[str]
    others: tuple[str, ...]
    """Files that are not images."""


def hold_the_same(folders: Mapping[str, Below]) -> tuple[str, ...]:
    """The names of folders that several of these hold: probably class folders, so that these are splits.

    One is enough if no image lies beside it, two are needed otherwise. Names that only say that they hold pictures do
    not count.
    """
    full = [below for below in folders.values() if below.files]
    names = Counter(name for below in full for name in below.folders if name.lower() not in PICTURE_FOLDERS)
    shared = sorted(name for name, count in names.items() if count > 1)
    return () if len(shared) < 2 and any(below.direct for below in full) else tuple(shared)
