"""The principal components of token features: fitted batch by batch in float64, stored in a file."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
from scipy.linalg import eigh
from torch import Tensor

from vitscope.numerics.moments import Scatter, scatter
from vitscope.runs.whole import write_whole


@final
@dataclass(frozen=True, eq=False)
class Projection:
    """``tokens -> (tokens - mean) components``; the columns of ``components`` are orthonormal."""

    mean: Float[Tensor, " dim"]
    components: Float[Tensor, "dim width"]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of mean and components."""
        return hashlib.sha256(self._content).hexdigest()

    @property
    def _content(self) -> bytes:
        tensors = {"mean": self.mean, "components": self.components}
        return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})

    def write(self, path: Path) -> None:
        """Write a ``.safetensors`` file, whole or not at all."""
        write_whole(path, self._content)


def read_projection(path: Path) -> Projection:
    """The projection that :meth:`Projection.write` wrote."""
    return Projection(**load_file(path))


def principal_components(batches: Iterable[Float[Tensor, "rows dim"]], width: int) -> Projection:
    """The ``width`` directions in which the rows vary most, the largest variance first.

    Eigenvectors of the covariance in float64; in each, the entry of largest size (the first of several) is positive.
    Needs at least one row, and ``width`` at most ``dim``. Cost: one pass, and a decomposition of ``dim x dim``.
    """
    found = reduce(Scatter.merge, map(scatter, batches))
    covariance = found.products.cpu().numpy() / int(found.count)
    dim = len(covariance)
    _, ascending = eigh(covariance, subset_by_index=(dim - width, dim - 1))
    components = ascending[:, ::-1]
    largest = components[np.abs(components).argmax(0), np.arange(width)]
    signed = components * np.where(largest < 0, -1.0, 1.0)
    return Projection(found.mean.cpu().float().clone(), torch.tensor(signed, dtype=torch.float32).contiguous())
