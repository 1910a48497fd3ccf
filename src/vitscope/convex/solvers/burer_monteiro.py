"""Burer-Monteiro training: add the heads that lower the objective fastest, then train all weights of all heads."""

from dataclasses import dataclass

from vitscope.convex.certificate import dual_value
from vitscope.convex.problem import Problem
from vitscope.convex.pulled import largest_pairs, pull_image
from vitscope.convex.solver import SOLVERS, AbstractSolver, Progress, Stopped
from vitscope.convex.solvers.parts.growth import grow_heads
from vitscope.convex.solvers.parts.polish import polish

GROWTH = 1.5
"""Factor of the passes of a polishing from round to round. It trades searches for new heads against passes with too few
heads: a free choice that only affects speed, because the certificate decides."""
DEAD = 1e-6
"""Times a term's largest singular value: heads up to this are dropped. At rest that changes the objective by their
square, and the next round evaluates the heads that are left."""


@SOLVERS.add("burer-monteiro")
@dataclass(frozen=True)
class BurerMonteiro(AbstractSolver):
    """Adds heads along the top singular vectors of the gradient and polishes all of them by L-BFGS, round after round.

    It keeps only the heads and L-BFGS's memory of them, so it works where greedy's features do not fit.
    Source: Burer and Monteiro 2003; Sahiner et al. 2024.
    """

    added: int = 32
    """The most heads added in a round, over all terms. Only affects speed."""
    polishing: int = 30
    """Passes of the first polishing; they grow by a half every round. Only affects speed."""

    def improve(self, problem: Problem, progress: Progress) -> Stopped:
        """Certify, add, polish, compress."""
        heads, passes = progress.heads.compress(), float(self.polishing)
        while True:
            outputs = problem.outputs(heads)
            residual = problem.gradient(outputs)
            images = [pull_image(problem, residual, t) for t in range(len(problem.terms))]
            tops = largest_pairs(images, heads, self.added)
            primal = problem.data_loss(outputs) + problem.beta * heads.nuclear_norm
            progress.passes += 2
            progress.record(heads, primal, dual_value(problem, outputs, max(top.bound for top in tops)))
            if (ended := progress.stop_reason()) is not None:
                return ended
            polished = polish(
                problem.value_and_gradient,
                grow_heads(problem, heads, outputs, tops),
                min(int(passes), progress.passes_left),
            )
            progress.passes += polished.passes
            heads = polished.heads.compress(DEAD)
            if polished.interrupted:
                progress.record(heads, polished.value)
                raise KeyboardInterrupt
            passes *= GROWTH
