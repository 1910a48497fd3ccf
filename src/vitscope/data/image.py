"""The images to examine: an object that opens nothing until it is read."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import SupportsIndex, final, overload

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from vitscope.data.augmented import Augmentation, Augmenting
from vitscope.data.batch import Batch, Broken
from vitscope.data.decode import DEFAULT, BrokenImage, Decoding
from vitscope.data.gallery import evenly_spaced, gallery
from vitscope.data.label import Labels, fit_labels, label_text
from vitscope.data.lookahead import ahead
from vitscope.data.sampling import subset
from vitscope.data.source import AbstractPictures
from vitscope.measurement.errors import UserError

Transform = Callable[[Image.Image], Tensor]


@final
@dataclass(frozen=True, eq=False)
class Images:
    """Images in a fixed order, with or without labels; made by `vitscope.images`.

    `positions` are the chosen images' places in the source, sorted. With `augmentation` the batches hold augmented
    images and soft targets, the same ones every time; `read` gives the picture as it is. Pickling it sends paths, not
    pixels (arrays given in memory are sent whole), so that a worker can read its own share.
    """

    name: str
    pictures: AbstractPictures
    positions: Int[np.ndarray, "chosen"]
    annotation: Labels | None
    max_broken: int = 0
    augmentation: Augmenting | None = None
    notes: tuple[str, ...] = ()
    """Sentences that every run on them repeats: what was guessed, and which of several was chosen."""
    decoding: Decoding = DEFAULT

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Image.Image: ...

    @overload
    def __getitem__(self, index: slice) -> "Images": ...

    def __getitem__(self, index: SupportsIndex | slice) -> "Image.Image | Images":
        """A picture, by its number (-1 is the last one), or some of the images, in their own order."""
        if isinstance(index, slice):
            return self.take(np.sort(np.arange(len(self))[index]))
        return self.read(range(len(self))[index])

    def __iter__(self) -> Iterator[Image.Image]:
        """The pictures, one after the other."""
        return map(self.read, range(len(self)))

    def __repr__(self) -> str:
        labels = "no labels" if self.classes is None else f"{len(self.classes)} classes"
        labels = labels if self.labels is None or self.classes else "labels without names"
        return f"Images({self.name!r}: {len(self):,} images, {labels})"

    def _repr_html_(self) -> str:
        """A few of the images, for a notebook."""
        return gallery(repr(self), [self._show(index) for index in evenly_spaced(len(self))])

    def _show(self, index: int) -> "tuple[Image.Image | None, str]":
        """A picture, or None if it is broken, and the text below it."""
        picture = self._picture(index)
        if isinstance(picture, Broken):
            return None, f"{picture.name}: {picture.reason}"
        label = None if self.labels is None else int(self.labels[index])
        return picture, "" if label is None else label_text(label, self.classes)

    @property
    def labels(self) -> Int[np.ndarray, "chosen"] | None:
        """The class of each image, 0 or more; None if the images are unlabelled."""
        return None if self.annotation is None else self.annotation.values

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the label values, after the label map if one was given; None if they are unknown."""
        return None if self.annotation is None else self.annotation.classes

    @property
    def label_source(self) -> str:
        """Where the labels come from: a column, class folders, ..., and the map they went through."""
        return "unlabelled" if self.annotation is None else self.annotation.source

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of each chosen image's place, bytes and label, the class names and the augmentation; not the path.

        Costs one reading of the images, without decoding.
        """
        digest = hashlib.sha256(repr((len(self), self.classes, self.labels is None)).encode())
        if self.augmentation is not None:
            digest.update(repr((self.augmentation.augmentation, self.augmentation.seed)).encode())
        if self.decoding.bits is not None:
            digest.update(repr(("bits", self.decoding.bits)).encode())
        for index, position in enumerate(self.positions.tolist()):
            try:
                content = self.pictures.content(position)
            except BrokenImage as error:
                content = f"broken: {error.reason}".encode()
            label = None if self.labels is None else int(self.labels[index])
            digest.update(repr((position, label, len(content))).encode())
            digest.update(content)
        return digest.hexdigest()

    def read(self, index: int) -> Image.Image:
        """Image number `index`, in mode `L` if it is grey and `RGB` otherwise; `BrokenImage` if it cannot be read."""
        return self.pictures.read(int(self.positions[index]), self.decoding)

    def batch_count(self, batch_size: int) -> int:
        """How many batches of `batch_size` the images make; the last may be smaller."""
        if batch_size < 1:
            raise UserError(f"a batch needs at least one image, not {batch_size}.")
        return -(-len(self) // batch_size)

    def batches(
        self, transform: Transform, batch_size: int, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        """Batches number `start` to `stop` - 1 of `batch_size` images each, transformed and stacked.

        A batch is a fixed slice of the images, whatever the range; broken images are left out of their batch and named
        in it. About one batch is decoded ahead in background threads, which end with the iterator. Raises `UserError`
        once this iteration has met more than `max_broken` broken images.
        """
        count = self.batch_count(batch_size)
        first, last = max(start, 0), count if stop is None else min(stop, count)
        walk = self._batches if self.augmentation is None else self._augmented_batches
        return walk(transform, batch_size, first, last)

    def _batches(self, transform: Transform, batch_size: int, start: int, stop: int) -> Iterator[Batch]:
        indices = range(start * batch_size, min(stop * batch_size, len(self)))
        broken: list[Broken] = []
        with closing(ahead(lambda index: self._load(index, transform), indices, batch_size)) as loaded:
            for batch_start in indices[::batch_size]:
                rows = list(islice(loaded, batch_size))
                broken += [row for row in rows if isinstance(row, Broken)]
                self.check_broken(broken)
                yield self._collate(rows, batch_start, transform)

    def _augmented_batches(self, transform: Transform, batch_size: int, start: int, stop: int) -> Iterator[Batch]:
        broken: list[Broken] = []
        for number in range(start, stop):
            indices = range(number * batch_size, min((number + 1) * batch_size, len(self)))
            rows, targets = self._augmented_rows(indices, transform)
            broken += [row for row in rows if isinstance(row, Broken)]
            self.check_broken(broken)
            batch = self._collate(rows, indices.start, transform)
            yield replace(batch, targets=torch.stack(targets) if targets else None)

    def _augmented_rows(
        self, indices: range, transform: Transform
    ) -> tuple[list[Tensor | Broken], list[Float[Tensor, " classes"]]]:
        """The images with those they are mixed with: decoded in threads, augmented here, which needs global states."""
        changing = self.augmentation
        assert changing is not None, "only called if there is an augmentation"
        partners = {index: changing.partner(index, self.positions) for index in indices}
        needed = sorted({*indices, *(one for one in partners.values() if one is not None)})
        inputs: dict[int, Tensor | Broken] = {}
        with closing(ahead(self._picture, needed, len(indices))) as pictures:
            for index, picture in zip(needed, pictures, strict=True):
                whole = not isinstance(picture, Broken)
                position = int(self.positions[index])
                inputs[index] = transform(changing.change_picture(picture, position)) if whole else picture
        rows: list[Tensor | Broken] = []
        targets: list[Float[Tensor, " classes"]] = []
        for index, partner in partners.items():
            row, share = inputs[index], 1.0
            other = None if partner is None else inputs[partner]
            if isinstance(row, Tensor) and isinstance(other, Tensor):  # a broken partner leaves an image unmixed
                row, share = changing.mix(row, other, int(self.positions[index]))
            rows.append(row)
            if self.annotation is not None and changing.softens and isinstance(row, Tensor):
                mixed_in = partner if isinstance(other, Tensor) else None
                targets.append(self._target(self.annotation, changing, index, mixed_in, share))
        return rows, targets

    def _target(
        self, annotation: Labels, changing: Augmenting, index: int, partner: int | None, share: float
    ) -> Float[Tensor, " classes"]:
        second = None if partner is None else int(annotation.values[partner])
        return changing.target(int(annotation.values[index]), second, share, annotation.count)

    def _picture(self, index: int) -> Image.Image | Broken:
        try:
            return self.read(index)
        except BrokenImage as error:
            return Broken(error.name, error.reason)

    def _load(self, index: int, transform: Transform) -> Tensor | Broken:
        picture = self._picture(index)
        return picture if isinstance(picture, Broken) else transform(picture)

    def _collate(self, rows: Sequence[Tensor | Broken], first: int, transform: Transform) -> Batch:
        whole = [(first + offset, row) for offset, row in enumerate(rows) if isinstance(row, Tensor)]
        indices = torch.tensor([index for index, _ in whole], dtype=torch.int64)
        shapes = {tuple(row.shape): index for index, row in whole}
        if len(shapes) > 1:
            shown = " and ".join("x".join(map(str, shape)) for shape in list(shapes)[:2])
            raise UserError(f"the transform made images of different sizes ({shown}) of {self.name}: it must resize.")
        # If all are broken, a blank image gives the shape of the empty batch.
        stacked = [row for _, row in whole] or [transform(Image.new("RGB", (32, 32)))]
        pixels = torch.stack(stacked)[: len(whole)]
        labels = None if self.labels is None else torch.from_numpy(self.labels)[indices]
        return Batch(pixels, labels, indices, tuple(row for row in rows if isinstance(row, Broken)))

    def check_broken(self, broken: Sequence[Broken]) -> None:
        """Raise `UserError` if these are more broken images than `max_broken` allows."""
        if len(broken) > self.max_broken:
            shown = "; ".join(f"{each.name}: {each.reason}" for each in broken[:3])
            raise UserError(
                f"{len(broken)} broken {'image' if len(broken) == 1 else 'images'} met in {self.name} ({shown}"
                f"{'; ...' if len(broken) > 3 else ''}), more than the {self.max_broken} that --max-broken allows: "
                "mend or remove them, or raise --max-broken."
            )

    def sample(self, limit: int, seed: int = 0) -> "Images":
        """At most `limit` of the images, each class in proportion; with one seed, a smaller sample lies in a larger."""
        return self.take(subset(self.labels, len(self), limit, seed))

    def take(self, indices: Int[np.ndarray, "taken"]) -> "Images":
        """The images with these numbers, which must be sorted."""
        taken = None if self.annotation is None else self.annotation.take(indices)
        return replace(self, positions=self.positions[indices], annotation=taken)

    def augment(self, augmentation: Augmentation, seed: int = 0) -> "Images":
        """The images as training would show them, with soft targets if `augmentation` makes them.

        Each image's crop, mirroring, RandAugment, partner and weight in mixing follow from `seed` and its place in
        the source, so batch size, order and workers have no influence. Top-1 accuracy is still against the image's own
        class. Cost: decoding, and about 0.2 ms, of each image and its partner.
        """
        return replace(self, augmentation=Augmenting(augmentation, seed), name=f"{self.name}, augmented")

    def for_classes(self, count: int, names: tuple[str, ...] | None) -> "Images":
        """The images with labels as class numbers of a model of `count` classes called `names` (None: unknown).

        If both name their classes, labels are put into the model's order by name. Raises `UserError` for a label
        that the model has no class for, for names whose order is not certain, and for classes that are not evidently
        the model's unless the user chose the labels by column or map.
        """
        if self.annotation is None:
            return self
        augmentation = self.augmentation and replace(self.augmentation, classes=count)
        annotation = fit_labels(self.annotation, count, names, self.name)
        notes = tuple(dict.fromkeys((*self.notes, *annotation.notes)))
        return replace(self, annotation=annotation, augmentation=augmentation, notes=notes)
