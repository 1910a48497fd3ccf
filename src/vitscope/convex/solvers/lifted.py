"""Training of the lifted variables themselves, by accelerated proximal gradient steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.convex.certificate import dual_value
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.problem import Problem
from vitscope.convex.pulled import SIDE
from vitscope.convex.solver import SOLVERS, AbstractSolver, Progress, Stopped
from vitscope.measurement.errors import UserError

Lifted = Sequence[Float[Tensor, "_ _"]]
"""A lifted variable of every term."""


@dataclass(frozen=True, eq=False)
class _Point:
    """Lifted variables, the outputs that they give, and the objective there with its smooth part."""

    lifted: Lifted
    outputs: Float[Tensor, "images rows outputs"]
    heads: Heads
    loss: float
    objective: float


@SOLVERS.add("lifted")
@dataclass(frozen=True)
class LiftedFista(AbstractSolver):
    r"""Accelerated proximal gradient on the lifted variables.

    .. math:: Z \leftarrow \mathrm{SVT}_{\beta/L}(Y - T^*(R) / L)

    ``SVT`` lowers every singular value by beta/L, at least to zero. The step is found by backtracking, and the momentum
    starts anew where the objective rises. Its memory and an iteration's decompositions grow with the lifted variables,
    so it is for small ones; it has no rank to find and no other choices. Source: Beck and Teboulle 2009; O'Donoghue and
    Candes 2015 (restart); Toh and Yun 2010 (nuclear norm).
    """

    checked: int = 10
    """Iterations from one bound to the next."""

    def improve(self, problem: Problem, progress: Progress) -> Stopped:
        """Step by step, with a bound every few steps."""
        for term in problem.terms:
            left, inner, outputs = problem.shape(term)
            if min(left, inner * outputs) > SIDE:
                raise UserError(
                    f"The lifted variable has {left} x {inner * outputs} entries, too many for solver 'lifted'; take "
                    "'greedy'."
                )
        here = self._start(problem, progress.heads)
        there, momentum, constant = here, 1.0, _curvature(problem)
        for step in range(10**9):
            residual = problem.gradient(there.outputs)
            images = [problem.image(residual, t) for t in range(len(problem.terms))]
            if step % self.checked == 0:
                norm = max(float(torch.linalg.matrix_norm(image, 2)) for image in images)
                progress.reached(here.heads, here.objective, dual_value(problem, there.outputs, norm))
                if (ended := progress.ended()) is not None:
                    return ended
            new, constant, tried = _step(problem, there, images, constant)
            progress.passes += 1 + tried
            if new.objective > here.objective and momentum > 1:
                there, momentum = here, 1.0
                continue
            faster = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            there, here, momentum = _beyond(problem, here, new, (momentum - 1) / faster), new, faster
        return "passes"

    def _start(self, problem: Problem, heads: Heads) -> _Point:
        return _point(problem, [factors.lifted() for factors in heads.terms], heads)


def _step(problem: Problem, there: _Point, images: Lifted, constant: float) -> tuple[_Point, float, int]:
    """The proximal step at a constant for which the loss lies below its quadratic model; the next constant; the tries.

    Where rounding hides the difference of the two, the constant is kept as it is.
    """
    tried, rounding = 0, 1e3 * max(torch.finfo(problem.dtype).eps / 10, 1e-15) * abs(there.loss)
    while True:
        tried += 1
        heads = Heads(
            tuple(
                thresholded(z - image / constant, problem.beta / constant, problem.shape(term)[1])
                for z, image, term in zip(there.lifted, images, problem.terms, strict=True)
            )
        )
        new = _point(problem, [factors.lifted() for factors in heads.terms], heads)
        moves = [after - before for after, before in zip(new.lifted, there.lifted, strict=True)]
        slope = sum(float((move * image).sum()) for move, image in zip(moves, images, strict=True))
        square = constant / 2 * sum(float(move.square().sum()) for move in moves)
        if square <= rounding:
            return new, constant, tried
        if new.loss <= there.loss + slope + square:
            return new, 0.9 * constant, tried
        constant *= 2


def thresholded(matrix: Float[Tensor, "left right"], threshold: float, inner: int) -> Factors:
    """Singular value thresholding: balanced heads of the matrix with every singular value lowered, at least to 0."""
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    roots = (values - threshold).clamp(min=0).sqrt()
    kept = roots > 0
    left = (u[:, kept] * roots[kept]).T.contiguous()
    return Factors(left, (v[kept] * roots[kept, None]).unflatten(1, (inner, -1)))


def _point(problem: Problem, lifted: Lifted, heads: Heads) -> _Point:
    outputs = problem.outputs(heads)
    loss = problem.data_loss(outputs)
    return _Point(lifted, outputs, heads, loss, loss + problem.beta * heads.half_squares)


def _beyond(problem: Problem, before: _Point, now: _Point, share: float) -> _Point:
    """Extrapolated; outputs are linear, so they are too."""
    lifted = [b + share * (b - a) for a, b in zip(before.lifted, now.lifted, strict=True)]
    outputs = now.outputs + share * (now.outputs - before.outputs)
    return _Point(lifted, outputs, now.heads, problem.data_loss(outputs), float("nan"))


def _curvature(problem: Problem, rounds: int = 10) -> float:
    """An estimate of the loss's curvature in the lifted variables, by power iteration; backtracking mends it."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(problem.tokens), problem.rows, problem.sizes.outputs)
    seen = torch.randn(shape, generator=generator, dtype=torch.float64).to(problem.device, problem.dtype)
    size = 1.0
    for _ in range(rounds):
        size = float(seen.norm())
        seen = seen / size
        images = [problem.image(seen, t) for t in range(len(problem.terms))]
        seen = problem.outputs(
            Heads(tuple(_as_heads(image, problem.shape(t)[1]) for image, t in zip(images, problem.terms, strict=True)))
        )
    return max(size * problem.loss.curvature / problem.loss.images, torch.finfo(problem.dtype).tiny)


def _as_heads(image: Float[Tensor, "left right"], inner: int) -> Factors:
    """A matrix as heads that read one row or one column each, whichever are fewer."""
    if image.shape[0] <= image.shape[1]:
        return Factors(torch.eye(image.shape[0]).to(image), image.unflatten(1, (inner, -1)))
    readouts = torch.eye(image.shape[1]).to(image).unflatten(1, (inner, -1))
    return Factors(image.T.contiguous(), readouts)
