"""Singular values of a matrix known by its products: the largest ones with their vectors, and bounds on the norm."""

from collections.abc import Callable
from dataclasses import dataclass
from math import hypot, log, sqrt

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import normalize

from vitscope.numerics.lanczos import Chains
from vitscope.numerics.precision import to_float64

FAILURE = 1e-6
"""The largest probability that a probabilistic bound fails.

A free choice that costs little: steps grow with its logarithm over ``CHAINS``, by a tenth for a thousandth of it.
"""
ATTEMPTS = 4
"""Attempts at a bound, each with a refined known space; their steps share the probability of failure.

A free choice: more attempts only make a loose bound tighter.
"""
CHAINS = 8
"""Random starts of Lanczos' method whose products are taken together; a bound fails only if all are unlucky.

A product of eight vectors costs little more than one of one, and eight starts take a third of the steps of one start
(:func:`norm_bound`, in 65,536 dimensions).
"""


@dataclass(frozen=True, eq=False)
class Operator:
    """A matrix ``M`` of ``left x right`` entries, known by its products with blocks of row vectors.

    ``apply`` takes rows ``U`` to ``U M``, ``adjoint`` takes rows ``V`` to ``V M^T``. If ``M`` itself is available
    it is ``matrix``, or ``basis^T matrix`` with orthonormal rows.
    """

    left: int
    right: int
    apply: Callable[[Float[Tensor, "rows left"]], Float[Tensor, "rows right"]]
    adjoint: Callable[[Float[Tensor, "rows right"]], Float[Tensor, "rows left"]]
    matrix: Float[Tensor, "short right"] | None = None
    basis: Float[Tensor, "short left"] | None = None


def dense(matrix: Float[Tensor, "short right"], basis: Float[Tensor, "short left"] | None = None) -> Operator:
    """The operator of an explicit matrix, or of ``basis^T matrix`` with orthonormal rows."""

    def apply(rows: Float[Tensor, "rows left"]) -> Float[Tensor, "rows right"]:
        return (rows if basis is None else rows @ basis.T) @ matrix

    def adjoint(rows: Float[Tensor, "rows right"]) -> Float[Tensor, "rows left"]:
        return rows @ matrix.T if basis is None else rows @ matrix.T @ basis

    return Operator(len(matrix) if basis is None else basis.shape[1], matrix.shape[1], apply, adjoint, matrix, basis)


@dataclass(frozen=True, eq=False)
class Singular:
    """Singular values, largest first, with their unit vectors as rows.

    ``bound`` is an upper bound on the spectral norm; ``probability`` is that of its failure, 0 if it is certain.
    """

    values: Float64[Tensor, " pairs"]
    left: Float[Tensor, "pairs left"]
    right: Float[Tensor, "pairs right"]
    bound: float
    probability: float


def largest(
    operator: Operator, count: int, known: Float[Tensor, "known left"], generator: torch.Generator, rounds: int = 3
) -> Singular:
    """The ``count`` largest singular values.

    Exact if the matrix is available; otherwise from the block Krylov space of ``known`` left vectors and ``count``
    random ones (Musco and Musco 2015): then the values are lower bounds, ``bound`` is the largest of them and fails
    with probability 1. Cost: ``rounds`` products of all these vectors with the matrix and its transpose, and as
    many again with the matrix.
    """
    if operator.matrix is not None:
        return _of_matrix(operator.matrix, operator.basis, count)
    fresh = torch.randn(count, operator.left, generator=generator, dtype=torch.float64).to(known)
    blocks = [orthonormal(torch.cat((known, fresh)))]
    for _ in range(rounds - 1):
        blocks.append(orthonormal(operator.adjoint(operator.apply(blocks[-1]))))
    basis = orthonormal(torch.cat(blocks))
    u, values, right = torch.linalg.svd(operator.apply(basis), full_matrices=False)
    kept = min(count, len(values))
    left = u[:, :kept].T @ basis
    return Singular(to_float64(values[:kept]), left, right[:kept], float(values[0]), 1.0)


def norm_bound(
    operator: Operator,
    known: Float[Tensor, "known left"],
    generator: torch.Generator,
    tolerance: float = 1e-4,
    steps: int = 60,
) -> Singular:
    r"""The largest singular value, with an upper bound that fails with a probability of at most 1e-6.

    Exact if the matrix is available. Otherwise the left space is split into ``Q``, found by subspace iteration from
    ``known`` vectors (at an optimum the top singular value is multiple, and they span its space), and the rest. With
    :math:`b = \lVert Q M M^T Q^T \rVert`, ``c`` the norm of the coupling :math:`Q M M^T (I - Q^T Q)` and ``d`` a bound
    on the rest, :math:`\lVert M \rVert^2 \le \frac{b + d}{2} + \sqrt{(\frac{b - d}{2})^2 + c^2}`. ``d`` comes from
    Lanczos with a random start: its estimate after ``k`` steps is below :math:`(1 - \epsilon) d` with a probability of
    at most :math:`1.648 \sqrt{n}\, e^{-\sqrt\epsilon (2k - 1)}` (Kuczynski and Wozniakowski, SIAM J. Matrix Anal. Appl.
    1992, theorem 4.1); the largest estimate of eight independent starts is, with the eighth power of it. It ends when
    the bound on the norm is within ``tolerance`` of the estimate, or after ``steps`` products of eight vectors; if
    that leaves it loose, ``Q`` is refined and widened, for up to four attempts and as long as it pays.
    The matrix must be in float64: rounding is not part of the bound.

    Rounds, the four more vectors of an attempt, ``tolerance`` and ``steps`` trade products for tightness: the bound
    holds for any ``Q`` and after any step. An attempt pays if it closes a tenth of the distance to the estimate.
    """
    if operator.matrix is not None:
        return _of_matrix(operator.matrix, operator.basis, 1)
    found, square = largest(operator, len(known) + 4, known, generator, rounds=4), float("inf")
    for attempt in range(ATTEMPTS):
        if attempt > 0:
            found = largest(operator, len(found.left) + 4, found.left, generator, rounds=4)
        basis = torch.linalg.qr(found.left.T).Q.T
        basis, top, coupling = _split_basis(operator, basis, found.values)
        whole = len(basis) == operator.left
        bound = top if whole else _with_rest(operator, basis, top, coupling, generator, tolerance, steps, square)
        before, square = square, min(square, bound)
        if square <= top * (1 + tolerance) ** 2 or square > 0.9 * before + 0.1 * top:
            break
    return Singular(found.values[:1], found.left[:1], found.right[:1], sqrt(square), FAILURE)


