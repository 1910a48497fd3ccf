"""Three disjoint sets of images: to fit repairs on, to choose on, and to prove on."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vitscope.data import Images
from vitscope.measurement.errors import UserError

CALIBRATION = 512
"""Images that repairs are fitted on, at most."""
VALIDATION = 2500
"""Images that choose between candidates, at most; a pass over them is made for every candidate that is taken."""
SCREEN = 512
"""Validation images on which a move is tried before it is judged on all of them, at most."""
LEAST = 32
"""Images of a split, at least."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Disjoint images: ``calibration`` needs no labels, ``validation`` chooses, ``test`` is seen once, at the end."""

    calibration: Images
    validation: Images
    test: Images

    @cached_property
    def screen(self) -> Images:
        """At most 512 of the validation images, on which a move is tried first."""
        return self.validation.sample(SCREEN)

    @property
    def facts(self) -> dict[str, object]:
        """Size and fingerprint of each, for a run's spec."""
        each = {"calibration": self.calibration, "validation": self.validation, "test": self.test}
        return {name: {"count": len(one), "fingerprint": one.fingerprint} for name, one in each.items()}


def split_images(images: Images, test: Images | None = None, seed: int = 0) -> Splits:
    """Divide images into the three splits, of each class in proportion.

    Without ``test``, a tenth (at most 512) calibrates, a quarter of the rest (at most 2,500) validates, and all others
    test. With it, ``images`` give calibration and validation alone: a tenth (at most 512), and of the rest at most
    2,500. The splits follow from the seed. Raises ``UserError`` if a split has fewer than 32 images, if there are no
    labels, or if both name the same pictures.
    """
    for one in (images, *(() if test is None else (test,))):
        if one.labels is None:
            raise UserError(f"{one.name} has no labels, by which a better model is chosen and proven; give --label.")
    if test is not None and images.fingerprint == test.fingerprint:
        raise UserError(f"{images.name} is given both to choose on and to test on; give two splits, or one.")
    calibration, rest = _divide(images, min(CALIBRATION, len(images) // 10), seed)
    share = len(rest) // 4 if test is None else len(rest)
    validation, left = _divide(rest, min(VALIDATION, share), seed + 1)
    found = Splits(calibration, validation, left if test is None else test)
    few = {name: one for name, one in vars(found).items() if len(one) < LEAST}
    for name, one in few.items():
        raise UserError(
            f"{images.name} leaves {len(one)} images for {name} and needs {LEAST}; give more images (500 at least)."
        )
    return found


def _divide(images: Images, count: int, seed: int) -> tuple[Images, Images]:
    """So many of the images, of each class in proportion, and the others."""
    taken = images.sample(count, seed)
    others = np.setdiff1d(np.arange(len(images)), np.searchsorted(images.positions, taken.positions))
    return taken, images.take(others)
