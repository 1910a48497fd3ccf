"""The principal components of token features: fitted batch by batch in float64, kept in a file."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float64
from safetensors.torch import load_file, save
from scipy.linalg import eigh
from torch import Tensor

from vitscope.runs.whole import atomic_file


@final
@dataclass(frozen=True, eq=False)
class Projection:
    """``tokens -> (tokens - mean) components``; the columns of ``components`` are orthonormal."""

    mean: Float[Tensor, " dim"]
    components: Float[Tensor, "dim width"]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over both."""
        return hashlib.sha256(self._content).hexdigest()

    @property
    def _content(self) -> bytes:
        tensors = {"mean": self.mean, "components": self.components}
        return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})

    def write(self, path: Path) -> None:
        """Write a ``.safetensors`` file, whole or not at all."""
        with atomic_file(path) as file:
            file.write(self._content)


def read_projection(path: Path) -> Projection:
    """The projection that :meth:`Projection.write` wrote."""
    return Projection(**load_file(path))


@final
@dataclass(frozen=True, eq=False)
class Scatter:
    r"""Count, mean and scatter :math:`S = \sum_i (x_i - \bar x)(x_i - \bar x)^T` of rows, in float64.

    Merged by the update of Chan, Golub and LeVeque (1979), so that nothing but ``dim x dim`` entries is held.
    """

    count: int
    mean: Float64[Tensor, " dim"]
    products: Float64[Tensor, "dim dim"]

    def merge(self, other: "Scatter") -> "Scatter":
        """The scatter of both sets of rows together."""
        count = self.count + other.count
        delta, share = other.mean - self.mean, other.count / count
        between = torch.outer(delta, delta) * (self.count * share)
        return Scatter(count, self.mean + delta * share, self.products + other.products + between)


def scatter(rows: Float[Tensor, "rows dim"]) -> Scatter:
    """The scatter of these rows. Cost: one product of ``rows x dim x dim``."""
    values = rows.double()
    mean = values.mean(0)
    centred = values - mean
    return Scatter(len(values), mean, centred.T @ centred)


def principal_components(batches: Iterable[Float[Tensor, "rows dim"]], width: int) -> Projection:
    """The ``width`` directions in which the rows vary most, the largest variance first.

    Eigenvectors of the covariance in float64; of each, the entry of largest size is positive (the first of them where
    several are). Needs at least one row, and ``width`` at most ``dim``. Cost: one pass, and a decomposition of
    ``dim x dim``.
    """
    found = reduce(Scatter.merge, map(scatter, batches))
    covariance = found.products.cpu().numpy() / found.count
    dim = len(covariance)
    _, ascending = eigh(covariance, subset_by_index=(dim - width, dim - 1))
    components = ascending[:, ::-1]
    largest = components[np.abs(components).argmax(0), np.arange(width)]
    signed = components * np.where(largest < 0, -1.0, 1.0)
    return Projection(found.mean.cpu().float().clone(), torch.tensor(signed, dtype=torch.float32))
