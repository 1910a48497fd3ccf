"""What convex heads are trained and tested on: token features of two disjoint sets of images."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Int
from sklearn.model_selection import train_test_split

from vitscope.convex.features import Features, TokenRecipe, extract
from vitscope.convex.features.extractor import token_shape
from vitscope.data import Images
from vitscope.engine.measure import subject_spec
from vitscope.engine.plan import Progress, silent
from vitscope.engine.work.executor import AbstractExecutor
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Subject
from vitscope.runs.spec import Spec

HELD_OUT = 0.2
"""Share of the images held out for the test if the data have no split for it."""


@dataclass(frozen=True, eq=False)
class HeadImages:
    """The images to train and to test on. ``held_out``: the test images were drawn from those given, by a seed."""

    training: Images
    test: Images
    held_out: bool


@dataclass(frozen=True, eq=False)
class HeadData:
    """Token features of a frozen model on training and test images; the projection is the training images' own."""

    subject: Subject
    images: HeadImages
    recipe: TokenRecipe
    training: Features
    test: Features

    @property
    def grid(self) -> tuple[int, int] | None:
        """Height and width of the tokens; None if prefix tokens come before them."""
        return None if self.training.prefix else self.training.grid

    @property
    def labels(self) -> Int[np.ndarray, " images"]:
        """The labels of the training images."""
        return self.training.targets

    @cached_property
    def test_labels(self) -> Int[np.ndarray, " images"]:
        """The labels of the test images, in the training images' classes."""
        return in_classes(self.test.targets, self.test.classes, self.training.classes, self.images.test.name)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know about the images."""
        notes = [*self.subject.notes, *self.images.training.notes, *self.images.test.notes]
        if self.images.held_out:
            notes.append(
                f"{self.images.training.name} has no split to test on: {len(self.test_labels):,} images, a fifth of "
                "every class, were drawn by the seed and held out for the test."
            )
        unseen = sorted(set(self.test_labels.tolist()) - set(self.labels.tolist()))
        if unseen:
            notes.append(
                f"{len(unseen)} of the test images' classes have no training image, so no head can predict them."
            )
        broken = (*self.training.broken, *self.test.broken)
        return (*dict.fromkeys(notes), *(f"{one.name} was left out: {one.reason}" for one in broken))

    def make_spec(self, verb: str, settings: Mapping[str, object]) -> Spec:
        """The spec of a question about heads on these features."""
        test = self.images.test
        tested = {"name": test.name, "count": len(test), "fingerprint": test.fingerprint}
        tokens = {**asdict(self.recipe), "grid": list(self.training.grid), "tokens": self.training.tokens.shape[1]}
        return subject_spec(
            verb, self.subject, self.images.training, {**settings, "tokens": tokens, "test images": tested}
        )


def divide_images(images: Images, test: Images | None, seed: int) -> HeadImages:
    """The images to train and to test on: without test images, ``seed`` draws a stratified fifth to hold out.

    Raises ``UserError`` if images are unlabelled, or too few to hold some out.
    """
    for one in (images, test):
        if one is not None and one.labels is None:
            raise UserError(f"{one.name} has no labels, which a head needs; name them with --label.")
    if test is not None:
        return HeadImages(images, test, False)
    labels = images.labels
    assert labels is not None
    held = round(HELD_OUT * len(images))
    if held < 1 or held >= len(images):
        raise UserError(f"{images.name} has {len(images)} images, too few to hold some out for a test; give more.")
    sizes = np.unique(labels, return_counts=True)[1]
    stratified = sizes.min() >= 2 and min(held, len(images) - held) >= len(sizes)
    training, tested = train_test_split(
        np.arange(len(images)), test_size=held, random_state=seed, stratify=labels if stratified else None
    )
    return HeadImages(images.take(np.sort(training)), images.take(np.sort(tested)), True)


def head_data(
    subject: Subject,
    images: HeadImages,
    recipe: TokenRecipe,
    *,
    folder: str | Path,
    batch_size: int,
    seed: int,
    progress: Progress = silent,
    executor: AbstractExecutor | None = None,
) -> HeadData:
    """The features of both sides, from ``folder`` or computed and stored there, one side after the other."""
    recipe = fit_recipe(subject, recipe)
    take = partial(extract, folder=folder, batch_size=batch_size, seed=seed, progress=progress, executor=executor)
    training = take(subject, images.training, recipe)
    test = take(subject, images.test, extractor=training.extractor)
    return HeadData(subject, images, recipe, training, test)


def fit_recipe(subject: Subject, recipe: TokenRecipe) -> TokenRecipe:
    """The recipe with its pool and width taken as upper bounds: a model that has less keeps what it has."""
    own = token_shape(subject, TokenRecipe(prefix=recipe.prefix))
    pool = recipe.pool if recipe.pool is not None and recipe.pool < max(own.grid) else None
    width = recipe.width if recipe.width is not None and recipe.width < own.dim else None
    pool = None if pool is None else min(pool, *own.grid)
    return TokenRecipe(pool=pool, width=width, normalise=recipe.normalise, prefix=recipe.prefix)


def in_classes(
    labels: Int[np.ndarray, " images"], names: tuple[str, ...] | None, wanted: tuple[str, ...] | None, source: str
) -> Int[np.ndarray, " images"]:
    """Labels that number ``names``, as numbers of ``wanted``; unchanged if either is unknown.

    Raises ``UserError`` for a class that is not in ``wanted``.
    """
    if names is None or wanted is None or names == wanted:
        return labels
    strange = sorted({names[label] for label in labels.tolist()} - set(wanted))
    if strange:
        raise UserError(
            f"{source} has classes that the training images do not have ({', '.join(strange[:3])}"
            f"{', ...' if len(strange) > 3 else ''}); give images of the same classes, or a --label-map."
        )
    number = {name: place for place, name in enumerate(wanted)}
    return np.array([number[names[label]] for label in labels.tolist()], dtype=np.int64)
