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
from vitscope.convex.solvers.parts.growth import grown
from vitscope.convex.solvers.parts.polish import polish


@SOLVERS.add("relu")
@dataclass(frozen=True)
class Relu(AbstractSolver):
    """Heads at the highest local maxima of the dual norm, all of them polished by L-BFGS, round after round.

    The plain network is not smooth where a gate changes, and optimal heads are often just there. So heads that meet a
    row of the data with 0 are kept on it, and each polishing ends with directions fixed, where the problem is convex.
    """

    added: int = 8
    """Heads added to a term in a round."""
    polishing: int = 50
    """Passes of the first polishing; it grows by a fifth every round."""
    samples: int = 64
    """Random starts of the search for new heads."""
    seed: int = 0
    """Of these starts."""

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
            progress.reached(heads, primal, dual_value(problem, outputs, max(top.bound for top in tops)))
            if (ended := progress.ended()) is not None:
                return ended
            heads = held(norms, grown(problem, heads, outputs, tops))
            heads = tidy(polished_twice(problem, progress, norms, heads, int(passes)))
            passes *= 1.2


def polished_twice(problem: Problem, progress: Progress, norms: Sequence[ReluNorm], heads: Heads, passes: int) -> Heads:
    """Polished on the faces that heads are on, then with their directions fixed; ``passes`` at most each time."""
    for keeps in (partial(on_faces, norms), on_rays):
        polished = polish(
            problem.value_and_gradient, heads, min(passes, progress.left), 1e-6 * progress.tol, along=keeps(heads)
        )
        progress.passes += polished.passes
        heads = polished.heads
        if polished.interrupted:
            progress.reached(tidy(heads), polished.value)
            raise KeyboardInterrupt
    return heads


def held(norms: Sequence[ReluNorm], heads: Heads) -> Heads:
    """Heads that are nearly on a face of their cones, moved onto it."""
    moved = on_faces(norms, heads)(heads)
    return Heads(tuple(Factors(new.left, old.right) for new, old in zip(moved.terms, heads.terms, strict=True)))


def on_faces(norms: Sequence[ReluNorm], heads: Heads) -> Callable[[Heads], Heads]:
    """Keeps heads on the faces that they are on, where the network is smooth as it is not across them."""
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
    """Keeps the directions of left weights, so that what remains is convex: a group lasso over heads."""
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
    """ReLU heads balanced, those of one direction merged, and dead ones dropped.

    Left weights are one direction where the cosine of their angle is above ``1 - parallel``; a head is dead whose
    product of norms is below ``dead`` times the largest. Up to these, outputs stay and the penalty does not rise.
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
