"""Data sets in several files: which files a path, a folder or a pattern leads to, and the split of each."""

import re
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path

from vitscope.data.files import is_clutter
from vitscope.data.splits import SPLITS
from vitscope.measurement.errors import UserError

COUNTED = re.compile(r"^(?P<split>.+?)-(?P<number>\d+)-of-(?P<count>\d+)(-[0-9a-f]+)?$")
NUMBERED = re.compile(r"^(?P<split>.*?[^\d_.-])[_.-]*(?P<number>\d+)$")
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"^(\d+)\.\.(\d+)$")
MOST = 100_000
"""The most files that one pattern may name."""


def shards(source: str, suffix: str) -> list[Path]:
    """The files of this suffix that a path, a folder, a glob or a pattern with braces leads to, sorted.

    `{000..012}` counts, `{train,test}` lists. In a folder they lie in the folder itself, in `data/`, or in one named
    like a split.
    """
    if "\0" in source:
        return []
    path = Path(source)
    if path.is_dir():
        found = [each for name in (".", "data", *sorted(SPLITS)) for each in (path / name).glob(f"*{suffix}")]
    elif path.is_file():
        found = [path]
    else:
        patterns = _expand(source) if source.endswith(suffix) or has_magic(source) else []
        found = [Path(each) for pattern in patterns for each in (_glob(pattern))]
    whole = (each for each in found if each.suffix == suffix and not is_clutter(each.name) and each.is_file())
    return sorted(set(whole))


def _glob(pattern: str) -> list[str]:
    return glob(pattern, recursive=True) if has_magic(pattern) else [pattern]


def _expand(pattern: str) -> Iterator[str]:
    """The pattern with each of its braces replaced by everything that they denote."""
    made = [pattern]
    while (braces := BRACES.search(made[0])) is not None:
        counted = RANGE.match(braces[1])
        if counted:
            first, last = int(counted[1]), int(counted[2])
            _refuse_many(pattern, len(made) * abs(last - first))
            words = [f"{number:0{len(counted[1])}d}" for number in range(first, last + 1)]
        else:
            words = braces[1].split(",")
        _refuse_many(pattern, len(made) * len(words))
        made = [BRACES.sub(lambda _, word=word: word, each, count=1) for each in made for word in words]
        if not made:
            return
    yield from made


def _refuse_many(pattern: str, count: int) -> None:
    if count > MOST:
        raise UserError(f"{pattern} stands for {count:,} files, more than the {MOST:,} that a pattern may name.")


def by_split(files: Sequence[Path], numbered: bool = False) -> dict[str, list[Path]]:
    """The files of each split, the splits sorted by name.

    `train-00000-of-00003` belongs to split train, as does `train-00000` if files are known to be `numbered` parts. A
    name of digits alone belongs to the split that its folder is named after.
    """
    splits: dict[str, list[Path]] = {}
    for path in files:
        shard = COUNTED.match(path.stem) or (NUMBERED.match(path.stem) if numbered else None)
        alone = path.parent.name if path.stem.isdecimal() else path.stem
        splits.setdefault(shard["split"] if shard else alone, []).append(path)
    return dict(sorted(splits.items()))


def refuse_gaps(files: Sequence[Path], where: str, split: str) -> None:
    """Refuse a folder that lacks some of its numbered files; a file or a glob names the files meant."""
    parts = [shard for path in files if (shard := COUNTED.match(path.stem))]
    if parts and Path(where).is_dir() and len(parts) < int(parts[0]["count"]):
        raise UserError(
            f"{where} has only {len(parts)} of the {int(parts[0]['count'])} files of split {split!r}: "
            "complete it, or name the files with a glob."
        )
