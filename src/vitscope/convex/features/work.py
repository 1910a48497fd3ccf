"""The pass that computes features, as work for any executor: the tokens of images, batch by batch."""

import json
from dataclasses import asdict, dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

from vitscope.convex.features.extractor import TokenExtractor, TokenShape, input_like
from vitscope.convex.features.projection import Projection
from vitscope.convex.features.recipe import TokenRecipe
from vitscope.data import Broken
from vitscope.engine.work.work import AbstractResult, AbstractSubjectWork, Advance, Shard
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Subject


@final
@dataclass(frozen=True, eq=False)
class Rows(AbstractResult):
    """The tokens of the images from ``start`` on; those that could not be read have rows of zeros and are named."""

    start: int
    tokens: Float[Tensor, "images tokens dim"]
    left_out: tuple[tuple[int, Broken], ...]

    @property
    def done(self) -> int:
        """The number of images, including unreadable ones."""
        return len(self.tokens)

    def to_bytes(self) -> bytes:
        """Safetensors, with everything else as JSON."""
        words = json.dumps([self.start, [[place, asdict(broken)] for place, broken in self.left_out]]).encode()
        return save({"tokens": self.tokens, "words": torch.tensor(list(words), dtype=torch.uint8)})


@final
@dataclass(frozen=True)
class RowsWork(AbstractSubjectWork[Rows]):
    """The tokens of images as they are stored. A shard is one batch, so little is lost with it."""

    recipe: TokenRecipe
    projection: Projection | None
    shape: TokenShape
    batch_size: int

    def shards(self) -> tuple[Shard, ...]:
        """One shard for each batch."""
        return tuple(Shard(place, place + 1) for place in range(self.images.batch_count(self.batch_size)))

    def fold(self, shard: Shard, advance: Advance) -> Rows:
        """The rows of one batch."""
        subject, like = self.subject, input_like(self.subject)
        (batch,) = self.images.batches(subject.preprocessing.transform, self.batch_size, shard.start, shard.stop)
        start = shard.start * self.batch_size
        rows = torch.zeros(len(batch) + len(batch.broken), self.shape.tokens, self.shape.dim)
        places = batch.indices.numpy() - start
        if len(batch):
            with torch.inference_mode():
                pixels = batch.pixels.to(like.device, like.dtype)
                tokens = TokenExtractor(subject, self.recipe, self.projection)(pixels).cpu()
            if tokens.shape[1:] != rows.shape[1:]:
                given, wanted = (" x ".join(map(str, one)) for one in (pixels.shape[1:], subject.preprocessing.shape))
                raise UserError(
                    f"The images of {self.images.name} come out as {given}, but {subject.name} declares {wanted}; "
                    "correct its preprocessing."
                )
            refuse_unfinite(tokens, subject, self.images.name)
            rows[places] = tokens
        missing = np.setdiff1d(np.arange(len(rows)), places) + start
        return Rows(start, rows, tuple(zip(missing.tolist(), batch.broken, strict=True)))

    def read(self, content: bytes) -> Rows:
        """The rows whose ``to_bytes`` these are."""
        found = load(content)
        start, left_out = json.loads(bytes(found["words"].tolist()))
        return Rows(start, found["tokens"], tuple((place, Broken(**broken)) for place, broken in left_out))


def refuse_unfinite(tokens: Tensor, subject: Subject, images: str) -> None:
    """Raise ``UserError`` for tokens that are not finite."""
    if not tokens.isfinite().all():
        raise UserError(
            f"{subject.name} gives features that are not finite for images of {images}; "
            "load it in float32, or with sound weights."
        )
