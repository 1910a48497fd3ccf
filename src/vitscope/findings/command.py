"""The commands that advice names, with the model and the images of the run it is about."""

import shlex
from collections.abc import Iterator, Sequence

from vitscope.runs.run import Run

EXAMINED = "{examined}"
"""Where a command takes the model and the images."""
UNKNOWN = "MODEL --images DATA"
"""What stands there when the run does not say how it was made."""
VALUES = frozenset(("images", "split", "label", "label-map", "label-order", "root", "bits", "max-pixels")) | frozenset(
    ("augment", "max-broken", "seed", "device", "weights", "part", "crop", "classes", "image-size", "channels", "set")
)
"""Flags that say with a value what is examined."""
SWITCHES = frozenset(("pretrained", "ema", "raw"))
"""Those that say it without one."""
_ALONE = frozenset(("resume", "deep"))
"""Other flags without a value."""
_VERBS = {"checkup": 1, "study": 2, "measure": 2}
"""How many words each command has before its model."""


def fill_in(text: str, run: Run | None) -> str:
    """The text with the run's model and images where they are named; without a run, with what stands for them."""
    if EXAMINED not in text:
        return text
    return text.replace(f" {EXAMINED}", f" {UNKNOWN if run is None else examined_flags(run)}".rstrip())


def examined_flags(run: Run) -> str:
    """The model and the images as the run's own command names them; nothing for the embedded ones."""
    words = shlex.split(str(run.provenance.get("command", ""))) if "provenance" in run.tree.attrs else []
    if len(words) < 2 or words[1] not in _VERBS:
        return UNKNOWN
    return shlex.join(_kept(words[1 + _VERBS[words[1]] :]))


def _kept(words: Sequence[str]) -> Iterator[str]:
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
