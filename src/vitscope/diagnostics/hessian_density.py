"""The whole eigenvalue density of the loss's Hessian, by stochastic Lanczos quadrature."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import xarray as xr
from typing_extensions import override

from vitscope.engine.curvature.curvature import (
    CURVATURES,
    AbstractCurvature,
    CurvatureProblem,
    KnownCurvature,
    Record,
    Records,
    by_part,
    over_minibatches,
    problem_of,
)
from vitscope.engine.curvature.eigenvectors import basis_rows
from vitscope.engine.curvature.hessian import Precision
from vitscope.engine.curvature.part import Per
from vitscope.engine.curvature.sample import LossSample
from vitscope.measurement.bounds import COUNT, SIZE, Bounds, bounded_field
from vitscope.measurement.errors import UserError
from vitscope.measurement.quantity import Quantity
from vitscope.numerics.spectral_density import kernel_density, lanczos_quadrature

_DENSITY = Quantity(
    "density",
    "Hessian eigenvalue density",
    "1/nats",
    "Share of the Hessian's eigenvalues per unit of eigenvalue, smoothed by Gaussian kernels whose width is an "
    "attribute of the stored array; mean over mini-batches.",
    "No shape is known to be better; mass far from zero means sharp, mass below zero non-convex.",
)
_NEGATIVE = Quantity(
    "negative_mass", "Negative share of the density", "1", "Share of all eigenvalues that are below zero.",
    "Smaller is more convex.",
)  # fmt: skip
_MEAN = Quantity(
    "mean", "Mean eigenvalue", "nats", "The trace divided by the number of weights.", "Smaller is flatter."
)
_SQUARE = Quantity(
    "mean_square", "Mean squared eigenvalue", "nats²", "The squared Frobenius norm divided by the number of weights.",
    "Smaller is flatter.",
)  # fmt: skip
_NODES = Quantity("nodes", "Nodes of the quadrature", "nats", "Where each mini-batch's spectral measure has its mass.")
_WEIGHTS = Quantity("weights", "Weights of the quadrature", "1", "The mass at each node.")


@CURVATURES.add("hessian-density")
@final
@dataclass(frozen=True)
class HessianDensity(AbstractCurvature):
    r"""The density of all eigenvalues of the Hessian of the loss on single mini-batches.

    .. math:: \phi(\lambda) = \frac1n \sum_{i=1}^n \delta(\lambda - \lambda_i) \approx
              \frac1V \sum_{v=1}^V \sum_{j=1}^m w_{vj}\, N(\lambda; \theta_{vj}, \sigma^2)

    Stochastic Lanczos quadrature: from each of V random Gaussian vectors, m steps of Lanczos' method give nodes and
    weights. Their first 2m - 1 moments are those of the vector's spectral measure, whose mean is the density. Sigma is
    ``kernel`` times the range of the nodes. The density integrates to one. An L2 term in the loss shifts it by exactly
    ``weight_decay``. Cost: V x m Hessian products per mini-batch, each with the multiplications of six forward passes.
    """

    name = "hessian-density"
    title = "Hessian eigenvalue density"
    references = (
        "Ghorbani, Krishnan and Xiao, An Investigation into Neural Net Optimization via Hessian Eigenvalue Density, "
        "ICML 2019",
        "Golub and Meurant, Matrices, Moments and Quadrature, Princeton 2010",
    )

    steps: int = bounded_field(30, Bounds(1, 10_000))
    """Lanczos steps from each vector."""
    vectors: int = bounded_field(2, COUNT)
    """Random vectors for each mini-batch and part."""
    batch: int = bounded_field(16, COUNT)
    """Images per mini-batch."""
    batches: int = bounded_field(8, COUNT)
    """Number of mini-batches."""
    kernel: float = bounded_field(0.01, Bounds(above=0, most=1))
    """Standard deviation of the smoothing kernel, as a share of the range of the nodes."""
    points: int = bounded_field(1001, Bounds(2, 1_000_000))
    """Number of evenly spaced eigenvalues at which the density is given."""
    weight_decay: float = bounded_field(0.0, SIZE)
    """L2 term in the loss: half of this times the squared norm of the weights."""
    per: Per = "model"
    """Take the Hessian of the whole model, or of each block, unit or module separately."""
    precision: Precision = "float32"
    """float32 or float64."""
    seed: int = 0
    """Seed of the mini-batches and the random vectors."""

    def __post_init__(self) -> None:
        if min(self.steps, self.vectors) < 1 or self.points < 2 or self.kernel <= 0:
            raise UserError(
                f"steps={self.steps}, vectors={self.vectors}, points={self.points}, kernel={self.kernel:g} were given; "
                "steps and vectors must be at least 1, points at least 2 and the kernel above 0."
            )
        if self.kernel * self.points < 2:
            raise UserError(
                f"A kernel of {self.kernel:g} of the range is too narrow for {self.points} points; "
                f"give at least {int(2 / self.kernel) + 1} points."
            )
        super().__post_init__()

    @property
    @override
    def sample(self) -> LossSample:
        return LossSample(self.batch, self.batches, self.per, self.precision, self.seed)

    def products(self, parts: int) -> int:
        """One per Lanczos step, for each vector and part."""
        return parts * self.steps * self.vectors

    def examine(self, problem: CurvatureProblem) -> Record:
        """Nodes in ascending order and their weights, one row for each vector."""
        nodes: list[torch.Tensor] = []
        weights: list[torch.Tensor] = []
        for hessian in problem.blocks():
            rows = basis_rows(hessian.size, hessian.like)
            pairs = [
                lanczos_quadrature(
                    hessian.product, hessian.start(problem.generator), self.steps, problem.generator, rows
                )
                for _ in range(self.vectors)
            ]
            nodes.append(torch.stack([node for node, _ in pairs]) + self.weight_decay)
            weights.append(torch.stack([weight for _, weight in pairs]))
        return {"nodes": torch.stack(nodes), "weights": torch.stack(weights)}

    def conclude(self, records: Records) -> xr.Dataset:
        """The density with its error over mini-batches, its moments, and its nodes and weights."""
        parts = records.parts
        nodes, weights = (records.stack(name) for name in ("nodes", "weights"))  # part minibatch vector step
        low, high = float(nodes.min()), float(nodes.max())
        width = self.kernel * max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-12)
        points = torch.linspace(low - 5 * width, high + 5 * width, self.points, dtype=torch.float64)
        flat_nodes, flat_weights = (array.reshape(*array.shape[:2], -1) for array in (nodes, weights / self.vectors))
        smooth = np.stack([
            np.stack([
                kernel_density(torch.from_numpy(n), torch.from_numpy(w), points, width).numpy()
                for n, w in zip(*of_part, strict=True)
            ])
            for of_part in zip(flat_nodes, flat_weights, strict=True)
        ])  # fmt: skip
        coords = {"eigenvalue": points.numpy()}
        result = by_part(_DENSITY, parts, ("eigenvalue",), over_minibatches(smooth), coords)
        result["density"].attrs["kernel_width"] = width
        for quantity, values in ((_MEAN, nodes), (_SQUARE, nodes**2), (_NEGATIVE, (nodes < 0).astype(np.float64))):
            moment = (weights * values).sum((2, 3)) / self.vectors
            result = result.assign(by_part(quantity, parts, (), over_minibatches(moment), {}))
        stored = {"minibatch": list(records.rows), "rank": np.arange(flat_nodes.shape[2])}
        for quantity, values in ((_NODES, flat_nodes), (_WEIGHTS, flat_weights)):
            one = (values, np.full_like(values, np.nan), np.ones(values.shape, np.int64))
            result = result.assign(by_part(quantity, parts, ("minibatch", "rank"), one, stored))
        return result

    @classmethod
    def known_answers(cls) -> tuple[KnownCurvature, ...]:
        """Multiples of the identity, block by block: a single node holds all the weight."""
        problem = problem_of(
            lambda w: 1.5 * (w["a"] ** 2).sum() - (w["b"] ** 2).sum() + w["a"][0] * w["b"][0],
            {"a": torch.ones(3).double(), "b": torch.ones(2).double()},
            apart=True,
        )
        return (KnownCurvature("by parts 3 I and -2 I: all nodes are 3 and -2", problem, {"nodes": _constant(cls)}),)


def _constant(cls: type[HessianDensity]) -> torch.Tensor:
    one = torch.tensor([3.0, -2.0], dtype=torch.float64)
    return one[:, None, None].expand(2, cls.vectors, cls.steps)
