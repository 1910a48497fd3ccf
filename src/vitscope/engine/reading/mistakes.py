"""What a model gets wrong: its weakest classes, the classes it takes for others, the pictures it errs on worst."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Int, UInt8
from PIL import Image

from vitscope.data import Images
from vitscope.data.decode import BrokenImage
from vitscope.engine.reading.scores import NOTHING, Scores
from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.runs.run import APART

MISTAKES = "mistakes"
"""The group of a run that holds the mistakes."""
PAIRS = 12
"""Pairs of confused classes that are stored, the most frequent ones."""
SHOWN = 8
"""Pictures that are stored of each kind: the most confident mistakes, and the largest losses."""
SIDE = 96
"""Pixels of a stored picture's longer side."""

_ACCURACY = Quantity(
    "class_accuracy",
    "Accuracy by class",
    "1",
    "Share of a class's images that are given this class; the standard error is over the class's images.",
    "Larger is better.",
)
_CLASSES = "class of the images"


def mistakes(scores: Scores, images: Images, classes: Sequence[str] | None) -> xr.Dataset:
    """Accuracy along ``classes``, mistakes by pair along ``mistake``, pictures along ``example``.

    The most frequent pairs come first; a pair's share is of the true class's images. The pictures are the most
    confident mistakes, ranked by ``by_confidence``, then the mistakes with the largest loss, ranked by ``by_loss``; the
    rank is -1 if a picture is not among them. Thumbnails show the pictures before the model's preprocessing. Cost:
    reading these pictures once more.
    """
    parts = [_by_class(scores, classes), _pairs(scores, classes), _examples(scores, images, classes)]
    words = {"title": "What it gets wrong", "definition": (mistakes.__doc__ or "").strip(), APART: 1}
    return xr.merge(parts, compat="no_conflicts", join="exact").assign_attrs(words)


def _by_class(scores: Scores, classes: Sequence[str] | None) -> xr.Dataset:
    labels, right = scores.label.numpy(), ~scores.wrong.numpy()
    present = np.unique(labels)
    samples = [right[labels == one].astype(np.float64) for one in present]
    count = np.array([len(one) for one in samples])
    error = [one.std(ddof=1) / np.sqrt(len(one)) if len(one) > 1 else np.nan for one in samples]
    coords = {
        "classes": ("classes", present, {"long_name": _CLASSES}),
        **_names("classes_name", present, classes, "classes"),
    }
    return label_quantity(
        _ACCURACY, ("classes",), np.array([one.mean() for one in samples]), np.array(error), count, coords
    )


def _pairs(scores: Scores, classes: Sequence[str] | None) -> xr.Dataset:
    labels, predicted = scores.label.numpy(), scores.predicted.numpy()
    pairs = Counter(zip(labels[scores.wrong.numpy()].tolist(), predicted[scores.wrong.numpy()].tolist(), strict=True))
    frequent = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))[:PAIRS]
    truth, taken = (np.array([pair[side] for pair, _ in frequent], dtype=np.int64) for side in (0, 1))
    count = np.array([many for _, many in frequent], dtype=np.int64)
    share = count / np.array([max((labels == one).sum(), 1) for one in truth])
    coords = {
        **_names("mistake_true", truth, classes, "mistake"),
        **_names("mistake_predicted", taken, classes, "mistake"),
    }
    words = {
        "mistake_count": (count, "Images of one class taken for another", "1"),
        "mistake_share": (share, "Share of the class's images", "1"),
    }
    arrays = {
        name: ("mistake", values, {"long_name": label, "units": unit}) for name, (values, label, unit) in words.items()
    }
    return xr.Dataset(arrays, coords)


def _examples(scores: Scores, images: Images, classes: Sequence[str] | None) -> xr.Dataset:
    wrong = scores.wrong.numpy()
    sure = np.where(wrong, scores.confidence.numpy(), np.nan)
    loss = np.where(wrong, scores.loss.numpy(), np.nan)
    orders = [_largest(sure), _largest(loss)]
    rows = np.array(list(dict.fromkeys([*orders[0], *orders[1]])), dtype=np.int64)
    thumbnails = [_thumbnail(images, int(scores.image[row])) for row in rows]
    whole = [place for place, one in enumerate(thumbnails) if one is not None]
    pixels = np.array([thumbnails[place] for place in whole], np.uint8).reshape(-1, SIDE, SIDE, 3)
    rows = rows[whole]
    numbers = [int(scores.image[row]) for row in rows]
    coords: dict[str, Any] = {
        "example": ("example", [images.pictures.name(int(images.positions[number])) for number in numbers]),
        **_names("example_true", scores.label.numpy()[rows], classes, "example"),
        **_names("example_predicted", scores.predicted.numpy()[rows], classes, "example"),
    }
    ranks = [[order.index(row) if row in order else NOTHING for row in rows.tolist()] for order in orders]
    words: dict[str, tuple[Any, str, str]] = {
        "example_confidence": (scores.confidence.numpy()[rows], "Confidence in the class predicted", "1"),
        "example_loss": (scores.loss.numpy()[rows], "Negative log-likelihood", "nats"),
        "by_confidence": (np.array(ranks[0], dtype=np.int64), "Place among the most confident mistakes", "1"),
        "by_loss": (np.array(ranks[1], dtype=np.int64), "Place among the largest losses", "1"),
    }
    arrays: dict[str, Any] = {
        name: ("example", values, {"long_name": label, "units": unit}) for name, (values, label, unit) in words.items()
    }
    arrays["thumbnail"] = (("example", "pixel_row", "pixel_column", "colour"), pixels, {"long_name": "Picture"})
    return xr.Dataset(arrays, coords)


def _largest(values: np.ndarray) -> list[int]:
    """The positions of the largest numbers, without NaNs, the largest first."""
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:SHOWN]
    return [int(row) for row in order if not np.isnan(values[row])]


def _thumbnail(images: Images, number: int) -> UInt8[np.ndarray, "side side colours"] | None:
    """The picture in a square with grey margins; None if it cannot be read again."""
    try:
        picture = images.read(number).convert("RGB")
    except BrokenImage:
        return None
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    smooth = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    square = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    square.paste(picture.resize(size, smooth), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.asarray(square)


def _names(
    name: str, numbers: Int[np.ndarray, " several"], classes: Sequence[str] | None, axis: str
) -> dict[str, tuple[str, list[str]]]:
    """A coordinate of class names, or of numbers if the classes have no names."""
    known = dict(enumerate(classes or ()))
    return {name: (axis, [known.get(one) or _name_number(one) for one in numbers.tolist()])}


def _name_number(number: int) -> str:
    return "nothing (not finite)" if number == NOTHING else str(number)
