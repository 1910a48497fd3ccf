"""Training of the lifted variables themselves, by accelerated proximal gradient steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.convex.block import AbstractJoint
from vitscope.convex.certificate import dual_value
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.problem import Problem
from vitscope.convex.pulled import SIDE
from vitscope.convex.solver import SOLVERS, AbstractSolver, Progress, Stopped
from vitscope.convex.solvers.parts.restricted import Restricted, feature_bytes, whole
from vitscope.measurement.errors import UserError

Lifted = Sequence[Float[Tensor, "_ _ _"]]
"""Lifted variables ``terms left inner_outputs``; consecutive ones of one shape are stacked."""

ROUNDING = 1e3
"""Times the rounding of the loss: a quadratic term up to this is not compared with the loss.

The rounding is taken as ``eps / 10``, at least 1e-15 (losses are summed in float64): 1e-5 of the loss in float32 and
1e-12 in float64. Too small, noise would double the constant again and again; too large, steps there are not checked.
Either only affects speed: objectives are measured, and the certificate decides.
"""
SHRINKING, DOUBLING = 0.9, 2
"""Factors of the step's constant after a step and after a failed try: every step tries a slightly longer one.

Free choices that only affect speed: up to rounding, a step is taken only if the loss is below its model.
"""


@dataclass(frozen=True, eq=False)
class _Map:
    """The map from lifted variables to outputs, and its adjoint.

    For all terms at once if the block knows how, by features if the problem's memory holds them, else by passes.
    """

    problem: Problem
    joint: AbstractJoint | None
    space: Restricted | None
    stacks: tuple[int, ...]
    """How many terms each stack has."""

    def outputs(self, lifted: Lifted) -> Float[Tensor, "images rows outputs"]:
        if self.joint is not None:
            return self.joint.outputs(lifted[0])
        each = [one for stack in lifted for one in stack]
        if self.space is not None:
            return self.space.outputs_of(each)
        shapes = map(self.problem.shape, self.problem.terms)
        return self.problem.outputs(Heads(tuple(_as_heads(z, shape[1]) for z, shape in zip(each, shapes, strict=True))))

    def images(self, residual: Float[Tensor, "images rows outputs"]) -> Lifted:
        if self.joint is not None:
            return [self.joint.images(residual)]
        if self.space is not None:
            return self.stack_terms(self.space.images(residual))
        return self.stack_terms([self.problem.image(residual, term) for term in range(len(self.problem.terms))])

    def stack_terms(self, each: Sequence[Float[Tensor, "_ _"]]) -> Lifted:
        starts = accumulate(self.stacks, initial=0)
        return [torch.stack(list(each[at : at + size])) for at, size in zip(starts, self.stacks, strict=False)]


def _map(problem: Problem) -> _Map:
    shapes = [problem.shape(term) for term in problem.terms]
    stacks = tuple(len(list(group)) for _, group in groupby(shapes))
    lefts, joint, space = [left for left, _, _ in shapes], problem.joint(), None
    if joint is None and feature_bytes(problem, lefts) <= problem.memory:
        space = whole(problem)
    return _Map(problem, joint, space, stacks)


@dataclass(frozen=True, eq=False)
class _Point:
    """Lifted variables, their outputs, and the objective there with its smooth part."""

    lifted: Lifted
    outputs: Float[Tensor, "images rows outputs"]
    loss: float
    objective: float


@SOLVERS.add("lifted")
@dataclass(frozen=True)
class LiftedFista(AbstractSolver):
    r"""Accelerated proximal gradient on the lifted variables.

    .. math:: Z \leftarrow \mathrm{SVT}_{\beta/L}(Y - T^*(R) / L)

    ``SVT`` lowers every singular value by beta/L, but not below 0. The step is found by backtracking, and the momentum
    restarts when the objective rises. Its memory and an iteration's decompositions grow with the lifted variables, so
    it is for small ones; it needs no rank and no other settings. Source: Beck and Teboulle 2009; O'Donoghue and Candes
    2015 (restart); Toh and Yun 2010 (nuclear norm).
    """

    checked: int = 10
    """Iterations from one bound to the next: a bound takes the spectral norms. Only affects speed."""

    def improve(self, problem: Problem, progress: Progress) -> Stopped:
        """Step after step, with a bound every few steps."""
        for term in problem.terms:
            left, inner, outputs = problem.shape(term)
            if min(left, inner * outputs) > SIDE:
                raise UserError(
                    f"The lifted variable has {left} x {inner * outputs} entries, too many for solver 'lifted'; use "
                    "'greedy'."
                )
        by = _map(problem)
        begun = by.stack_terms([factors.lift() for factors in progress.heads.terms])
        here = _point(by, begun, progress.heads.nuclear_norm)
        there, momentum, constant = here, 1.0, _curvature(by)
        for step in range(10**9):  # without end: the passes run out
            images = by.images(problem.gradient(there.outputs))
            if step % self.checked == 0:
                norm = max(float(torch.linalg.matrix_norm(image, 2).max()) for image in images)
                progress.record(_heads(problem, here), here.objective, dual_value(problem, there.outputs, norm))
                if (ended := progress.stop_reason()) is not None:
                    return ended
            new, constant, tried = _step(by, there, images, constant)
            progress.passes += 1 + tried
            if new.objective > here.objective and momentum > 1:
                there, momentum = here, 1.0
                continue
            faster = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            there, here, momentum = _extrapolate(problem, here, new, (momentum - 1) / faster), new, faster
        return "passes"


def _step(by: _Map, there: _Point, images: Lifted, constant: float) -> tuple[_Point, float, int]:
    """The proximal step at a constant for which the loss is below its quadratic model; the next constant; the tries.

    If rounding hides the difference of the two, the constant stays as it is.
    """
    problem = by.problem
    tried, rounding = 0, ROUNDING * max(torch.finfo(problem.dtype).eps / 10, 1e-15) * abs(there.loss)
    while True:
        tried += 1
        lower = [
            threshold_singular_values(z - image / constant, problem.beta / constant)
            for z, image in zip(there.lifted, images, strict=True)
        ]
        new = _point(by, [matrices for matrices, _ in lower], sum(float(norms) for _, norms in lower))
        moves = [after - before for after, before in zip(new.lifted, there.lifted, strict=True)]
        slope = sum(float((move * image).sum()) for move, image in zip(moves, images, strict=True))
        square = constant / 2 * sum(float(move.square().sum()) for move in moves)
        if square <= rounding:
            return new, constant, tried
        if new.loss <= there.loss + slope + square:
            return new, SHRINKING * constant, tried
        constant *= DOUBLING


def threshold_singular_values(
    matrices: Float[Tensor, "terms left right"], threshold: float
) -> tuple[Float[Tensor, "terms left right"], Float[Tensor, ""]]:
    """Singular value thresholding: every singular value lowered, but not below 0; and the sum of the nuclear norms."""
    if min(matrices.shape[1:]) == 1:
        norms = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
        lowered = (norms - threshold).clamp(min=0)
        return matrices * (lowered / norms.clamp(min=torch.finfo(norms.dtype).tiny)), lowered.sum()
    u, values, v = torch.linalg.svd(matrices, full_matrices=False)
    lowered = (values - threshold).clamp(min=0)
    return (u * lowered.unsqueeze(1)) @ v, lowered.sum()


def from_lifted(lifted: Float[Tensor, "left inner_outputs"], inner: int, tolerance: float = 1e-12) -> Factors:
    """The heads of a lifted variable by its singular value decomposition: balanced, as many as its rank.

    Singular values up to ``tolerance`` times the largest count as 0; the solver passes their rounding. Source: Sahiner
    et al. 2022, the reconstruction after theorem 3.1.
    """
    u, values, v = torch.linalg.svd(lifted, full_matrices=False)
    kept = values > tolerance * values[0].clamp(min=torch.finfo(values.dtype).tiny)
    roots = values[kept].sqrt()
    return Factors((u[:, kept] * roots).T.contiguous(), (v[kept] * roots[:, None]).unflatten(1, (inner, -1)))


def _heads(problem: Problem, point: _Point) -> Heads:
    each = [one for stack in point.lifted for one in stack]
    rounding = max(each[0].shape) * torch.finfo(problem.dtype).eps
    return Heads(
        tuple(from_lifted(z, problem.shape(term)[1], rounding) for z, term in zip(each, problem.terms, strict=True))
    )


def _point(by: _Map, lifted: Lifted, norm: float) -> _Point:
    outputs = by.outputs(lifted)
    loss = by.problem.data_loss(outputs)
    return _Point(lifted, outputs, loss, loss + by.problem.beta * norm)


def _extrapolate(problem: Problem, before: _Point, now: _Point, share: float) -> _Point:
    """The point extrapolated from two; outputs are linear, so they are extrapolated too."""
    lifted = [b + share * (b - a) for a, b in zip(before.lifted, now.lifted, strict=True)]
    outputs = now.outputs + share * (now.outputs - before.outputs)
    return _Point(lifted, outputs, problem.data_loss(outputs), float("nan"))


def _curvature(by: _Map, rounds: int = 10) -> float:
    """An estimate of the loss's curvature in the lifted variables, by power iteration.

    It may be too small; backtracking corrects it, so ``rounds`` only affects speed.
    """
    problem, generator = by.problem, torch.Generator().manual_seed(0)
    shape = (len(problem.tokens), problem.rows, problem.sizes.outputs)
    seen = torch.randn(shape, generator=generator, dtype=torch.float64).to(problem.device, problem.dtype)
    size = 1.0
    for _ in range(rounds):
        size = float(seen.norm())
        seen = by.outputs(by.images(seen / size))
    return max(size * problem.loss.curvature / problem.loss.images, torch.finfo(problem.dtype).tiny)


def _as_heads(image: Float[Tensor, "left right"], inner: int) -> Factors:
    """A matrix as heads that read one row or one column each, whichever are fewer."""
    if image.shape[0] <= image.shape[1]:
        return Factors(torch.eye(image.shape[0]).to(image), image.unflatten(1, (inner, -1)))
    readouts = torch.eye(image.shape[1]).to(image).unflatten(1, (inner, -1))
    return Factors(image.T.contiguous(), readouts)
