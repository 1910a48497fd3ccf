"""Label noise: training images that are given a wrong class on purpose, recorded image by image."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Int

from vitscope.data.image import Images
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason
from vitscope.runs.run import APART

NOISE = "label-noise"
"""The group of a run that holds the flips."""
_SALT = 0x6E6F697365


def noisy_labels(
    labels: Int[np.ndarray, " images"],
    classes: Sequence[str],
    rate: float,
    kind: Literal["symmetric", "asymmetric"],
    seed: int,
) -> Int[np.ndarray, " images"]:
    """The labels, each flipped with probability ``rate``, as ``seed`` and its position decide.

    A symmetric flip picks any other class with equal probability; an asymmetric flip goes to the next class, and from
    the last to the first (the pair flip of Han et al. 2018).
    """
    generator = np.random.default_rng([seed, _SALT])
    chosen, count = generator.random(len(labels)) < rate, len(classes)
    step = generator.integers(1, count, len(labels)) if count > 1 else np.zeros(len(labels), np.int64)
    step = step if kind == "symmetric" else np.full(len(labels), int(count > 1))
    return np.where(chosen, (labels + step) % count, labels).astype(np.int64)


def labels_from(path: str, images: Images, classes: Sequence[str]) -> Int[np.ndarray, " images"]:
    """The labels that a file gives the images, in their order.

    The file is ``.npy``, a JSON list, or a text with one label per line; a label is a class's number or name. Raises
    ``UserError`` for any other file, for the wrong number of labels, and for an unknown class.
    """
    found = _read(Path(path))
    if len(found) != len(images):
        raise UserError(f"{path} holds {len(found):,} labels for {len(images):,} images of {images.name}.")
    numbers = {name: number for number, name in enumerate(classes)}
    labels: list[int] = []
    for place, one in enumerate(found):
        text = str(one).strip()
        number = numbers[text] if text in numbers else int(text) if text.isdecimal() else -1
        if not 0 <= number < len(classes):
            raise UserError(f"Label {place} of {path} is {text!r:.40}, which is none of the {len(classes)} classes.")
        labels.append(number)
    return np.array(labels, np.int64)


def flips(images: Images, given: Int[np.ndarray, " images"]) -> xr.Dataset:
    """The images whose labels were changed, by number and name: the class of each, and the class it was given."""
    assert images.labels is not None, "images without labels are refused earlier"
    own = np.asarray(images.labels, np.int64)
    rows = np.flatnonzero(own != given)
    names = [images.pictures.name(int(images.positions[row])) for row in rows]
    words = {"units": "1"}
    return xr.Dataset(
        {
            "label": ("image", own[rows], {**words, "long_name": "Class of the image"}),
            "given": ("image", given[rows], {**words, "long_name": "Class it was given in training"}),
        },
        {"image": ("image", rows), "picture": ("image", np.array(names, dtype=str))},
        {"title": "Labels changed on purpose", "images": len(own), APART: 1},
    )


def _read(path: Path) -> Sequence[object]:
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False).ravel().tolist()
        text = path.read_text()
        if path.suffix == ".json":
            return list(json.loads(text))
        return [line for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read as labels ({reason(error)}); give .npy, .json or text.") from error