def _split_basis(
    operator: Operator, basis: Float[Tensor, "basis left"], values: Float64[Tensor, " basis"]
) -> tuple[Float[Tensor, "some left"], float, float]:
    """The first vectors that bound the norm best, the squared norm on them, and their coupling to the rest.

    Later vectors have hardly converged and couple to the rest; they are left to it unless that loosens its bound,
    which the next value estimates here.
    """
    image = operator.adjoint(operator.apply(basis))
    inside, squares = image @ basis.T, image @ image.T
    found: list[tuple[float, int, float, float]] = []
    for count, following in enumerate([*values[1:].tolist(), float(values[-1])], 1):
        part = (inside[:count, :count] + inside[:count, :count].T) / 2
        top = float(torch.linalg.eigvalsh(part)[-1])
        coupling = sqrt(max(float(torch.linalg.eigvalsh(squares[:count, :count] - part @ part.T)[-1]), 0.0))
        found.append((_join(top, following**2, coupling), count, top, coupling))
    _, count, top, coupling = min(found)
    return basis[:count], top, coupling


def _join(top: float, rest: float, coupling: float) -> float:
    r"""A bound on the largest eigenvalue of a symmetric 2 x 2 block matrix, from its blocks' and their coupling's norm.

    For a unit vector of the parts ``x`` and ``y`` its form is at most :math:`b \lVert x \rVert^2 + 2 c \lVert x \rVert
    \lVert y \rVert + d \lVert y \rVert^2`, which is that of the matrix ``[[b, c], [c, d]]`` at a unit vector, and so at
    most its larger eigenvalue. Attained if the top vectors of both blocks are those that couple most.
    """
    return (top + rest) / 2 + hypot((top - rest) / 2, coupling)


def _with_rest(
    operator: Operator,
    basis: Float[Tensor, "basis left"],
    top: float,
    coupling: float,
    generator: torch.Generator,
    tolerance: float,
    steps: int,
    known: float,
) -> float:
    """The bound on the squared norm, from Lanczos' method on the complement of the basis.

    It ends when a better bound on the complement would not lower it, or not below ``known``.
    """

    def beside(rows: Float[Tensor, "rows left"]) -> Float[Tensor, "rows left"]:
        return rows - (rows @ basis.T) @ basis

    start = torch.randn(CHAINS, operator.left, generator=generator, dtype=torch.float64).to(basis)
    chains = Chains(lambda rows: beside(operator.adjoint(operator.apply(beside(rows)))), beside(start))
    steps, square = min(steps, operator.left), float("inf")
    unlucky = log(1.648 * sqrt(operator.left)) + log(ATTEMPTS * steps / FAILURE) / CHAINS
    for step in range(1, steps + 1):
        chains.extend()
        missed = 0.0 if step == operator.left else (unlucky / (2 * step - 1)) ** 2
        below = max(chains.largest(), 0.0)
        remaining = below / (1 - missed) if missed < 1 else float("inf")
        square, least = _join(top, remaining, coupling), _join(top, below, coupling)
        if square <= max(top * (1 + tolerance), least) * (1 + tolerance) or least >= known:
            break
    return square


def orthonormal(rows: Float[Tensor, "rows size"], tolerance: float = 1e-7) -> Float[Tensor, "rank size"]:
    """An orthonormal basis of the span of rows, without directions that nearly lie in the span of others.

    Nearly: the singular value of the unit rows is at most ``tolerance`` (about the rounding of float32) times the
    largest. Leaving such directions out only narrows the search space: values and bounds hold for any basis.
    """
    _, values, basis = torch.linalg.svd(normalize(to_float64(rows), dim=1), full_matrices=False)
    return basis[values > tolerance * values[:1]].to(rows)


def spectral_norm(matrix: Float[Tensor, "left right"]) -> float:
    """The largest singular value, by the Gram matrix of the smaller side; 0 for an empty matrix."""
    if matrix.numel() == 0:
        return 0.0
    rows = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return sqrt(max(float(torch.linalg.eigvalsh(rows @ rows.T)[-1]), 0.0))


def _of_matrix(matrix: Float[Tensor, "short right"], basis: Float[Tensor, "short left"] | None, count: int) -> Singular:
    """Singular values from the Gram matrix of the smaller side, exact up to rounding in ``matrix``'s precision."""
    wide = matrix.shape[0] <= matrix.shape[1]
    rows = matrix if wide else matrix.T
    squares, vectors = torch.linalg.eigh(to_float64(rows @ rows.T))
    kept = min(count, len(squares))
    values = squares.flip(0)[:kept].clamp(min=0).sqrt()
    short = vectors.flip(1)[:, :kept].T.to(matrix)
    long = normalize(short @ rows, dim=1)
    left, right = (short, long) if wide else (long, short)
    left = left if basis is None else left @ basis
    return Singular(values, left, right, float(values.max()) if kept else 0.0, 0.0)
