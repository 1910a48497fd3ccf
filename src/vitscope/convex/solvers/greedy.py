"""Greedy training: add the heads that lower the objective fastest, then train all heads in the space they span."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from vitscope.convex.certificate import dual_value
from vitscope.convex.growth import fresh, sized
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.polish import polish
from vitscope.convex.problem import Problem
from vitscope.convex.pulled import largest_pairs, pulled
from vitscope.convex.restricted import Restricted, feature_bytes, restricted
from vitscope.convex.scaling import scaling
from vitscope.convex.solver import SOLVERS, AbstractSolver, Progress, Stopped
from vitscope.convex.solvers.burer_monteiro import BurerMonteiro
from vitscope.numerics.singular import Operator, Singular

LATE = 1e-3
"""The relative gap from which on the space keeps what the heads of the round before spanned."""


@SOLVERS.add("greedy")
@dataclass(frozen=True)
class Greedy(AbstractSolver):
    r"""Heads by the top singular vectors of the gradient, and all of them trained together, round after round.

    A round certifies, and adds to every term's left space the gradient's singular vectors above beta and its products
    with the heads' right weights. In these spaces a pass costs little: heads are trained there by L-BFGS, in
    coordinates in which the curvature is about the same everywhere. Late, the space keeps the heads of the round before
    too, which makes rounds conjugate (Knyazev 2001). Where what that keeps of the images would take more than the
    problem's ``memory``, Burer-Monteiro training goes on. Source: the greedy rule is that of conditional gradients
    (Jaggi 2013), the factors are Burer and Monteiro's (2003), the coordinates Martens and Grosse's (2015).

    A pass in these spaces is counted as one too, though it costs less: ``basis inner outputs`` multiply-adds a row.
    """

    added: int = 40
    """Heads added in a round at most, over all terms."""
    polishing: int = 30
    """Passes of the first training; it grows by a fifth every round."""

    def improve(self, problem: Problem, progress: Progress) -> Stopped:
        """Certify, widen, train, narrow."""
        heads, passes = progress.heads.compressed(), float(self.polishing)
        if feature_bytes(problem, [len(factors) for factors in heads.terms]) > problem.memory:
            return BurerMonteiro().improve(problem, progress)
        space = restricted(problem, heads)
        here = space.coordinates(heads)
        while True:
            outputs = space.outputs(here)
            residual = problem.gradient(outputs)
            images = [pulled(problem, residual, t) for t in range(len(problem.terms))]
            tops = largest_pairs(images, space.heads(here), self.added)
            primal = problem.data_loss(outputs) + problem.beta * here.nuclear_norm
            progress.passes += 1
            progress.reached(space.heads(here), primal, dual_value(problem, outputs, max(top.bound for top in tops)))
            if (ended := progress.ended()) is not None:
                return ended
            new = directions(here, images, tops, problem.beta)
            if (
                feature_bytes(problem, [len(b) + len(n) for b, n in zip(space.bases, new, strict=True)])
                > problem.memory
            ):
                return BurerMonteiro().improve(problem, progress)
            space = space.widened(new)
            begin = begun(space, here, outputs, tops)
            polished = polish(space, begin, min(int(passes), progress.left), scaling=scaling(space, begin, outputs))
            progress.passes += polished.passes
            trained = polished.heads.compressed(1e-5)
            if polished.interrupted:
                progress.reached(space.heads(trained), polished.value)
                raise KeyboardInterrupt
            late = progress.primal - progress.dual <= LATE * progress.dual
            space, here = space.narrowed(trained, here if late else trained)
            passes *= 1.2


def directions(
    here: Heads, images: Sequence[Operator], tops: Sequence[Singular], beta: float
) -> list[Float[Tensor, "_ _"]]:
    """Where a term's left space is to grow: the singular vectors above beta, and where the gradient moves its heads."""
    return [
        torch.cat((top.left[top.values > beta], image.adjoint(factors.right.flatten(1))))
        for factors, image, top in zip(here.terms, images, tops, strict=True)
    ]


def begun(
    space: Restricted, here: Heads, outputs: Float[Tensor, "images rows outputs"], tops: Sequence[Singular]
) -> Heads:
    """The heads and the new ones at their best size, in the coordinates of a space that was widened for them."""
    new = space.coordinates(fresh(space.problem, tops))
    more = sized(space.problem, new, space.outputs(new), outputs) if new.count else new
    padded = [
        Factors(pad(factors.left, (0, len(basis) - factors.left.shape[1])), factors.right)
        for factors, basis in zip(here.terms, space.bases, strict=True)
    ]
    return Heads(tuple(padded)).joined(more.terms)
