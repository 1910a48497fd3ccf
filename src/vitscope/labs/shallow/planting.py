"""Real objects that replace a lab's token model: read once, half of them to train on and half to test on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from vitscope.data import Images
from vitscope.labs.shallow.planted import Objects, Planted, PlantedTokens, read_objects
from vitscope.measurement.errors import UserError


@final
@dataclass(frozen=True, eq=False)
class Planting:
    """Objects of two classes (the first is +1), and how they are planted into a lab's images.

    Objects of even number are for training, those of odd number for testing, so that no object is in both. An image
    has ``side`` x ``side`` patches of ``patch`` x ``patch`` pixels; background patches are grey with Gaussian noise of
    standard deviation ``background``. A third and a fourth class are needed if there is a spurious pattern: random
    patches of them are the spurious tokens of +1 and of -1.
    """

    objects: Objects
    side: int
    patch: int = 4
    background: float = 0.25
    name: str = "objects"
    fingerprint: str = ""
    """Identifies the objects, as a path would."""

    @property
    def settings(self) -> Mapping[str, object]:
        """What determines the images besides the objects."""
        return {"side": self.side, "patch": self.patch, "background": self.background}

    @property
    def described_objects(self) -> Mapping[str, object]:
        """The objects as a run names them."""
        return {"name": self.name, "objects": len(self.objects.labels), "fingerprint": self.fingerprint}

    @property
    def note(self) -> str:
        """A sentence on the objects."""
        return (
            f"Tokens are patches of {len(self.objects.labels):,} objects of {self.name}, half of which are for testing."
        )

    def tokens(
        self,
        patterns: int,
        relevant: float,
        confusion: float,
        noise: float,
        spurious: float = 0.0,
        agreement: float = 0.5,
    ) -> tuple[PlantedTokens, PlantedTokens]:
        """The tokens to train on and those to test on; ``noise`` is the root mean square distance of a noisy token."""
        if patterns > len(self._directions):
            raise UserError(
                f"patterns is {patterns}, but a patch of {self.patch} x {self.patch} pixels has only "
                f"{len(self._directions)} numbers: lower patterns or raise patch."
            )
        # A token is its pixels times 2 / sqrt(dim): noise of standard deviation s moves it by 2 s.
        shares = (relevant, confusion, noise / 2, self.background, spurious, agreement)
        planted = Planted(self.side, self.patch, *shares)
        training, testing = (PlantedTokens(planted, half, patterns, self._directions) for half in self._halves)
        return training, testing

    @cached_property
    def _halves(self) -> tuple[Objects, Objects]:
        pixels, labels = self.objects.pixels, self.objects.labels
        return Objects(pixels[::2], labels[::2]), Objects(pixels[1::2], labels[1::2])

    @cached_property
    def _directions(self) -> Float32[Tensor, "dim dim"]:
        return Planted(self.side, self.patch).directions(self._halves[0])


def objects_to_plant(
    images: Images,
    classes: tuple[int, ...] | None = None,
    limit: int | None = None,
    seed: int = 0,
    side: int | None = None,
    patch: int = 4,
    background: float = 0.25,
) -> Planting:
    """Labelled square images of one size, as objects to plant: of these ``classes``, by default the first two.

    Reads and keeps at most ``limit`` of them, of each class in proportion to its size, chosen by ``seed``. Without
    ``side`` a planted image is as large as an object. Raises ``UserError`` for images without labels or of other
    shapes, and for classes that are not two or four different ones. Memory: 4 bytes a pixel and channel of the objects.
    """
    if images.labels is None:
        raise UserError(f"{images.name} has no labels: objects of two classes need them.")
    known = np.unique(images.labels).tolist()
    chosen = tuple(known[:2]) if classes is None else classes
    if len(chosen) not in (2, 4) or len(set(chosen)) < len(chosen):
        raise UserError(f"classes are {chosen}: give two different ones, or four with a spurious pattern.")
    own = images.take(np.flatnonzero(np.isin(images.labels, chosen)))
    few = own if limit is None or limit >= len(own) else own.sample(limit, seed)
    objects = read_objects(few, chosen)
    grid = objects.pixels.shape[2] // max(patch, 1) if side is None else side
    return Planting(objects, grid, patch, background, images.name, few.fingerprint)
