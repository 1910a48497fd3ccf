"""The commands in advice, filled in with the model and images of the run."""

import shlex
from collections.abc import Iterator, Sequence

from vitscope.runs.run import Run

EXAMINED = "{examined}"
"""Placeholder for the model and the images in a command."""
UNKNOWN = "MODEL --images DATA"
"""Replaces the placeholder if the run does not say how it was made."""
VALUES = frozenset(("images", "split", "label", "label-map", "label-order", "root", "bits", "max-pixels")) | frozenset(
    ("augment", "max-broken", "seed", "device", "weights", "part", "crop", "classes", "image-size", "channels", "set")
)
"""Flags with a value that say what is examined."""
SWITCHES = frozenset(("pretrained", "ema", "raw"))
"""Flags without a value that say what is examined."""
_ALONE = frozenset(("resume", "deep"))
"""Other flags without a value."""
_VERBS = {"checkup": 1, "study": 2, "measure": 2}
"""How many words each command has before its model."""


def fill_in(text: str, run: Run | None) -> str:
    """The text with the placeholder replaced by the run's model and images, or by :data:`UNKNOWN` without a run."""
    if EXAMINED not in text:
        return text
    return text.replace(f" {EXAMINED}", f" {UNKNOWN if run is None else examined_flags(run)}".rstrip())


def examined_flags(run: Run) -> str:
    """The model and the images as the run's own command names them; embedded images have no flag."""
    words = shlex.split(str(run.provenance.get("command", ""))) if "provenance" in run.tree.attrs else []
    if len(words) < 2 or words[1] not in _VERBS:
        return UNKNOWN
    return shlex.join(_filter_words(words[1 + _VERBS[words[1]] :]))


def _filter_words(words: Sequence[str]) -> Iterator[str]:
    """The model, and the flags that say what is examined."""
    left = iter(words)
    for word in left:
        name, equals, _ = word.removeprefix("--").partition("=")
        if not word.startswith("-") or name in SWITCHES:
            yield word
        elif not equals:
            value = next(left, "") if name not in _ALONE else ""
            if name in VALUES:
                yield from (word, value)
        elif name in VALUES:
            yield word
