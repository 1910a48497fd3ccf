"""ReLU heads: greedy training of the plain network, with the heads that would lower the objective searched for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import normalize

from vitscope.convex.certificate import dual_value
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.problem import Problem
from vitscope.convex.relu_norm import ReluNorm, relu_norms
from vitscope.convex.solver import SOLVERS, AbstractSolver, Progress, Stopped
from vitscope.convex.solvers.parts.growth import grow_heads
from vitscope.convex.solvers.parts.polish import polish

GROWTH = 1.2
"""Factor of the passes of a polishing from round to round. It trades searches for new heads against passes with too few
heads: a free choice that only affects speed, because every round measures the heads it has."""
REST = 1e-6
"""Times the tolerance: a polishing ends if a step lowers the objective by less than this share of it. A free choice
that only affects speed: a further round or the limit of passes follows, and the certificate decides."""


@SOLVERS.add("relu")
@dataclass(frozen=True)
class Relu(AbstractSolver):
    """Adds heads at the highest local maxima of the dual norm and polishes all of them by L-BFGS, round after round.

    The plain network is not smooth where a gate changes, and optimal heads often lie exactly there. So a head whose
    activity on a row of the data is 0 keeps it 0, and each polishing ends with directions fixed: a convex problem.
    """

    added: int = 8
    """The most heads added to a term in a round. Only affects speed."""
    polishing: int = 50
    """Passes of the first polishing; they grow by a fifth every round. Only affects speed."""
    samples: int = 64
    """Random starts of the search for new heads."""
    seed: int = 0
    """Seed of these starts."""

    def improve(self, problem: Problem, progress: Progress) -> Stopped:
        """Certify, add, polish, tidy up."""
        norms = relu_norms(problem, samples=self.samples, seed=self.seed)
        heads, passes = tidy(progress.heads), float(self.polishing)
        while True:
            outputs = problem.outputs(heads)
            residual = problem.gradient(outputs)
            tops = [
                norm.largest(residual, part.left, self.added) for norm, part in zip(norms, heads.terms, strict=True)
            ]
            primal = problem.data_loss(outputs) + problem.beta * heads.half_squares
            progress.passes += 2
            progress.record(heads, primal, dual_value(problem, outputs, max(top.bound for top in tops)))
            if (ended := progress.stop_reason()) is not None:
                return ended
            heads = snap_to_faces(norms, grow_heads(problem, heads, outputs, tops))
            heads = tidy(polish_twice(problem, progress, norms, heads, int(passes)))
            passes *= GROWTH


def polish_twice(problem: Problem, progress: Progress, norms: Sequence[ReluNorm], heads: Heads, passes: int) -> Heads:
    """Polish heads on the faces that they are on, then with their directions fixed; each in at most ``passes``."""
    for keeps in (partial(on_faces, norms), on_rays):
        polished = polish(
            problem.value_and_gradient,
            heads,
            min(passes, progress.passes_left),
            REST * progress.tol,
            along=keeps(heads),
        )
        progress.passes += polished.passes
        heads = polished.heads
        if polished.interrupted:
            progress.record(tidy(heads), polished.value)
            raise KeyboardInterrupt
    return heads


def snap_to_faces(norms: Sequence[ReluNorm], heads: Heads) -> Heads:
    """Move heads that are nearly on a face of their cones onto it."""
    moved = on_faces(norms, heads)(heads)
    return Heads(tuple(Factors(new.left, old.right) for new, old in zip(moved.terms, heads.terms, strict=True)))


def on_faces(norms: Sequence[ReluNorm], heads: Heads) -> Callable[[Heads], Heads]:
    """A projection of gradients that keeps heads on their faces: along a face the network is smooth, across it not."""
    planes = [norm.planes(part.left) for norm, part in zip(norms, heads.terms, strict=True)]

    def along(gradient: Heads) -> Heads:
        return Heads(
            tuple(
                Factors(part.left - torch.einsum("hlk,hmk,hm->hl", plane, plane, part.left), part.right)
                for part, plane in zip(gradient.terms, planes, strict=True)
            )
        )

    return along


def on_rays(heads: Heads) -> Callable[[Heads], Heads]:
    """A projection of gradients that keeps left weights' directions: a group lasso over heads, which is convex."""
    units = [normalize(part.left, dim=1) for part in heads.terms]

    def along(gradient: Heads) -> Heads:
        return Heads(
            tuple(
                Factors((part.left * unit).sum(1, keepdim=True) * unit, part.right)
                for part, unit in zip(gradient.terms, units, strict=True)
            )
        )

    return along


def tidy(heads: Heads, parallel: float = 1e-8, dead: float = 1e-7) -> Heads:
    """Balance ReLU heads, merge those of one direction and drop dead ones.

    Left weights have one direction if the cosine of their angle is above ``1 - parallel`` (an angle of 1.4e-4); a head
    is dead if its product of norms is at most ``dead`` times the largest. Up to these, outputs stay and the penalty
    does not rise. Both are free choices that may cost the last digits of a gap, but never the truth of a certificate:
    the solver measures the heads that this returns.
    """
    return Heads(tuple(_tidy(factors, parallel, dead) for factors in heads.terms))


def _tidy(factors: Factors, parallel: float, dead: float) -> Factors:
    if len(factors) == 0:
        return factors
    lengths = factors.left.double().norm(dim=1)
    units = normalize(factors.left.double(), dim=1)
    owner = (units @ units.T > 1 - parallel).byte().argmax(1)
    full = factors.right.double() * lengths[:, None, None]
    rights = torch.zeros_like(full).index_add_(0, owner, full)
    sizes = rights.flatten(1).norm(dim=1)
    kept = sizes > dead * sizes.max()
    roots = sizes[kept].sqrt()
    left, right = units[kept] * roots[:, None], rights[kept] / roots[:, None, None]
    return Factors(left.to(factors.left), right.to(factors.right))
