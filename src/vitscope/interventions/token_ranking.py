"""Rankings of patch tokens; those of the largest score are kept first."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor
from typing_extensions import override

from vitscope.interventions.token_unit import cells_of
from vitscope.measurement.errors import UserError
from vitscope.models.attention import Attention
from vitscope.models.stream import Stream
from vitscope.models.written import WRITTEN
from vitscope.numerics.precision import to_float64

PIXELS = "pixels"
"""The key under which a stream carries the images, for rankings that read them."""


class Reads(Enum):
    """What a ranking needs besides the stream."""

    NOTHING = "nothing"
    ATTENTION = "the attention of the unit by which tokens are ranked"
    PIXELS = "the images, which travel with the stream"


class AbstractRanking(ABC):
    """Scores of the patch tokens of a stream; a frozen value and a pure function of each image alone."""

    @property
    def reads(self) -> Reads:
        """What it needs besides the stream."""
        return Reads.NOTHING

    @property
    @abstractmethod
    def label(self) -> str:
        """Its description for a run's spec: the same for equal rankings, and only for them."""

    def __repr__(self) -> str:
        """Its label, which is the same in every process."""
        return f"<{self.label}>"

    @abstractmethod
    def __call__(self, stream: Stream, attention: Attention | None) -> Num[Tensor, "batch patches"]:
        """A score for every patch; the largest are kept, and among equals the first."""


@WRITTEN.add("by-attention")
@final
@dataclass(frozen=True, repr=False)
class ByAttention(AbstractRanking):
    r"""The attention that a patch receives from the class token, mean over heads.

    .. math:: s_j = \frac{1}{H} \sum_h A^h_{0j}

    Without a class token it is the attention that the patch receives on average from all patches:
    :math:`\frac{1}{HN} \sum_h \sum_i A^h_{ij}`. The weights are the softmax's, over all tokens, prefix included. Cost:
    a product of one query with all keys, or of all queries without class token.
    """

    @property
    @override
    def reads(self) -> Reads:
        return Reads.ATTENTION

    @property
    @override
    def label(self) -> str:
        return "attention"

    def __call__(self, stream: Stream, attention: Attention | None) -> Float[Tensor, "batch patches"]:
        """Mean weights, from 0 to 1."""
        assert attention is not None, "the unit that ranks by attention projects it"
        first, stop = (0, 1) if stream.prefix and stream.class_token else (stream.prefix, attention.queries.shape[3])
        bias = attention.bias
        rows = replace(
            attention,
            queries=attention.queries[..., first:stop, :],
            query_tokens=attention.query_tokens[:, first:stop],
            bias=bias[..., first:stop, :] if bias is not None and bias.shape[-2] > 1 else bias,
            gate=None,
        )
        return rows.weights()[:, 0, :, :, stream.prefix :].mean((1, 2))


@WRITTEN.add("by-norm")
@final
@dataclass(frozen=True, repr=False)
class ByNorm(AbstractRanking):
    """The Euclidean norm of the patch's token as it enters the unit, in the stream's units."""

    @property
    @override
    def label(self) -> str:
        return "norm"

    def __call__(self, stream: Stream, attention: Attention | None) -> Float[Tensor, "batch patches"]:
        """The norm of every patch."""
        del attention
        return torch.linalg.vector_norm(stream.patches, dim=-1)


