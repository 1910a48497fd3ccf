"""Matches the classes of images to those of a model, by name."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from vitscope.data import imagenet

PLACEHOLDER = re.compile(r"^(?:label|class)[ _-]?(\d{1,9})$", re.IGNORECASE)
SYNONYMS = re.compile(r",| - ")
"""Separators of synonyms: `tench, Tinca tinca`, and `3 - three` in torchvision's MNIST."""
COUNTED = re.compile(r"^\d{1,6}[._ -]+(\D.*)$")
INVISIBLE = re.compile("[\xad\u200b-\u200f\u2060\ufeff]|" + r"\\xad|\\u200[b-f]|\\u2060|\\ufeff")
"""Invisible marks, raw or as `printable` shows them, such as a zero-width non-joiner in Persian names."""
SEVERAL = "several"
ALIKE, MANY = 0.95, 20
"""Lists of one length, of at least this many names, count as one list if this share agrees place by place."""


@final
@dataclass(frozen=True)
class Match:
    """The model's class of each of the images' classes, and how it was found: empty if names are equal."""

    places: tuple[int, ...]
    how: str = ""


def are_placeholders(names: Sequence[str]) -> bool:
    """Whether names only count: `LABEL_0`, `LABEL_1`, ..."""
    return bool(names) and all(name == f"LABEL_{place}" for place, name in enumerate(names))


def placeholder_numbers(names: Sequence[str]) -> tuple[int, ...] | None:
    """The numbers in names such as `LABEL_3`, if all names are of that kind."""
    found = [PLACEHOLDER.match(name) for name in names]
    return tuple(int(each[1]) for each in found if each) if names and all(found) else None


def match(ours: Sequence[str], theirs: Sequence[str]) -> Match | None:
    """The place among `theirs` of each of `ours`; None if one has none, or if it is uncertain which.

    Tried in turn: equal names, ImageNet's wnids, spelling (case, underscores, wnids, one of several synonyms), names
    without the numbers before them, and long lists that agree place by place except for a few names.
    """
    if tuple(ours) == tuple(theirs):
        return Match(tuple(range(len(ours))))
    for rule in (_equal, _by_wnid, _by_spelling, _by_bare_name, _by_place):
        found = rule(ours, theirs)
        if found is not None and len(set(found.places)) == len(ours):
            return found
    return None


def _equal(ours: Sequence[str], theirs: Sequence[str]) -> Match | None:
    places = _unique([{name} for name in ours], [{name} for name in theirs])
    certain = tuple(place for place in places if isinstance(place, int))
    return Match(certain) if len(certain) == len(ours) else None


def _by_wnid(ours: Sequence[str], theirs: Sequence[str]) -> Match | None:
    left = imagenet.wnids(ours)
    right = imagenet.wnids(theirs) if left is not None else None
    found = None if left is None or right is None else _equal(left, right)
    return None if found is None else Match(found.places, "by the wnids of ImageNet")


def _by_spelling(ours: Sequence[str], theirs: Sequence[str]) -> Match | None:
    """Match each of ours by the strictest spelling in which it is any of theirs; it must be exactly one."""
    left, right = [imagenet.describe_class(name) for name in ours], [imagenet.describe_class(name) for name in theirs]
    places: dict[int, int] = {}
    for spelling in SPELLINGS:
        waiting = [number for number in range(len(ours)) if number not in places]
        found = _unique([spelling(left[number]) for number in waiting], [spelling(name) for name in right])
        places |= {number: place for number, place in zip(waiting, found, strict=True) if isinstance(place, int)}
    if len(places) < len(ours):
        return None
    certain = tuple(places[number] for number in range(len(ours)))
    other = [(name, theirs[place]) for name, place in zip(ours, certain, strict=True) if name != theirs[place]]
    return Match(certain, f"by name although spelled otherwise ({_pairs(other, 'as')})")


def _by_bare_name(ours: Sequence[str], theirs: Sequence[str]) -> Match | None:
    """Match names such as `001.Black_footed_Albatross` without their numbers, if all of ours or of theirs have them."""
    left, right = _bare(ours), _bare(theirs)
    found = None if (left, right) == (ours, theirs) else _by_spelling(left, right)
    if found is None:
        return None
    pairs = _pairs([(name, theirs[place]) for name, place in zip(ours, found.places, strict=True)], "as")
    return Match(found.places, f"by name without the numbers before it ({pairs})")


def _bare(names: Sequence[str]) -> Sequence[str]:
    found = [COUNTED.match(name) for name in names]
    return [each[1] for each in found if each] if all(found) else names


def _by_place(ours: Sequence[str], theirs: Sequence[str]) -> Match | None:
    if len(ours) != len(theirs) or len(ours) < MANY:
        return None
    found = _unique([_plain(name) for name in ours], [_plain(name) for name in theirs])
    strange = [number for number, place in enumerate(found) if place is None]
    elsewhere = any(place not in (number, None) for number, place in enumerate(found))
    if elsewhere or len(ours) - len(strange) < ALIKE * len(ours):
        return None
    pairs = _pairs([(ours[number], theirs[number]) for number in strange], "for")
    return Match(tuple(range(len(ours))), f"by place, since all names agree but a few ({pairs})")


def _unique(ours: Sequence[set[str]], theirs: Sequence[set[str]]) -> list[int | str | None]:
    """For each of ours, the place of the only one of theirs that shares a form with it; else None, or `SEVERAL`."""
    places: dict[str, set[int]] = {}
    for place, forms in enumerate(theirs):
        for form in forms:
            places.setdefault(form, set()).add(place)
    found = [set[int]().union(*(places.get(form, set()) for form in forms)) for forms in ours]
    return [None if not each else next(iter(each)) if len(each) == 1 else SEVERAL for each in found]


def _pairs(names: Sequence[tuple[str, str]], word: str) -> str:
    return ", ".join(f"{ours!r} {word} {theirs!r}" for ours, theirs in names[:3]) + ", ..." * (len(names) > 3)


def _normal(name: str) -> str:
    """A name in lower case, with composed letters, no invisible marks, single spaces for underscores and hyphens.

    Numbers lose leading zeros and "label" or "class".
    """
    plain = unicodedata.normalize("NFC", INVISIBLE.sub("", name))
    words = " ".join(re.split(r"[\s_-]+", plain.strip().casefold()))
    number = PLACEHOLDER.match(words)
    digits = number[1] if number else words
    return digits.lstrip("0") or "0" if digits.isdecimal() else words


def _plain(name: str) -> set[str]:
    return {_normal(name)}


def _first_synonym(name: str) -> set[str]:
    return {_normal(SYNONYMS.split(name)[0])}


def _all_synonyms(name: str) -> set[str]:
    return {_normal(synonym) for synonym in SYNONYMS.split(name) if synonym.strip()}


SPELLINGS: tuple[Callable[[str], set[str]], ...] = (_plain, _first_synonym, _all_synonyms)
