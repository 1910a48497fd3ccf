"""The convex programs of linear, MLP, attention, mixer and Fourier blocks, written out for cvxpy.

Sahiner et al., "Unraveling Attention via Convex Duality" (ICML 2022): with fixed gates the output of a block is linear
in one matrix ``Z_j`` per gate, and weight decay on its two factors is the nuclear norm of ``Z_j``. A block is therefore
a feature tensor ``F_j[token, row, column]`` of an image, and its output is

    f[token, output] = sum_j sum_{row, column} F_j[token, row, column] Z_j[row, column * outputs + output].

Everything here is slow and literal on purpose: it is what the fast code is compared to.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

cvxpy = pytest.importorskip("cvxpy")

SETTINGS = {
    "CLARABEL": {"tol_gap_abs": 1e-9, "tol_gap_rel": 1e-9, "tol_feas": 1e-9},
    "SCS": {"eps": 1e-7, "max_iters": 200_000},
}


@dataclass(frozen=True)
class Solution:
    """The optimal value and the optimal ``Z_j``: gates outermost, then groups."""

    value: float
    matrices: list[np.ndarray]


def optimum(block, tokens, targets, gate_vectors, beta, *, loss, pooled, groups=1, solver="CLARABEL") -> float:
    """The least ``mean over images of loss + beta * sum_j ||Z_j||_*``, see ``solution``."""
    settings = {"loss": loss, "pooled": pooled, "groups": groups, "solver": solver}
    return solution(block, tokens, targets, gate_vectors, beta, **settings).value


def solution(block, tokens, targets, gate_vectors, beta, *, loss, pooled, groups=1, solver="CLARABEL") -> Solution:
    """The minimum over ``Z`` and a point where it is reached.

    ``tokens`` are (images, tokens, dim). ``targets`` are (images, outputs) where ``pooled``, else (images, tokens,
    outputs), or for cross-entropy (pooled only) integer labels, of which the greatest one must occur. The squared loss
    of an image is ``1/2 ||f - Y||^2`` over all its outputs, cross-entropy ``logsumexp(f) - f[y]``. ``gate_vectors`` is
    None for the linear activation, else one array per gate: (dim, dim) for attention, (tokens, tokens) for the mixer,
    (dim,) for linear and mlp, (tokens * dim,) for fno, (groups, tokens * dim / groups) for block-fno.
    """
    labels = loss == "cross-entropy"
    outputs = int(targets.max()) + 1 if labels else targets.shape[-1]
    variables, predictions = [], 0
    for gate in [None] if gate_vectors is None else gate_vectors:
        parts = []
        for features in gate_features(block, tokens, gate, pooled, groups):
            rows, columns, width = *features.shape[-2:], outputs // groups
            variables.append(cvxpy.Variable((rows, columns * width)))
            stacked = features.reshape(-1, rows * columns)
            parts.append(stacked @ cvxpy.reshape(variables[-1], (rows * columns, width), order="C"))
        predictions = predictions + cvxpy.hstack(parts)
    risk = (cross_entropy if labels else squared)(predictions, targets) / len(tokens)
    problem = cvxpy.Problem(cvxpy.Minimize(risk + beta * sum(cvxpy.normNuc(z) for z in variables)))
    problem.solve(solver=solver, **SETTINGS[solver])
    if problem.status != cvxpy.OPTIMAL:
        raise RuntimeError(f"{solver} ended with {problem.status}: no oracle value")
    return Solution(float(problem.value), [z.value for z in variables])


def squared(predictions, targets):
    return cvxpy.sum_squares(predictions - targets.reshape(-1, targets.shape[-1])) / 2


def cross_entropy(predictions, labels):
    chosen = np.eye(predictions.shape[1])[labels]
    return cvxpy.sum(cvxpy.log_sum_exp(predictions, axis=1)) - cvxpy.sum(cvxpy.multiply(chosen, predictions))


def gate_features(block, tokens, gate, pooled, groups=1) -> list[np.ndarray]:
    """For one gate, and for each group: ``F`` of all images, (images, tokens or 1, rows, columns)."""
    if block == "linear" and pooled:
        tokens = tokens.mean(1, keepdims=True)
    if block == "block-fno":
        split = np.split(tokens, groups, axis=2)
        of = [[fourier(image, None if gate is None else gate[b]) for image in group] for b, group in enumerate(split)]
    else:
        of = [[FEATURES[block](image, gate) for image in tokens]]
    stacked = [np.stack(group) for group in of]
    return [features.mean(1, keepdims=True) for features in stacked] if pooled else stacked


def token_wise(image, gate):
    """``diag(1{X h >= 0}) X Z`` with Z (dim, outputs)."""
    mask = np.ones(len(image)) if gate is None else image @ gate >= 0
    return (mask[:, None] * image)[:, :, None]


def attention(image, gate):
    """``sum_kl G^(k,l) X Z^(k,l)``, ``G^(k,l) = diag_a(sum_t M[a, t] X[t, k] X[t, l])``, Z (dim^2, dim * outputs)."""
    tokens, dim = image.shape
    mask = np.ones((tokens, tokens)) if gate is None else image @ gate @ image.T >= 0
    features = np.zeros((tokens, dim * dim, dim))
    for k in range(dim):
        for l in range(dim):  # noqa: E741
            weights = np.diag(mask @ (image[:, k] * image[:, l]))
            features[:, k * dim : (k + 1) * dim, l] = weights @ image
    return features


def mixer(image, gate):
    """Column p of the output is ``sum_t diag(M[:, t]) Z^(p,t) X[:, t]``, Z (tokens^2, dim * outputs)."""
    tokens, dim = image.shape
    mask = np.ones((tokens, dim)) if gate is None else gate @ image >= 0
    features = np.zeros((tokens, tokens * tokens, dim))
    for a in range(tokens):
        for b in range(tokens):
            for t in range(dim):
                features[a, a * tokens + b, t] = mask[a, t] * image[b, t]
    return features


def circulant(image):
    """``circ(X)[a, t * dim + k] = X[(t + a) mod tokens, k]``."""
    return np.stack([np.roll(image, -a, axis=0).ravel() for a in range(len(image))])


def fourier(image, gate):
    """``diag(1{circ(X) h >= 0}) circ(X) Z`` with Z (tokens * dim, outputs)."""
    return token_wise(circulant(image), gate)


FEATURES = {"linear": token_wise, "mlp": token_wise, "attention": attention, "mixer": mixer, "fno": fourier}


def planar_gates(tokens):
    """One gate vector in each cell of the arrangement of ``circ(X) h = 0``, for tokens * dim = 2: all patterns."""
    edges = planar_edges(tokens)
    middles = (edges[1:] + edges[:-1]) / 2
    return np.stack([np.cos(middles), np.sin(middles)], axis=1)


def planar_edges(tokens):
    """The angles at which the sign of a row of ``circ(X) h`` turns, once around, sorted; tokens * dim = 2."""
    rows = np.concatenate([circulant(image) for image in tokens])
    edges = np.sort(np.concatenate([np.arctan2(rows[:, 0], -rows[:, 1]), np.arctan2(-rows[:, 0], rows[:, 1])]))
    return np.append(edges, edges[0] + 2 * np.pi)


def planar_relu_optimum(tokens, targets, beta, *, points=25) -> float:
    """The fno ReLU program (squared, token-wise) for tokens * dim = 2, a group lasso over a grid of hidden vectors.

    ``min 1/(2 images) ||sum_u (circ(X) u)_+ v_u^T - Y||^2 + beta sum_u ||v_u||`` over ``points`` unit vectors u in each
    cell, edges included: the constrained nuclear norm up to the grid, hence never below the true optimum.
    """
    edges = planar_edges(tokens)
    angles = np.unique(np.concatenate([np.linspace(*ends, points) for ends in pairwise(edges)]))
    rows = np.concatenate([circulant(image) for image in tokens])
    hidden = np.maximum(rows @ np.stack([np.cos(angles), np.sin(angles)]), 0)
    weights = cvxpy.Variable((len(angles), targets.shape[-1]))
    risk = squared(hidden @ weights, targets) / len(tokens)
    problem = cvxpy.Problem(cvxpy.Minimize(risk + beta * cvxpy.sum(cvxpy.norm(weights, 2, axis=1))))
    return float(problem.solve(solver="CLARABEL", **SETTINGS["CLARABEL"]))


@dataclass(frozen=True)
class PaperCase:
    """A row of the paper's table of oracles: token-wise, squared loss, and the sum over images instead of the mean."""

    block: str
    tokens: np.ndarray
    targets: np.ndarray
    gate_vectors: np.ndarray | None
    summed_beta: float
    summed_value: float
    groups: int = 1

    @property
    def beta(self) -> float:
        """The penalty of the mean objective that has the same minimiser."""
        return self.summed_beta / len(self.tokens)

    @property
    def value(self) -> float:
        """The optimum of the mean objective."""
        return self.summed_value / len(self.tokens)


