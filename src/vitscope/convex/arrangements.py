"""Arrangements: which gates the ReLU heads of a problem can have, listed or sampled."""

from dataclasses import dataclass
from itertools import product
from math import comb

import numpy as np
import torch
from jaxtyping import Bool, Float64
from numpy.typing import NDArray
from scipy.linalg import qr
from scipy.spatial import KDTree
from torch import Tensor

from vitscope.convex.problem import Problem

PARALLEL = 1e-9
"""Unit vectors at most this far apart count as one direction; rows shorter than this share of the longest count as 0.

It is far above the rounding of unit vectors in float64. Hyperplanes that it merges enclose only cones thinner than
this, in which their rows' activities are as small, relative to the rows. Norms are called exact up to the same 1e-9.
"""


@dataclass(frozen=True, eq=False)
class Faces:
    """All cones' faces of one dimension: on each, some activities are 0 and the others keep their sign."""

    bases: Float64[Tensor, "faces rank dim"]
    """A basis of the subspace that each face spans."""
    vectors: Float64[Tensor, "faces rank"]
    """A unit vector inside each face."""

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, eq=False)
class Arrangements:
    r"""The patterns :math:`1\{\hat X u \ge 0\}` of a lifted data matrix, each given by a vector that has it.

    Everything is in an orthonormal basis of the row space of ``Xhat``: what is orthogonal to it changes no output.
    Patterns of vectors that lie on a hyperplane are left out: such a vector is in the closure of its neighbours' cones.
    """

    basis: Float64[Tensor, "left rank"]
    rows: Float64[Tensor, "rows rank"]
    """The rows of ``Xhat``, in the basis; each of length 1, without those that are 0 or parallel to another."""
    vectors: Float64[Tensor, "patterns rank"]
    """A unit vector for each pattern."""
    complete: bool
    """Whether these are all patterns."""
    faces: tuple[Faces, ...] = ()
    """All faces of their cones, the cones themselves first and rays last; none if there are too many."""

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def positive(self) -> Bool[Tensor, "patterns rows"]:
        """Where the activity of each vector is not negative."""
        return self.vectors @ self.rows.T >= 0


def most_patterns(rows: int, rank: int) -> int:
    r"""The largest number of patterns: :math:`2 \sum_{k < r} \binom{N - 1}{k}`, attained in general position.

    It is at most :math:`2 r (e (N - 1) / r)^r`, the number in Sahiner et al. (2022). Source: Cover 1965.
    """
    return 2 * sum(comb(rows - 1, k) for k in range(rank)) if rows else 1


def most_faces(rows: int, rank: int) -> int:
    """The largest number of faces of dimension 1 or more: the sum of the patterns on each intersection of rows."""
    return sum(comb(rows, k) * most_patterns(rows - k, rank - k) for k in range(min(rank, rows + 1)))


def arrangements(
    xhat: Float64[Tensor, "rows left"], limit: int = 2**14, samples: int = 256, seed: int = 0
) -> Arrangements:
    """All patterns if there are at most ``limit``, otherwise those of ``samples`` random vectors.

    They are listed hyperplane by hyperplane: each new one cuts in two the cones that it meets, one for each cone of the
    earlier ones' traces on it, in one dimension less. Cost: about ``patterns rows`` products of ``rank`` numbers.

    Faces are listed too if there are at most 16 times as many: an exact norm takes a small singular value decomposition
    for each. Both limits trade time for certainty only; past them certificates are called bounds or heuristic.
    """
    _, values, right = torch.linalg.svd(xhat, full_matrices=False)
    # Directions in which the data are below 1e-10 of their largest count as rounding of float64.
    rank = int((values > 1e-10 * values[:1].clamp(min=torch.finfo(values.dtype).tiny)).sum())
    basis = right[:rank].T.contiguous()
    rows = np.unique((xhat @ basis).numpy(), axis=0)
    few = 2**rank <= limit  # there are at least as many patterns
    rows = distinct(rows) if few else rows
    complete = few and most_patterns(len(rows), rank) <= limit
    if complete:
        vectors = cones(rows)
    else:
        vectors = np.random.default_rng(seed).standard_normal((samples, rank))
        vectors = vectors[np.unique(vectors @ rows.T >= 0, axis=0, return_index=True)[1]]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    below = faces(rows) if complete and most_faces(len(rows), rank) <= 16 * limit else ()
    return Arrangements(basis, torch.from_numpy(rows), torch.from_numpy(vectors), complete, below)


