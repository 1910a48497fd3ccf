"""The trace of the loss's Hessian, by random vectors."""

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
from vitscope.engine.curvature.hessian import Precision
from vitscope.engine.curvature.part import Per
from vitscope.engine.curvature.sample import LossSample
from vitscope.measurement.bounds import COUNT, SIZE, bounded_field
from vitscope.measurement.errors import UserError
from vitscope.measurement.quantity import Quantity
from vitscope.numerics.precision import to_float64

_TRACE = Quantity(
    "trace",
    "Trace of the Hessian",
    "nats",
    "Sum of all eigenvalues, mean over mini-batches; the error includes that of the mini-batches and the vectors.",
    "Smaller is flatter.",
)
_EACH = Quantity(
    "trace_each",
    "Trace of the Hessian, mini-batch by mini-batch",
    "nats",
    "One mini-batch's trace, with the error due to the random vectors.",
    "Smaller is flatter.",
)


@CURVATURES.add("hessian-trace")
@final
@dataclass(frozen=True)
class HessianTrace(AbstractCurvature):
    r"""The trace of the Hessian of the loss on single mini-batches, by Hutchinson's estimator.

    .. math:: \operatorname{tr} H = \mathbb{E}\big[v^\top H v\big],\qquad v_i = \pm 1 \text{ with equal probability}

    Unbiased; the variance of one vector is twice the sum of the squared entries off the diagonal. The traces of all
    parts come from the same products, as the entries of v are independent: the part of v times the same part of Hv.
    The squared entries that couple a part to the others add to its variance. An L2 term in the loss adds exactly
    ``weight_decay`` times the number of weights. Cost: ``vectors`` Hessian products per mini-batch, each with the
    multiplications of six forward passes.
    """

    name = "hessian-trace"
    title = "Trace of the Hessian"
    references = (
        "Hutchinson, A Stochastic Estimator of the Trace of the Influence Matrix, Communications in Statistics 1990",
        "Yao et al., PyHessian: Neural Networks Through the Lens of the Hessian, IEEE BigData 2020",
    )

    vectors: int = bounded_field(20, COUNT)
    """Random vectors for each mini-batch."""
    batch: int = bounded_field(16, COUNT)
    """Images per mini-batch."""
    batches: int = bounded_field(8, COUNT)
    """Number of mini-batches."""
    weight_decay: float = bounded_field(0.0, SIZE)
    """L2 term in the loss: half of this times the squared norm of the weights."""
    per: Per = "model"
    """The trace of the whole model, or of each block, unit or module separately."""
    precision: Precision = "float32"
    """float32 or float64."""
    seed: int = 0
    """Seed of the mini-batches and the random vectors."""

    def __post_init__(self) -> None:
        if self.vectors < 1:
            raise UserError(f"vectors={self.vectors} was given; a trace needs at least 1 random vector.")
        super().__post_init__()

    @property
    @override
    def sample(self) -> LossSample:
        return LossSample(self.batch, self.batches, self.per, self.precision, self.seed)

    def products(self, parts: int) -> int:
        """One for each vector, which all parts share."""
        del parts
        return self.vectors

    def examine(self, problem: CurvatureProblem) -> Record:
        """Each vector's estimate, for every part."""
        hessian, estimates = problem.hessian, list[torch.Tensor]()
        for _ in range(self.vectors):
            signs = torch.randint(0, 2, (hessian.size,), generator=problem.generator) * 2 - 1
            vector = signs.to(hessian.like)
            terms = hessian.split_by_weight(to_float64(vector * hessian.product(vector)))
            estimates.append(
                torch.stack([
                    torch.stack([terms[name].sum() for name in part.weights]).sum() for part in problem.parts
                ]).cpu()
            )  # fmt: skip
        sizes = [sum(hessian.weights[name].numel() for name in part.weights) for part in problem.parts]
        shift = self.weight_decay * torch.tensor(sizes, dtype=torch.float64)
        return {"trace": torch.stack(estimates, dim=1) + shift[:, None]}

    def conclude(self, records: Records) -> xr.Dataset:
        """The mean trace with its error, and each mini-batch's."""
        traces = records.stack("trace")  # part minibatch vector
        mean = traces.mean(2)
        spread = traces.std(2, ddof=1) if self.vectors > 1 else np.full(mean.shape, np.nan)
        each = (mean, spread / np.sqrt(self.vectors), np.full(mean.shape, self.vectors))
        over, error, count = over_minibatches(mean)
        error = np.where(count > 1, error, each[1][:, 0])  # one mini-batch has only the vectors' part
        result = by_part(_TRACE, records.parts, (), (over, error, count), {})
        return result.assign(by_part(_EACH, records.parts, ("minibatch",), each, {"minibatch": list(records.rows)}))

    @classmethod
    def known_answers(cls) -> tuple[KnownCurvature, ...]:
        """A diagonal quadratic in two groups of weights, for which every vector gives the trace itself."""
        problem = problem_of(
            lambda w: 0.5 * (torch.tensor([1.0, 2, -7]).double() * w["a"] ** 2).sum() + 4 * (w["b"] ** 2).sum(),
            {"a": torch.ones(3).double(), "b": torch.ones(2).double()},
            apart=True,
        )
        answer = torch.tensor([-4.0, 16.0], dtype=torch.float64)[:, None].expand(2, cls.vectors)
        return (KnownCurvature("every vector gives the trace of a diagonal Hessian", problem, {"trace": answer}),)
