"""ImageNet's classes: their WordNet numbers (wnids, such as `n01440764`), and their names."""

import re
from collections.abc import Sequence
from functools import cache

WNID = re.compile(r"^(n\d{8})(?=$|[-_. ])")  # Stanford Dogs has n02085620-Chihuahua
ALIKE = 0.95
"""A list is ImageNet's if this share of names agrees place by place; torchvision's agree in 998 of 1000."""

SMALLEST = 1000
"""The number of classes of the smallest list."""


def wnid(name: str) -> str | None:
    """The wnid that a class name is or begins with, if any."""
    found = WNID.match(name)
    return found[1] if found else None


def wnids(names: Sequence[str]) -> tuple[str, ...] | None:
    """The wnid of each class, if all of them are wnids or the list is one of ImageNet's; else None.

    A list is ImageNet's if it has as many classes as ImageNet-1k, 12k, 21k or 22k, and their names, place by place.
    A first class called "background" has an empty wnid.
    """
    found = [wnid(name) for name in names]
    if names and all(found):
        return tuple(each for each in found if each is not None)
    if names and names[0] == "background":
        rest = wnids(names[1:])
        return None if rest is None else ("", *rest)
    numbers, described = _subset(len(names)) if len(names) >= SMALLEST else ((), ())
    agreeing = sum(_first(ours) == _first(theirs) for ours, theirs in zip(names, described, strict=False))
    return numbers if numbers and agreeing >= ALIKE * len(numbers) else None


def describe_class(name: str) -> str:
    """The synonyms of a class named by its wnid; another name as it is."""
    number = wnid(name)
    return name if number is None else _synonyms().get(number, name)


def _first(name: str) -> str:
    return name.partition(",")[0].strip().casefold()


@cache
def _subset(count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Wnids and synonyms of the part of ImageNet that has this many classes; empty if there is none."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset  # slow to import, and only needed here

    subset = infer_imagenet_subset({"num_classes": count})
    if subset is None:
        return (), ()
    info = ImageNetInfo(subset)
    return tuple(info.label_names()), tuple(info.label_descriptions())


@cache
def _synonyms() -> dict[str, str]:
    from timm.data.imagenet_info import ImageNetInfo

    parts = [ImageNetInfo(name) for name in ("imagenet-21k-goog", "imagenet-1k")]
    return {number: part.label_name_to_description(number) for part in parts for number in part.label_names()}
