"""Token features as a head sees them: standardised as they are read, so that a memory map stays on disk."""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from numpy.typing import NDArray
from torch import Tensor

from vitscope.measurement.errors import UserError
from vitscope.numerics.moments import Moments, moments

TokenSource = NDArray[Any] | Tensor
"""Tokens of images, ``(images, tokens, dim)``, real numbers of any precision; a memory map counts as an array."""

_CONSTANT = 1e-12
"""An entry varies only by rounding if its standard deviation is at most this share of its mean.

Moments in float64 round at about 1e-16; if one of 1e9 float32 values differs in its last bit the share is 2e-12.
"""


def images_at_once(tokens: int, dim: int) -> int:
    """How many images of this size are read at a time: up to 2^21 entries, to stay in cache."""
    return max(2**21 // (tokens * dim), 1)


@dataclass(frozen=True, eq=False)
class Standardisation:
    """``x -> (x - mean) scale``, entry by entry.

    Both are float64 numbers rounded to float32, so a module that holds them in any precision down to float32 loses
    nothing, and no gate flips.
    """

    mean: Float64[Tensor, " dim"]
    scale: Float64[Tensor, " dim"]

    def __call__(self, tokens: Float64[Tensor, "batch tokens dim"]) -> Float64[Tensor, "batch tokens dim"]:
        """Standardised tokens."""
        return (tokens - self.mean).mul_(self.scale)


def identity_standardisation(tokens: TokenSource) -> Standardisation:
    """The standardisation that leaves these tokens as they are."""
    dim = tokens.shape[2]
    return Standardisation(torch.zeros(dim, dtype=torch.float64), torch.ones(dim, dtype=torch.float64))


def standardisation_of(tokens: TokenSource) -> Standardisation:
    """Every entry to mean 0 and variance ``1 / dim`` over images and tokens, so that a token's norm is about 1.

    An entry that never varies is left out (scale 0). Cost: one pass, with only one chunk in memory. Raises
    ``UserError`` for numbers that are not finite.
    """
    dim = tokens.shape[2]
    size = images_at_once(tokens.shape[1], dim)
    starts = range(0, len(tokens), size)
    chunks = (_read(tokens, slice(start, start + size)).flatten(0, 1) for start in starts)
    seen = reduce(Moments.merge, map(moments, chunks))
    mean, deviation = seen.mean, (seen.squares / seen.count).sqrt()
    varies = deviation > _CONSTANT * mean.abs()
    scale = torch.where(varies, 1 / (torch.where(varies, deviation, 1.0) * dim**0.5), 0.0)
    return Standardisation(mean.float().double(), scale.float().double())


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens, standardised when a slice of images is taken; ``index`` selects images of the source.

    Taking a slice raises ``UserError`` for numbers that are not finite.
    """

    source: TokenSource
    standardisation: Standardisation
    index: Int[np.ndarray, " images"] | None = None

    def __len__(self) -> int:
        return len(self.source) if self.index is None else len(self.index)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Images, tokens, entries."""
        return (len(self), self.source.shape[1], self.source.shape[2])

    def __getitem__(self, images: slice) -> Float[Tensor, "batch tokens dim"]:
        """The standardised tokens of these images, in float64."""
        return self.standardisation(_read(self.source, images if self.index is None else self.index[images]))

    def select(self, index: Int[np.ndarray, " images"]) -> "Tokens":
        """The tokens of only these images of the source."""
        return Tokens(self.source, self.standardisation, index)


def _read(tokens: TokenSource, images: slice | NDArray[np.int64]) -> Tensor:
    if isinstance(tokens, Tensor):
        part = tokens[images if isinstance(images, slice) else torch.as_tensor(images, device=tokens.device)]
        chunk = part.detach().to("cpu", torch.float64)
    else:
        chunk = torch.from_numpy(np.array(tokens[images], dtype=np.float64))  # a copy: maps may be read-only
    if not chunk.sum().isfinite() and not (fine := chunk.isfinite().flatten(1).all(1)).all():
        worst = np.arange(len(tokens))[images][int(fine.logical_not().nonzero()[0])]
        raise UserError(f"The tokens of image {worst} hold NaN or infinity; leave it out or repair it.")
    return chunk