def paper_cases() -> dict[str, PaperCase]:
    """Every row with a convex optimum; the generators were found by the values, which fix all their digits."""
    zero, one, three = (np.random.default_rng(seed) for seed in (0, 1, 3))
    larger = 0.5 * zero.standard_normal((6, 4, 3)), zero.standard_normal((6, 4, 2))
    small = one.standard_normal((4, 3, 2)), one.standard_normal((4, 3, 2))
    gates = [one.standard_normal((3, *shape)) for shape in ((2, 2), (3, 3), (6,))]
    planar = three.standard_normal((5, 2, 1)), three.standard_normal((5, 2, 2))
    return {
        "linear attention, rank 4": PaperCase("attention", *larger, None, 0.3, 15.173507027),
        "linear attention": PaperCase("attention", *small, None, 0.25, 10.60862281),
        "gated attention": PaperCase("attention", *small, gates[0], 0.25, 7.67406988),
        "linear mixer": PaperCase("mixer", *small, None, 0.25, 2.52484015),
        "gated mixer": PaperCase("mixer", *small, gates[1], 0.25, 2.55367258),
        "linear fno": PaperCase("fno", *small, None, 0.25, 9.67403235),
        "gated fno": PaperCase("fno", *small, gates[2], 0.25, 2.12449501),
        "linear block-fno": PaperCase("block-fno", *small, None, 0.25, 12.71803830, groups=2),
        "fno, all 20 arrangements": PaperCase("fno", *planar, planar_gates(planar[0]), 0.3, 2.427079),
    }


PAPER_CASES = paper_cases()
