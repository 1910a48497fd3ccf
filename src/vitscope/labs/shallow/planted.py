"""The token model made from real images: patches of an object among patches of noise, in a given share."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from PIL import Image
from torch import Tensor

from vitscope.data import Images
from vitscope.labs.shallow.token_model import AbstractTokens, Role, TokenSample
from vitscope.measurement.errors import UserError


@dataclass(frozen=True, eq=False)
class Objects:
    """Square pictures of objects, pixels in [0, 1], with classes numbered from 0."""

    pixels: Float32[Tensor, "objects channels side side"]
    labels: Int64[Tensor, " objects"]


@dataclass(frozen=True, eq=False)
class PlantedSample:
    """Planted images, whose noisy pixels may leave [0, 1], with the role of every patch, row by row."""

    images: Float32[Tensor, "images channels height width"]
    labels: Int64[Tensor, " images"]
    roles: Int64[Tensor, "images patches"]
    distances: Float32[Tensor, "images patches"]
    """Length of the noise that was added to each patch; for background its whole distance from grey."""


def read_objects(images: Images, classes: tuple[int, ...] | None = None) -> Objects:
    """Read labelled square images of one size; given ``classes``, only of these, numbered in that order."""
    if images.labels is None:
        raise UserError(f"{images.name} has no labels: objects need them.")
    labels = torch.from_numpy(images.labels).long()
    chosen = tuple(labels.unique().tolist()) if classes is None else classes
    batches = list(images.batches(_pixels, 256))
    pixels, numbers = torch.cat([one.pixels for one in batches]), torch.cat([labels[one.indices] for one in batches])
    if pixels.shape[2] != pixels.shape[3]:
        raise UserError(
            f"{images.name} has pictures of {pixels.shape[3]} x {pixels.shape[2]} pixels: give square ones."
        )
    places = [(numbers == one).nonzero()[:, 0] for one in chosen]
    if any(len(one) == 0 for one in places):
        raise UserError(f"{images.name} has no image of some of the classes {chosen}: choose others or more images.")
    kept = torch.cat(places)
    new = torch.cat([torch.full((len(one),), number) for number, one in enumerate(places)])
    return Objects(pixels[kept], new)


@final
@dataclass(frozen=True)
class Planted:
    """Objects planted into backgrounds of noise.

    An image has ``grid`` x ``grid`` patches of ``patch`` x ``patch`` pixels. The object lies at a random place of the
    grid; random patches of it are shown, so that a share ``relevant`` of all patches is the object's. A further share
    ``confusion``, at any other places, shows random patches of an object of another class. Shares that are not whole
    are met on average. Pixels of both have Gaussian noise of standard deviation ``noise`` added. All other patches are
    background: grey with Gaussian noise of standard deviation ``background``.

    With a ``spurious`` share, the objects of the last two classes are not planted: the spurious patches of an image
    show, with the same noise, random patches of an object of one of them, the class that belongs to the image's label
    with probability ``agreement``, else the other.
    """

    grid: int = 8
    patch: int = 4
    relevant: float = 0.5
    confusion: float = 0.0
    noise: float = 0.0
    background: float = 0.25
    spurious: float = 0.0
    agreement: float = 0.5

    def __post_init__(self) -> None:
        if min(self.grid, self.patch) < 1 or min(self.noise, self.background, self.confusion, self.spurious) < 0:
            raise UserError("grid and patch must be at least 1; noise, background and shares must not be negative.")
        if not self.confusion < self.relevant <= 1 - self.confusion - self.spurious:
            raise UserError(
                f"relevant is {self.relevant:g}, confusion {self.confusion:g} and spurious {self.spurious:g}: relevant "
                "must be larger than confusion, and their sum at most 1."
            )
        if not 0 <= self.agreement <= 1:
            raise UserError(f"agreement is {self.agreement:g}; it must be a probability, from 0 to 1.")

    def draw(self, objects: Objects, count: int, generator: torch.Generator) -> PlantedSample:
        """``count`` images, each of an object drawn with replacement. Cost: about 20 ns a pixel, on one core."""
        inside, (objects, biased) = self._inside(objects), self._divide_objects(objects)
        chosen = torch.randint(len(objects.labels), (count,), generator=generator)
        offsets = torch.randint(self.grid - inside + 1, (count, 2), generator=generator)
        covered = self._covered_patches(offsets, inside)
        relevant = _choose(covered, self._draw_counts(self.relevant, count, generator), generator)
        confusion = _choose(~relevant, self._draw_counts(self.confusion, count, generator), generator)
        shown = self._place_objects(objects.pixels[chosen], offsets).flatten(1, 2)
        other = self._any_patches(objects.pixels[_of_another(objects.labels, chosen, generator)], generator)
        clean = torch.where(relevant.unsqueeze(2), shown, other)
        roles = torch.full(relevant.shape, int(Role.IRRELEVANT))
        roles[relevant], roles[confusion] = int(Role.RELEVANT), int(Role.CONFUSION)
        if biased is not None:
            free = _choose(~(relevant | confusion), self._draw_counts(self.spurious, count, generator), generator)
            agrees = torch.rand(count, generator=generator) < self.agreement
            wanted = torch.where(agrees, objects.labels[chosen], 1 - objects.labels[chosen])
            of = biased.pixels[_of_class(biased.labels, wanted, generator)]
            clean = torch.where(free.unsqueeze(2), self._any_patches(of, generator), clean)
            roles[free] = int(Role.SPURIOUS)
        planted = (roles != Role.IRRELEVANT).unsqueeze(2)
        spread = torch.where(planted, self.noise, self.background)
        added = torch.randn(clean.shape, generator=generator) * spread
        patches = torch.where(planted, clean, 0.5) + added
        side = self.grid * self.patch
        images = torch.nn.functional.fold(patches.mT, (side, side), self.patch, stride=self.patch)
        return PlantedSample(images, objects.labels[chosen], roles, added.norm(dim=2))

    def tokens(self, images: Float[Tensor, "images channels height width"]) -> Float[Tensor, "images patches dim"]:
        """Patches as rows of ``channels patch^2`` numbers, grey as zero, scaled by 2 / sqrt(dim)."""
        rows = torch.nn.functional.unfold(images - 0.5, self.patch, stride=self.patch).mT
        return rows * (2 / rows.shape[2] ** 0.5)

    def directions(self, objects: Objects) -> Float32[Tensor, "dim dim"]:
        """The orthonormal directions of the objects' patches as tokens, in rows by falling singular value."""
        rows = self.tokens(objects.pixels).flatten(0, 1)
        return torch.linalg.eigh(rows.T @ rows).eigenvectors.flip(1).T.contiguous()

    def _divide_objects(self, objects: Objects) -> tuple[Objects, Objects | None]:
        """The objects to plant, and those of the spurious patterns, if any, numbered from 0."""
        if not self.spurious:
            return objects, None
        if objects.labels.unique().tolist() != [0, 1, 2, 3]:
            raise UserError(
                "spurious patches need four classes of objects: two to plant, then a spurious one for each."
            )
        own = objects.labels < 2
        return (
            Objects(objects.pixels[own], objects.labels[own]),
            Objects(objects.pixels[~own], objects.labels[~own] - 2),
        )

    def _inside(self, objects: Objects) -> int:
        """Patches along a side of the object."""
        side = objects.pixels.shape[2]
        inside = side // self.patch
        if side % self.patch or inside > self.grid:
            raise UserError(
                f"objects have {side} pixels a side, patches {self.patch} and the grid {self.grid} patches: the first "
                "must be a multiple of the second and fit into the grid."
            )
        if self.relevant * self.grid**2 > inside**2 + 1e-6:
            raise UserError(
                f"relevant is {self.relevant:g}, but the object covers only {inside**2 / self.grid**2:g} of the grid: "
                "lower relevant or make the grid smaller."
            )
        return inside

    def _draw_counts(self, share: float, count: int, generator: torch.Generator) -> Int64[Tensor, " images"]:
        exact = round(share * self.grid**2, 6)
        return (exact + torch.rand(count, generator=generator)).floor().long().clamp(max=math.ceil(exact))

    def _covered_patches(self, offsets: Int64[Tensor, "images 2"], inside: int) -> Bool[Tensor, "images patches"]:
        place = torch.arange(self.grid)
        rows, columns = ((place >= start) & (place < start + inside) for start in offsets.T.unsqueeze(2))
        return (rows.unsqueeze(2) & columns.unsqueeze(1)).flatten(1)

    def _place_objects(
        self, pixels: Float32[Tensor, "images channels side side"], offsets: Int64[Tensor, "images 2"]
    ) -> Float32[Tensor, "images grid grid size"]:
        """Each object at its place in an empty grid."""
        inside = pixels.shape[2] // self.patch
        rows = torch.nn.functional.unfold(pixels, self.patch, stride=self.patch).mT.unflatten(1, (inside, inside))
        found = rows.new_zeros(len(rows), self.grid, self.grid, rows.shape[3])
        number, place = torch.arange(len(rows))[:, None, None], torch.arange(inside)
        found[number, offsets[:, :1, None] + place[:, None], offsets[:, 1:, None] + place] = rows
        return found

    def _any_patches(
        self, pixels: Float32[Tensor, "images channels side side"], generator: torch.Generator
    ) -> Float32[Tensor, "images patches size"]:
        """A random patch of the image's object for every place of the grid."""
        rows = torch.nn.functional.unfold(pixels, self.patch, stride=self.patch).mT
        chosen = torch.randint(rows.shape[1], (len(rows), self.grid**2), generator=generator)
        return rows.gather(1, chosen.unsqueeze(2).expand(-1, -1, rows.shape[2]))