@WRITTEN.add("at-random")
@final
@dataclass(frozen=True, repr=False)
class AtRandom(AbstractRanking):
    """At random, uniformly and anew for each image.

    The scores depend only on ``seed``, the CRC-32 of the image's float32 values as they enter the model, and the grid
    cell, not on batches, order, workers or other images. What is kept at a smaller share is among what is kept at a
    larger one, and a later choice with the same seed uses the same scores. Cost: some 0.3 ms an image of 3 x 224 x 224.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"The seed is {self.seed}; it must be 0 or more.")

    @property
    @override
    def reads(self) -> Reads:
        return Reads.PIXELS

    @property
    def label(self) -> str:
        """Its name and seed."""
        return f"random, seed {self.seed}"

    def __call__(self, stream: Stream, attention: Attention | None) -> Float[Tensor, "batch patches"]:
        """Random numbers from 0 to 1."""
        del attention
        pixels, cells = stream.carried[PIXELS].detach().float().cpu().contiguous().numpy(), cells_of(stream)
        drawn = np.empty((len(pixels), stream.grid[0] * stream.grid[1]), np.float32)
        for row, image in zip(drawn, pixels, strict=True):
            generator = np.random.Generator(np.random.PCG64((self.seed, zlib.crc32(image.tobytes()))))
            row[:] = generator.random(len(row), np.float32)
        return torch.from_numpy(drawn).to(cells.device).gather(1, cells)


@WRITTEN.add("by-mask")
@final
@dataclass(frozen=True, eq=False, repr=False)  # tensors are compared by identity
class ByMask(AbstractRanking):
    """User-given scores of the grid's cells, or a mask (True is kept first); the same for all images."""

    scores: Shaped[Tensor, "height width"]

    @property
    def label(self) -> str:
        """Its shape and the CRC-32 of its values."""
        numbers = to_float64(self.scores.detach()).cpu().contiguous().numpy()
        return f"mask {tuple(self.scores.shape)} {zlib.crc32(numbers.tobytes()):08x}"

    def __call__(self, stream: Stream, attention: Attention | None) -> Num[Tensor, "batch patches"]:
        """The scores of the patches' cells. Raises ``UserError`` if the grid differs."""
        del attention
        if tuple(self.scores.shape) != stream.grid:
            raise UserError(
                f"The mask is {tuple(self.scores.shape)}; the model's patches form a grid of {stream.grid}."
            )
        cells = cells_of(stream)
        return self.scores.to(cells.device).flatten().float()[cells]


PixelScores = Callable[[Float[Tensor, "batch channels height width"]], Shaped[Tensor, "batch rows columns"]]


@final
@dataclass(frozen=True, repr=False)
class ByPixels(AbstractRanking):
    """Scores of each image's grid cells by a function of the user's: an oracle.

    ``function`` gets the images as they enter the model, and returns a score (or True) for every cell of the grid; an
    image's scores must depend on that image alone.
    """

    function: PixelScores

    def __post_init__(self) -> None:
        if "<lambda>" in getattr(self.function, "__qualname__", ""):
            raise UserError("A lambda has no name to identify its run by; give a function with a name.")

    @property
    @override
    def reads(self) -> Reads:
        return Reads.PIXELS

    @property
    def label(self) -> str:
        """The function's name, or the representation of a callable value."""
        name = getattr(self.function, "__qualname__", None)
        return f"pixels {self.function.__module__}.{name}" if name else f"pixels {self.function!r}"

    def __call__(self, stream: Stream, attention: Attention | None) -> Num[Tensor, "batch patches"]:
        """The scores of the patches' cells. Raises ``UserError`` if they do not fit the grid."""
        del attention
        scores, expected = self.function(stream.carried[PIXELS]), (stream.patches.shape[0], *stream.grid)
        if tuple(scores.shape) != expected:
            raise UserError(f"{self.label} gave scores of shape {tuple(scores.shape)}; the patches are {expected}.")
        return scores.flatten(1).float().gather(1, cells_of(stream))


@WRITTEN.add("worst")
@final
@dataclass(frozen=True, repr=False)
class Worst(AbstractRanking):
    """The reverse: what ``ranking`` would remove first is kept first. An adversarial control."""

    ranking: AbstractRanking

    @property
    @override
    def label(self) -> str:
        return f"worst by {self.ranking.label}"

    @property
    def reads(self) -> Reads:
        """What the ranking reads."""
        return self.ranking.reads

    def __call__(self, stream: Stream, attention: Attention | None) -> Num[Tensor, "batch patches"]:
        """The negated scores."""
        return -self.ranking(stream, attention)
