"""``extract``: token features of a frozen model on images, computed once and stored on disk."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitscope.convex.features.extractor import TokenExtractor, input_like, kept_tokens, last_stream, token_shape
from vitscope.convex.features.projection import Projection, principal_components
from vitscope.convex.features.recipe import TokenRecipe
from vitscope.convex.features.store import PROJECTION, Features, Store, StoredPart
from vitscope.convex.features.work import RowsWork, refuse_unfinite
from vitscope.data import Broken, Images
from vitscope.engine.measure import subject_spec
from vitscope.engine.plan import Progress, silent
from vitscope.engine.work.executor import AbstractExecutor, InProcess
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Subject
from vitscope.runs.hold import hold_folder
from vitscope.runs.provenance import provenance
from vitscope.runs.spec import Spec
from vitscope.runs.whole import local_path

SAMPLE = 512
"""Principal components are fitted on at most this many images."""

_FIT_BATCH = 16
"""Batch size of the fit, whatever that of the pass: other rounding would turn components that nearly tie."""


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
    executor: AbstractExecutor | None = None,
) -> Features:
    """Token features of the images, from ``folder/<address>/`` if they are there, else computed and stored there.

    ``extractor`` comes from other features of the same model (the training images'); its recipe and projection are
    used again. Otherwise the principal components that ``recipe.width`` requests are fitted first, on at most 512 of
    the images, drawn by ``seed``. The address is a hash of the model's weights, edits and units, of the images'
    content and labels, of the recipe, and of where the projection comes from: sample and seed, or its own content.

    An interrupt, a full disk or a crash loses only the batches under way: the next call continues from there, with any
    ``batch_size``, which changes the features only by rounding. ``executor`` runs the batches, this process by default.
    Images that cannot be read get no row and are named in ``broken``, up to the images' own ``max_broken``. The subject
    is not changed. ``progress`` is called with the images done and their total, including those of the fit. Cost: one
    pass of the model over the images without its tail, the sample once more with ``width``, memory for a batch,
    ``images x tokens x dim`` float32 on disk; for finished features one reading of weights and images.

    Raises ``UserError`` if the subject is random or has no tokens that the recipe can keep, the extractor belongs to
    another model or recipe, features are not finite, or the disk is full.
    """
    if batch_size < 1:
        raise UserError(f"The batch size is {batch_size}; it must be at least 1.")
    extraction = _Extraction(subject, images, _recipe(subject, recipe, extractor), extractor, seed)
    store = Store(local_path(folder, "Features are") / extraction.spec.address, extraction.spec)
    if not store.finished or (store.path / "partial").exists():
        with hold_folder(store.path, "give another folder for the features"), store.folder.hold():
            if not store.finished:  # another process may have finished it meanwhile
                extraction.fill(store, batch_size, executor or InProcess(), progress)
            store.drop_parts()
    return store.read(subject, extraction.recipe)


def _recipe(subject: Subject, recipe: TokenRecipe | None, extractor: TokenExtractor | None) -> TokenRecipe:
    """The recipe to follow; an extractor must be of this model and of the recipe, if one is given."""
    if extractor is None:
        return recipe or TokenRecipe()
    if not _same(extractor.subject, subject):
        raise UserError(
            f"The extractor was made for {extractor.subject.name} with other weights, edits or input than those of "
            f"{subject.name}; give the extractor of features of this model."
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
    """What to extract, from which images, and how."""

    subject: Subject
    images: Images
    recipe: TokenRecipe
    extractor: TokenExtractor | None
    seed: int

    @property
    def given_projection(self) -> Projection | None:
        """The projection to use again, if there is one."""
        return None if self.extractor is None else self.extractor.projection

    @property
    def sample(self) -> int:
        """How many images the projection is fitted on; 0 if none is fitted."""
        return 0 if self.recipe.width is None or self.given_projection is not None else min(SAMPLE, len(self.images))

    @cached_property
    def spec(self) -> Spec:
        """The content that addresses the features.

        A fitted projection is given by its sample and seed, so that it is found before it is fitted.
        """
        fitted = {"images": self.sample, "seed": self.seed} if self.sample else None
        projection = fitted if self.given_projection is None else self.given_projection.fingerprint
        return subject_spec("features", self.subject, self.images, {**asdict(self.recipe), "projection": projection})

    def fill(self, store: Store, batch_size: int, executor: AbstractExecutor, progress: Progress) -> None:
        """Compute what the store lacks, and finish it."""
        started, count = time.perf_counter(), len(self.images)
        shape = token_shape(self.subject, self.recipe)
        parts = store.read_parts(shape)
        try:
            store.path.mkdir(parents=True, exist_ok=True)
            store.refuse_without_room(shape.row_bytes * (count - int(_covered_images(parts, count).sum())))
            projection = self._projection(store, progress)
            work = RowsWork(self.subject, self.images, self.recipe, projection, shape, batch_size)
            self._pass(store, work, parts, executor, progress)
            origin = json.loads(provenance(time.perf_counter() - started, ""))
            store.finish({"spec": asdict(self.spec), "provenance": origin}, parts, self.images, shape)
        except OSError as error:
            raise UserError(
                f"The features in {store.path} cannot be written ({error.strerror or error}) after "
                f"{_covered_images(parts, count).sum()} of {count} images; fix that and extract again, which "
                "continues from there."
            ) from error

    def _projection(self, store: Store, progress: Progress) -> Projection | None:
        """The projection, stored by an interrupted attempt, given, or fitted now; it is written to the store."""
        if self.recipe.width is None:
            return None
        projection = store.projection() or self.given_projection
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
                refuse_unfinite(tokens, self.subject, self.images.name)
                yield tokens.flatten(0, 1)
            done += len(batch) + len(batch.broken)
            progress(done, total)

    def _pass(
        self, store: Store, work: RowsWork, parts: list[StoredPart], executor: AbstractExecutor, progress: Progress
    ) -> None:
        """Compute the rows of all images that no part vouches for, and append the new parts to ``parts``."""
        images, total = self.images, self.sample + len(self.images)
        covered = _covered_images(parts, len(images))
        images_of = {
            shard: slice(shard.start * work.batch_size, shard.stop * work.batch_size) for shard in work.shards()
        }
        missing = [shard for shard, some in images_of.items() if not covered[some].all()]
        done = len(images) - sum(len(covered[images_of[shard]]) for shard in missing)
        progress(self.sample + done, total)
        with closing(executor.fold(work, missing, lambda _: None)) as finished:
            for _, rows in finished:
                parts.append(store.put(rows, len(images), work.shape))
                images.check_broken(_broken_images(parts))
                done += rows.done
                progress(self.sample + done, total)
        if len(_broken_images(parts)) == len(images):
            raise UserError(f"None of the {len(images)} images of {images.name} could be read.")


def _covered_images(parts: Iterable[StoredPart], images: int) -> Bool[np.ndarray, " images"]:
    """Which images the parts vouch for."""
    covered = np.zeros(images, dtype=bool)
    for part in parts:
        covered[part.start : part.stop] = True
    return covered


def _broken_images(parts: Iterable[StoredPart]) -> tuple[Broken, ...]:
    """The images that could not be read, each once."""
    found = {one.index: Broken(one.name, one.reason) for part in parts for one in part.left_out}
    return tuple(found[index] for index in sorted(found))
