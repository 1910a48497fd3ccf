"""The embedded images: handwritten digits, which need no download."""

from typing import Any, final

import numpy as np

from vitscope.data.array import ArrayPictures
from vitscope.data.label import read_labels
from vitscope.data.source import AbstractSource, FoundSource, SourceChoice, choose_split, refuse_label

CLASSES = tuple("0123456789")


@final
class DigitsSource(AbstractSource):
    """scikit-learn's digits: 1797 grey images of 8 x 8 pixels, ten classes; the default source.

    Splits: `test`, the last quarter of every class in the data set's order, so that train and test differ in their
    writers; `train`, the rest; `all`. **Without a split it is `test`**, which the embedded model never saw. Samples
    of 0 to 16 are scaled to 0 to 255.
    """

    def claims(self, source: object) -> bool:
        """No source, or the word "digits" (a folder of that name is ./digits)."""
        return source is None or (isinstance(source, str) and source == "digits")

    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """The images of the split, in the data set's order."""
        refuse_label("digits", choice.label, "each image's label is its digit")
        chosen = choose_split("digits", ("test", "train", "all"), choice.split or "test")
        from sklearn.datasets import load_digits  # slow to import, and only needed here

        digits: Any = load_digits()
        targets: np.ndarray = digits.target
        pixels = np.rint(digits.data.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        held_out = _last_quarter(targets)
        rows = {"test": held_out, "train": ~held_out, "all": held_out | ~held_out}[chosen]
        labels = read_labels(targets[rows], "digits", "the digit written", CLASSES)
        return FoundSource(f"digits/{chosen}", ArrayPictures(pixels[rows], f"digits/{chosen}"), labels)


def _last_quarter(targets: np.ndarray) -> np.ndarray:
    """A mask of the images in the last quarter of their class."""
    held_out = np.zeros(len(targets), dtype=bool)
    for digit in np.unique(targets):
        places = np.flatnonzero(targets == digit)
        held_out[places[len(places) - len(places) // 4 :]] = True
    return held_out