def lifted_data(problem: Problem, term: int) -> Float64[Tensor, "rows left"]:
    r"""The lifted data matrix :math:`\hat X` of a term: a row for each gate of each image."""
    start, stop = problem.terms[term].entries.start, problem.terms[term].entries.stop
    tokens = torch.as_tensor(problem.tokens[:])[:, :, start:stop].to("cpu", torch.float64)
    basis = torch.eye(problem.shape(problem.terms[term])[0], dtype=torch.float64)
    return problem.block.inward(tokens, basis, problem.pooled).transpose(0, 1).flatten(1).T.contiguous()


def lifted_entries(problem: Problem, term: int) -> int:
    """How many entries the lifted data matrix of a term has."""
    part = problem.terms[term].entries
    token = torch.zeros(1, problem.sizes.tokens, part.stop - part.start)
    left = problem.shape(problem.terms[term])[0]
    activity = problem.block.inward(token, torch.zeros(1, left), problem.pooled)
    return len(problem.tokens) * activity.numel() * left


def distinct(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The directions of the rows that are not 0, each once, whatever its sign."""
    lengths = np.linalg.norm(rows, axis=1)
    kept = lengths > PARALLEL * lengths.max(initial=np.finfo(float).tiny)
    units = rows[kept] / lengths[kept, None]
    if rows.shape[1] < 2 or len(units) < 2:
        return units[:1]
    pairs = KDTree(np.concatenate((units, -units))).query_pairs(PARALLEL, output_type="ndarray")
    return np.delete(units, (pairs % len(units)).max(axis=1), axis=0)


def cones(normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """A vector inside each cone into which hyperplanes cut the space that their normals, all distinct, span."""
    dim = normals.shape[1]
    if dim < 2:
        return np.array([[1.0], [-1.0]]) if dim else np.zeros((1, 0))
    if dim == 2:
        return _sectors(normals)
    order = np.asarray(qr(normals.T, mode="r", pivoting=True)[-1])
    normals = normals[order]
    signs = np.array(list(product((1.0, -1.0), repeat=dim)))
    vectors = np.asarray(np.linalg.solve(normals[:dim], signs.T).T, dtype=np.float64)
    for at in range(dim, len(normals)):
        vectors = _cut(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), normals[:at], normals[at])
    return vectors


def faces(normals: NDArray[np.float64]) -> tuple[Faces, ...]:
    """All faces, dimension by dimension: the cones on each subspace where some of the hyperplanes meet."""
    found: list[Faces] = []
    subspaces = {b"": np.eye(normals.shape[1])}
    for dim in range(normals.shape[1], 0, -1):
        bases: list[NDArray[np.float64]] = []
        inside: list[NDArray[np.float64]] = []
        below: dict[bytes, NDArray[np.float64]] = {}
        for basis in subspaces.values():
            traces = distinct(normals @ basis)
            inside.append(cones(traces) @ basis.T)
            bases.append(np.broadcast_to(basis, (len(inside[-1]), *basis.shape)))
            if dim > 1:
                planes = basis @ np.linalg.qr(traces[:, :, None], mode="complete")[0][:, :, 1:]
                free = np.packbits(np.linalg.norm(normals @ planes, axis=2) > PARALLEL, axis=1)
                below.update(zip(map(bytes, free), planes, strict=True))
        vectors = np.concatenate(inside)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        found.append(Faces(torch.from_numpy(np.concatenate(bases)), torch.from_numpy(vectors)))
        subspaces = below
    return tuple(found)


def _sectors(normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cones in a plane: a vector between each two neighbouring lines."""
    lines = np.sort(np.mod(np.arctan2(normals[:, 1], normals[:, 0]) + np.pi / 2, np.pi))
    middles = (lines + np.append(lines[1:], lines[0] + np.pi)) / 2
    vectors = np.stack((np.cos(middles), np.sin(middles)), axis=1)
    return np.concatenate((vectors, -vectors))


def _cut(vectors: NDArray[np.float64], normals: NDArray[np.float64], added: NDArray[np.float64]) -> NDArray[np.float64]:
    """A vector inside each cone after one more hyperplane is added."""
    plane = np.linalg.qr(added[:, None], mode="complete")[0][:, 1:]
    walls = cones(distinct(normals @ plane)) @ plane.T
    walls /= np.linalg.norm(walls, axis=1, keepdims=True)
    room = np.abs(walls @ normals.T) / np.maximum(np.abs(normals @ added), np.finfo(float).tiny)
    step = np.minimum(room.min(axis=1, keepdims=True), 1) / 2 * added
    split = set(_codes(walls, normals))
    whole = np.array([code not in split for code in _codes(vectors, normals)])
    return np.concatenate((vectors[whole], walls + step, walls - step))


def _codes(vectors: NDArray[np.float64], normals: NDArray[np.float64]) -> list[bytes]:
    """The pattern of each vector, as bytes that can be compared."""
    return [row.tobytes() for row in np.packbits(vectors @ normals.T >= 0, axis=1)]
