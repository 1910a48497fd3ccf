r"""Cones: the largest :math:`\lVert A u \rVert` over unit vectors of polyhedral cones, found exactly or bounded."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from scipy.optimize import nnls
from torch import Tensor

from vitscope.convex.arrangements import Faces

ROUNDING = 1e-9
"""A vector counts as inside a half-space if it is at most this far outside, relative to its length.

It is far above the rounding of singular vectors in float64, so none inside is missed. The length at a vector just
outside is at least the largest in the cone and about this share above it at most: the norm errs on the safe side.
"""


@dataclass(frozen=True, eq=False)
class Peaks:
    """Unit vectors at which the length is largest along a face, highest first."""

    values: Float64[Tensor, " peaks"]
    vectors: Float64[Tensor, "peaks dim"]


def peaks(
    faces: tuple[Faces, ...],
    normals: Float64[Tensor, "rows dim"],
    maps: Callable[[Float64[Tensor, "vectors dim"]], Float64[Tensor, "vectors out dim"]],
    batch: int = 8192,
) -> Peaks:
    r"""The faces' top singular vectors that lie in their cone; the first has the largest :math:`\lVert A u \rVert`.

    ``maps`` gives the linear map of each cone from a vector inside it or one of its faces. If neither sign of the top
    singular vector of a cone's map lies in the cone, the largest length is also attained on the boundary: it does not
    fall on the way from a point inside to the singular vector. So the largest of all is attained at a singular vector
    on the subspace of some face, inside that face: exact in any number of dimensions. In two, faces are arcs and ends.

    Cost: a singular value decomposition of a small matrix for each face.
    """
    values: list[Tensor] = []
    vectors: list[Tensor] = []
    for face in faces:
        for inside, bases in zip(face.vectors.split(batch), face.bases.split(batch), strict=True):
            tops = _tops(maps(inside), bases)
            sides = (inside @ normals.T).sign() * (tops @ normals.T)
            sides = torch.where((normals @ bases).norm(dim=2) > ROUNDING, sides, 0.0)
            sign = (sides.amin(1) >= -ROUNDING).double() - (sides.amax(1) <= ROUNDING).double()
            found = tops * sign[:, None]
            found = found[sign != 0]
            values.append((maps(inside[sign != 0]) @ found[:, :, None]).norm(dim=(1, 2)))
            vectors.append(found)
    order = torch.cat(values).argsort(descending=True)
    return Peaks(torch.cat(values)[order], torch.cat(vectors)[order])


def _tops(maps: Tensor, bases: Tensor) -> Tensor:
    """The top right singular vector of each map on each subspace."""
    right = np.linalg.svd((maps @ bases).numpy(), full_matrices=False)[2]
    return (bases @ torch.from_numpy(right[:, 0])[:, :, None])[:, :, 0]


def spectral_bound(maps: Float64[Tensor, "cones out dim"]) -> float:
    r"""An upper bound of :math:`\lVert A u \rVert` over all cones: the largest spectral norm."""
    return float(torch.linalg.matrix_norm(maps, 2).max())


def largest_projection(
    maps: Float64[Tensor, "cones 1 dim"],
    normals: Float64[Tensor, "rows dim"],
    positive: Bool[Tensor, "cones rows"],
) -> Peaks:
    r"""The vector at which :math:`|a^T u|` is largest, for maps with one row: ``a``, or ``-a``, projected on its cone.

    Exact in any number of dimensions: two non-negative least-squares problems a cone. The longest maps come first, and
    it stops when the remaining maps are shorter than the length found. Source: Moreau 1962.
    """
    norms, best = maps.norm(dim=(1, 2)), np.zeros(maps.shape[2])
    for cone in norms.argsort(descending=True):
        if float(norms[cone]) <= np.linalg.norm(best):
            break
        walls = torch.where(positive[cone][:, None], normals, -normals).numpy()
        for point in (maps[cone, 0].numpy(), -maps[cone, 0].numpy()):
            best = max(best, projection(point, walls), key=lambda vector: float(np.linalg.norm(vector)))
    vector = torch.from_numpy(best)[None]
    return Peaks(vector.norm(dim=1), torch.nn.functional.normalize(vector, dim=1))


def projection(point: Float[np.ndarray, " dim"], normals: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, " dim"]:
    """The point of the cone ``normals u >= 0`` that is nearest to ``point``: a non-negative least-squares problem."""
    return point + normals.T @ nnls(-normals.T, point)[0] if len(normals) else point
