"""The outermost eigenvalues of the loss's Hessian, mini-batch by mini-batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
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
from vitscope.engine.curvature.hessian import LossHessian, Precision
from vitscope.engine.curvature.part import Per, WeightPart
from vitscope.engine.curvature.sample import LossSample
from vitscope.measurement.bounds import COUNT, SIZE, Bounds, bounded_field
from vitscope.measurement.errors import UserError
from vitscope.measurement.quantity import Quantity
from vitscope.numerics.lanczos import Ends, extreme_eigenpairs
from vitscope.numerics.spectral_density import kernel_density

_FLAT = "Smaller is flatter. Park and Kim find that a flat loss goes with better generalisation; others dispute it."
_LARGEST = Quantity(
    "largest",
    "Largest Hessian eigenvalues",
    "nats",
    "The algebraically largest eigenvalues of a mini-batch's Hessian, in descending order, mean over mini-batches.",
    _FLAT,
)
_SMALLEST = Quantity(
    "smallest",
    "Smallest Hessian eigenvalues",
    "nats",
    "The algebraically smallest eigenvalues, most negative first, mean over mini-batches; below 0 is non-convex.",
    "Closer to zero is more convex.",
)
_POOLED = Quantity(
    "pooled",
    "Hessian max-eigenvalue spectrum",
    "1/nats",
    "Density of the eigenvalues of largest modulus, pooled over all mini-batches as in Park and Kim; the kernel's "
    "width is an attribute of the stored array.",
)
_NEGATIVE = Quantity(
    "negative_share",
    "Share of negative eigenvalues (NEP)",
    "1",
    "Share of negative eigenvalues among those of largest modulus.",
    "Smaller is more convex, which Park and Kim find to ease training.",
)
_POSITIVE = Quantity(
    "positive_mean",
    "Mean positive eigenvalue (APE)",
    "nats",
    "Mean of the positive eigenvalues among those of largest modulus.",
    _FLAT,
)
_CONVERGED = Quantity(
    "converged", "Converged eigenvalues", "1", "Share of the eigenvalues whose residual is within the tolerance.",
    "1: all have converged.",
)  # fmt: skip
_EACH = {
    end: Quantity(
        f"{end}_each",
        f"Hessian eigenvalues, {words}, mini-batch by mini-batch",
        "nats",
        "One mini-batch's eigenvalues. The error of each is its residual ||Hv - lambda v||: a true eigenvalue lies "
        "within that distance.",
        _FLAT,
    )
    for end, words in (("largest", "largest"), ("smallest", "smallest"), ("modulus", "largest by modulus"))
}


@CURVATURES.add("hessian-spectrum")
@final
@dataclass(frozen=True)
class HessianSpectrum(AbstractCurvature):
    r"""The outermost eigenvalues of the Hessian of the loss on single mini-batches.

    .. math:: H = \nabla_\theta^2 \Big( \frac1B \sum_b \mathrm{CE}(f_\theta(x_b), y_b)
              + \frac{\mathrm{wd}}{2}\lVert\theta\rVert^2 \Big)

    Lanczos' method with full re-orthogonalisation finds the algebraically largest and smallest in one Krylov space.
    From these come the eigenvalues of largest modulus, and from them the paper's NEP (the share of negative ones) and
    APE (the mean of the positive ones). An L2 term in the loss adds exactly ``weight_decay`` to every eigenvalue. An
    eigenvalue has converged if its residual, computed at its eigenvector, is at most ``tolerance`` times the spectral
    norm of its Hessian. An eigenvalue of multiplicity m is found once. The paper uses the augmented training set: to
    do the same, give augmented images with their soft labels. Batch norm is in evaluation mode. Cost: some 40 to 200
    Hessian products per mini-batch, each with the multiplications of six forward passes.
    """

    name = "hessian-spectrum"
    title = "Hessian eigenvalues"
    references = (
        "Park and Kim, How Do Vision Transformers Work?, ICLR 2022",
        "Parlett, The Symmetric Eigenvalue Problem, SIAM 1998",
        "Wu and Simon, Thick-Restart Lanczos Method for Large Symmetric Eigenvalue Problems, SIMAX 2000",
    )

    top: int = bounded_field(5, Bounds(1, 10_000))
    """Number of eigenvalues at each end, and by modulus."""
    batch: int = bounded_field(16, COUNT)
    """Images per mini-batch."""
    batches: int = bounded_field(8, COUNT)
    """Number of mini-batches."""
    ends: Ends = "both"
    """both, largest or smallest; NEP and APE need both."""
    weight_decay: float = bounded_field(0.0, SIZE)
    """L2 term in the loss: half of this times the squared norm of the weights."""
    per: Per = "model"
    """Take the Hessian of the whole model, or of each block, unit or module separately."""
    precision: Precision = "float32"
    """float32 or float64."""
    steps: int = bounded_field(200, COUNT)
    """Most Hessian products per mini-batch and part."""
    tolerance: float = bounded_field(1e-4, Bounds(above=0, most=1))
    """Residual at which an eigenvalue has converged, relative to the spectral norm."""
    seed: int = 0
    """Seed of the mini-batches and of the starting vectors of Lanczos' method."""

    def __post_init__(self) -> None:
        if self.top < 1 or self.steps < 2 or self.tolerance <= 0:
            raise UserError(
                f"top={self.top}, steps={self.steps}, tolerance={self.tolerance:g} were given; "
                "top must be at least 1, steps at least 2 and the tolerance above 0."
            )
        super().__post_init__()

    @property
    @override
    def sample(self) -> LossSample:
        return LossSample(self.batch, self.batches, self.per, self.precision, self.seed)

    def products(self, parts: int) -> int:
        """About as many as the ends of a trained transformer's spectrum take; at most ``steps`` for each part."""
        return parts * min(self.steps, (8 + 3 * self.top) * (1 + (self.ends == "both")))

    def examine(self, problem: CurvatureProblem) -> Record:
        """Eigenvalues and residuals of each end, outermost first, padded with NaN if fewer were found."""
        found = [self._part(hessian, problem.generator) for hessian in problem.blocks()]
        return {name: torch.stack([one[name] for one in found]) for name in found[0]}

    def _part(self, hessian: LossHessian, generator: torch.Generator) -> dict[str, torch.Tensor]:
        rows = min(self.steps, basis_rows(hessian.size, hessian.like))
        extremes = extreme_eigenpairs(
            hessian.product, hessian.start(generator), generator, self.top, self.ends, self.tolerance, self.steps, rows
        )
        numbers = {"norm": extremes.norm, "products": extremes.products, "size": hessian.size}
        record = {name: torch.tensor(float(number), dtype=torch.float64) for name, number in numbers.items()}
        for end, pairs in (("largest", extremes.largest), ("smallest", extremes.smallest)):
            record[end] = self._pad(pairs.values + self.weight_decay)
            record[f"{end}_residual"] = self._pad(pairs.residuals)
        return record

    def _pad(self, values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values, values.new_full((self.top - len(values),), torch.nan)])

    def conclude(self, records: Records) -> xr.Dataset:
        """Means over mini-batches by rank, NEP and APE, and every eigenvalue with its residual."""
        parts, rank = records.parts, {"rank": np.arange(self.top)}
        ends = [(end, quantity) for end, quantity in (("largest", _LARGEST), ("smallest", _SMALLEST))
                if self.ends in ("both", end)]  # fmt: skip
        each = {end: (records.stack(end), records.stack(f"{end}_residual")) for end, _ in ends}
        result = xr.Dataset()
        for end, quantity in ends:
            result = result.assign(by_part(quantity, parts, ("rank",), over_minibatches(each[end][0]), rank))
        bound = self.tolerance * records.stack("norm")[..., None]
        reached = [np.where(np.isfinite(values), residuals <= bound, np.nan) for values, residuals in each.values()]
        if self.ends == "both":
            each["modulus"] = self._by_modulus(records)
            result = result.assign(_pool(each["modulus"][0], parts)).assign(_shares(each["modulus"][0], parts))
        converged = np.nanmean(np.concatenate(reached, axis=2), axis=2)
        result = result.assign(by_part(_CONVERGED, parts, (), over_minibatches(converged), {}))
        coords = {**rank, "minibatch": list(records.rows)}
        for end, (values, residuals) in each.items():
            one = (values, residuals, np.isfinite(values).astype(np.int64))
            result = result.assign(by_part(_EACH[end], parts, ("minibatch", "rank"), one, coords))
            result[f"{end}_each_error"].attrs["long_name"] = "residual"
        return result.assign_attrs(notes=self._notes(np.concatenate(reached, axis=2), records))

    def _by_modulus(self, records: Records) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The eigenvalues of largest modulus among those of both ends, and their residuals."""
        fits = np.arange(self.top) < records.stack("size")[..., None] - self.top  # else it is among the largest
        values = np.concatenate([records.stack("largest"), np.where(fits, records.stack("smallest"), np.nan)], 2)
        residuals = np.concatenate([records.stack(f"{end}_residual") for end in ("largest", "smallest")], 2)
        order = np.argsort(-np.abs(values), axis=2, kind="stable")[..., : self.top]  # NaN goes last
        return np.take_along_axis(values, order, 2), np.take_along_axis(residuals, order, 2)

    def _notes(self, reached: NDArray[np.float64], records: Records) -> list[str]:
        missed, count = int((reached == 0).sum()), int(np.isfinite(reached).sum())
        if not missed:
            return []
        return [
            f"{missed} of {count} Hessian eigenvalues have not converged to {self.tolerance:g} of the spectral norm "
            f"after {self.steps} products; raise steps or the tolerance, or look at the residual of each."
        ]

    @classmethod
    def known_answers(cls) -> tuple[KnownCurvature, ...]:
        """A diagonal quadratic, a quadratic in two separate groups of weights, and logistic regression at zero."""
        diagonal = torch.tensor([7.0, -9, 5, 3, 2, 1, 0.5, 0, -1, -2, -3, -4], dtype=torch.float64)
        quadratic = problem_of(lambda w: 0.5 * (diagonal * w["w"] ** 2).sum(), {"w": torch.ones(12).double()})
        apart = problem_of(
            lambda w: 2 * w["a"][0] * w["a"][1] + 3 * (w["b"] ** 2).sum() + 100 * w["a"][0] * w["b"][0],
            {"a": torch.ones(2).double(), "b": torch.ones(1).double()},
            apart=True,
        )
        picture, label = torch.tensor([[3.0, 4.0]]).double(), torch.tensor([0])
        logistic = problem_of(
            lambda w: torch.nn.functional.cross_entropy(picture @ w["w"].T, label), {"w": torch.zeros(2, 2).double()}
        )
        nan = torch.nan
        return (
            KnownCurvature(
                "the Hessian of a diagonal quadratic is that diagonal",
                quadratic,
                {"largest": _rows([7, 5, 3, 2, 1]), "smallest": _rows([-9, -4, -3, -2, -1]), "norm": _rows([9])[0]},
            ),
            KnownCurvature(
                "block by block, what couples the blocks plays no part: [[0, 2], [2, 0]] and [6]",
                apart,
                {
                    "largest": _rows([2, -2, nan, nan, nan], [6, nan, nan, nan, nan]),
                    "smallest": _rows([-2, 2, nan, nan, nan], [6, nan, nan, nan, nan]),
                },
            ),
            KnownCurvature(
                "softmax regression at zero weights: (diag(p) - p p') x (x x') = 1/2 * 25 once, else 0",
                logistic,
                {"largest": _rows([12.5, 0, 0, 0, nan]), "smallest": _rows([0, 0, 0, 12.5, nan])},
            ),
        )


def _rows(*rows: Sequence[float | int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _shares(values: NDArray[np.float64], parts: tuple[WeightPart, ...]) -> xr.Dataset:
    """NEP and APE over all mini-batches, with errors over mini-batches (that of a ratio for APE)."""
    seen, positive = np.isfinite(values).sum(2), (values > 0).sum(2)
    negative = (values < 0).sum(2)
    sums = np.where(values > 0, values, 0.0).sum(2)
    batches = values.shape[1]
    many = positive.sum(1)
    ratio = np.where(many > 0, sums.sum(1) / np.maximum(many, 1), np.nan)
    spread = np.sqrt(((sums - ratio[:, None] * positive) ** 2).sum(1) * batches / max(batches - 1, 1))
    error = np.where((batches > 1) & (many > 0), spread / np.maximum(many, 1), np.nan)
    shares = over_minibatches(negative / np.maximum(seen, 1))
    result = by_part(_NEGATIVE, parts, (), shares, {})
    return result.assign(by_part(_POSITIVE, parts, (), (ratio, error, many.astype(np.int64)), {}))


def _pool(values: NDArray[np.float64], parts: tuple[WeightPart, ...]) -> xr.Dataset:
    """The density of the eigenvalues of all mini-batches, by kernels of Silverman's width."""
    flat = torch.from_numpy(values.reshape(len(values), -1))
    finite = [row[row.isfinite()] for row in flat]
    widths = [max(1.06 * float(row.std(correction=0)) * len(row) ** -0.2, 1e-3 * float(row.abs().max()), 1e-12)
              for row in finite]  # fmt: skip
    low = min(float(row.min()) - 5 * width for row, width in zip(finite, widths, strict=True))
    high = max(float(row.max()) + 5 * width for row, width in zip(finite, widths, strict=True))
    points = torch.linspace(low, high, 301, dtype=torch.float64)
    density = np.stack([
        kernel_density(row, torch.full_like(row, 1 / len(row)), points, width).numpy()
        for row, width in zip(finite, widths, strict=True)
    ])  # fmt: skip
    count = np.broadcast_to(np.asarray([len(row) for row in finite])[:, None], density.shape)
    numbers = (density, np.full_like(density, np.nan), count.copy())
    result = by_part(_POOLED, parts, ("eigenvalue",), numbers, {"eigenvalue": points.numpy()})
    result["pooled"].attrs["kernel_width"] = widths
    return result