@final
@dataclass(frozen=True, eq=False)
class PlantedTokens(AbstractTokens):
    """Planted objects of two classes as tokens for a `ShallowVit`: the first class is +1, the second -1.

    Two further classes are needed if there is a spurious share. The initial model's patterns are the ``patterns``
    leading ``known`` directions, by default those of the objects' patches. Noise may bring a token nearer to another
    pattern: the theorems' distribution is a `TokenModel`.
    """

    planted: Planted
    objects: Objects
    patterns: int = 10
    known: Float32[Tensor, "dim dim"] | None = None

    def __post_init__(self) -> None:
        classes = 4 if self.planted.spurious else 2
        if self.objects.labels.unique().tolist() != list(range(classes)):
            raise UserError(
                f"tokens with labels of +1 and -1 need objects of {'four' if classes == 4 else 'two'} classes"
                f"{' with a spurious share' if classes == 4 else ''}: give that many."
            )

    @property
    def places(self) -> int:
        """Patches of an image."""
        return self.planted.grid**2

    @property
    def vectors(self) -> Float32[Tensor, "patterns dim"]:
        """Orthonormal directions, by the singular values of the patches."""
        return self._vectors

    @cached_property
    def _vectors(self) -> Float32[Tensor, "patterns dim"]:
        known = self.planted.directions(self.objects) if self.known is None else self.known
        return known[: self.patterns]

    def draw(self, count: int, generator: torch.Generator) -> TokenSample:
        """``count`` independent images of this distribution."""
        sample = self.planted.draw(self.objects, count, generator)
        scaled = sample.distances * (2 / self.vectors.shape[1] ** 0.5)
        return TokenSample(self.planted.tokens(sample.images), 1.0 - 2.0 * sample.labels, sample.roles, scaled)


