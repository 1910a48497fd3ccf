"""``extract``: token features of a frozen model on images, computed once and kept on disk."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.convex.features.extractor import (
    TokenExtractor,
    TokenShape,
    input_like,
    kept_tokens,
    last_stream,
    token_shape,
)
from vitscope.convex.features.projection import Projection, principal_components
from vitscope.convex.features.recipe import TokenRecipe
from vitscope.convex.features.store import PROJECTION, Features, Store, Walked
from vitscope.data import Batch, Images
from vitscope.engine.measure import subject_spec
from vitscope.engine.plan import Progress, silent
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Subject
from vitscope.runs.hold import held
from vitscope.runs.provenance import provenance
from vitscope.runs.spec import Spec
from vitscope.runs.whole import local_path

SAMPLE = 512
"""Images on which principal components are fitted, at most."""

_FIT_BATCH = 16
"""Images a batch of the fit, whatever the pass has: components that nearly tie would turn with the rounding."""


def extract(
    subject: Subject,
    images: Images,
    recipe: TokenRecipe | None = None,
    *,
    folder: str | Path,
    extractor: TokenExtractor | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress = silent,
) -> Features:
    """Token features of the images, from ``folder/<address>/`` if they are there, else computed and kept there.

    With ``extractor``, that of other features of the same model (the training images'), its recipe and projection are
    used again. Otherwise the principal components that ``recipe.width`` asks for are fitted first, on at most 512 of
    the images, drawn by ``seed``. The address is a hash of the model's weights, edits and units, of the images'
    content and labels, of the recipe, and of where the projection comes from: sample and seed, or its own content.

    An interrupt, a full disk or a crash loses one batch at most: the next call goes on from there, with any
    ``batch_size``, which changes the features by rounding only. Images that cannot be read get no row and are named
    in ``broken``, up to the images' own ``max_broken``. The subject is not changed. ``progress`` is told the images
    done and their total, those of the fit included. Cost: one pass of the model over the images without its tail, the
    sample once more with ``width``, memory for a batch, ``images x tokens x dim`` float32 on disk; for finished
    features one reading of weights and images.

    Raises ``UserError`` where the subject is random or has no tokens that the recipe can keep, the extractor is of
    another model or recipe, features are not finite, or the disk is full.
    """
    if batch_size < 1:
        raise UserError(f"The batch size is {batch_size}; it must be at least 1.")
    extraction = _Extraction(subject, images, _recipe(subject, recipe, extractor), extractor, seed)
    store = Store(local_path(folder, "Features are") / extraction.spec.address)
    if not store.finished:
        with held(store.path, "give another folder for the features"):
            if not store.finished:  # by whoever held it before
                extraction.fill(store, batch_size, progress)
    return store.read(subject, extraction.recipe)


def _recipe(subject: Subject, recipe: TokenRecipe | None, extractor: TokenExtractor | None) -> TokenRecipe:
    """The recipe to follow; an extractor must be of this model and, where one is given, of this recipe."""
    if extractor is None:
        return recipe or TokenRecipe()
    if not _same(extractor.subject, subject):
        raise UserError(
            f"The extractor was made for {extractor.subject.name} with other weights, edits or input than those of "
            f"{subject.name}; give the one of features of this model."
        )
    if recipe not in (None, extractor.recipe):
        raise UserError(f"The extractor was made with {extractor.recipe}, not {recipe}; leave the recipe out.")
    return extractor.recipe


def _same(one: Subject, other: Subject) -> bool:
    def identity(subject: Subject) -> tuple[object, ...]:
        return subject.fingerprint, repr(subject.edits), subject.places, subject.preprocessing.text

    return one is other or identity(one) == identity(other)


@final
@dataclass(frozen=True)
class _Extraction:
    """What is to be extracted."""

    subject: Subject
    images: Images
    recipe: TokenRecipe
    extractor: TokenExtractor | None
    seed: int

    @property
    def given(self) -> Projection | None:
        """The projection that is used again."""
        return None if self.extractor is None else self.extractor.projection

    @property
    def sample(self) -> int:
        """How many images the projection is fitted on; 0 where none is fitted."""
        return 0 if self.recipe.width is None or self.given is not None else min(SAMPLE, len(self.images))

    @cached_property
    def spec(self) -> Spec:
        """The question that is asked.

        A fitted projection stands in it by its sample and seed, by which it is found before it is fitted.
        """
        fitted = {"images": self.sample, "seed": self.seed} if self.sample else None
        projection = fitted if self.given is None else self.given.fingerprint
        return subject_spec("features", self.subject, self.images, {**asdict(self.recipe), "projection": projection})

    def fill(self, store: Store, batch_size: int, progress: Progress) -> None:
        """Compute what the store has not yet, and finish it."""
        started = time.perf_counter()
        shape = token_shape(self.subject, self.recipe)
        done = store.walked()
        done = done.back_to(done.images // batch_size * batch_size if done.images < len(self.images) else done.images)
        try:
            store.path.mkdir(parents=True, exist_ok=True)
            store.refuse_without_room(shape.row_bytes * (len(self.images) - done.images))
            extractor = TokenExtractor(self.subject, self.recipe, self._projection(store, progress))
            walked = self._pass(store, extractor, shape, done, batch_size, progress)
            origin = json.loads(provenance(time.perf_counter() - started, ""))
            store.finish({"spec": asdict(self.spec), "provenance": origin}, walked, self.images, shape)
        except OSError as error:
            raise UserError(
                f"The features in {store.path} cannot be written ({error.strerror or error}) after "
                f"{store.walked().images} of {len(self.images)} images; put that right and extract again, which goes "
                "on from there."
            ) from error

    def _projection(self, store: Store, progress: Progress) -> Projection | None:
        """The one given, kept by an interrupted attempt, or fitted now; it is put into the store."""
        if self.recipe.width is None:
            return None
        projection = store.projection() or self.given
        if projection is None:
            sampled = self.images.sample(SAMPLE, self.seed)
            projection = principal_components(self._rows(sampled, progress), self.recipe.width)
        projection.write(store.path / PROJECTION)
        return projection

    def _rows(self, sampled: Images, progress: Progress) -> Iterator[Float[Tensor, "rows dim"]]:
        """The tokens of the sampled images before projection, batch by batch."""
        like, total, done = input_like(self.subject), self.sample + len(self.images), 0
        recipe = replace(self.recipe, width=None)
        progress(0, total)
        for batch in sampled.batches(self.subject.preprocessing.transform, _FIT_BATCH):
            if len(batch):
                with torch.inference_mode():
                    stream = last_stream(self.subject.anatomy, batch.pixels.to(like.device, like.dtype))
                    tokens = kept_tokens(stream, recipe)
                self._refuse_unfit(tokens, None, batch)
                yield tokens.flatten(0, 1)
            done += len(batch) + len(batch.broken)
            progress(done, total)

    def _pass(
        self,
        store: Store,
        extractor: TokenExtractor,
        shape: TokenShape,
        walked: Walked,
        batch_size: int,
        progress: Progress,
    ) -> Walked:
        """Rows of all images that are not done, batch by batch."""
        like, total = input_like(self.subject), self.sample + len(self.images)
        progress(self.sample + walked.images, total)
        transform, first = self.subject.preprocessing.transform, -(-walked.images // batch_size)
        with store.rows(len(self.images), shape) as rows:
            for batch in self.images.batches(transform, batch_size, first):
                tokens = torch.empty(0, shape.tokens, shape.dim)
                if len(batch):
                    with torch.inference_mode():
                        tokens = extractor(batch.pixels.to(like.device, like.dtype)).cpu()
                self._refuse_unfit(tokens, shape, batch)
                after = walked.after(len(batch) + len(batch.broken), batch.indices.tolist(), batch.broken)
                self.images.check_broken(after.broken)
                rows.put(tokens.numpy(), walked, after)
                walked = after
                progress(self.sample + walked.images, total)
        if not walked.rows:
            raise UserError(f"None of the {len(self.images)} images of {self.images.name} could be read.")
        return walked

    def _refuse_unfit(self, tokens: Float[Tensor, "batch tokens dim"], shape: TokenShape | None, batch: Batch) -> None:
        name = self.images.name
        if shape is not None and tokens.shape[1:] != (shape.tokens, shape.dim):
            given = " x ".join(map(str, batch.pixels.shape[1:]))
            wanted = " x ".join(map(str, self.subject.preprocessing.shape))
            raise UserError(f"The images of {name} come out as {given}, where {self.subject.name} says {wanted}.")
        if not tokens.isfinite().all():
            raise UserError(
                f"{self.subject.name} gives features that are not finite for images of {name}; "
                "load it in float32, or with sound weights."
            )