def _pixels(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255


def _choose(
    allowed: Bool[Tensor, "images patches"], wanted: Int64[Tensor, " images"], generator: torch.Generator
) -> Bool[Tensor, "images patches"]:
    """``wanted`` of the allowed patches of each image, at random."""
    order = (torch.rand(allowed.shape, generator=generator) - 2.0 * allowed).argsort(1).argsort(1)
    return (order < wanted.unsqueeze(1)) & allowed


def _of_class(
    labels: Int64[Tensor, " objects"], wanted: Int64[Tensor, " images"], generator: torch.Generator
) -> Int64[Tensor, " images"]:
    """A random object of each wanted class."""
    order, sizes = labels.argsort(), torch.bincount(labels)
    place = (torch.rand(len(wanted), generator=generator) * sizes[wanted]).long()
    return order[(sizes.cumsum(0) - sizes)[wanted] + place]


def _of_another(
    labels: Int64[Tensor, " objects"], chosen: Int64[Tensor, " images"], generator: torch.Generator
) -> Int64[Tensor, " images"]:
    """A random object of another class for each chosen one; of any class if there is only one."""
    order, sizes = labels.argsort(), torch.bincount(labels)
    own = sizes[labels[chosen]] * (sizes.count_nonzero() > 1)
    before = (sizes.cumsum(0) - sizes)[labels[chosen]]
    place = (torch.rand(len(chosen), generator=generator) * (len(labels) - own)).long()
    return order[torch.where(place < before, place, place + own)]
