"""Burer-Monteiro training: add the heads that lower the objective fastest, then train all heads as they are."""

from dataclasses import dataclass

from vitscope.convex.certificate import dual_value
from vitscope.convex.problem import Problem
from vitscope.convex.pulled import largest_pairs, pulled
from vitscope.convex.solver import SOLVERS, AbstractSolver, Progress, Stopped
from vitscope.convex.solvers.parts.growth import grown
from vitscope.convex.solvers.parts.polish import polish


@SOLVERS.add("burer-monteiro")
@dataclass(frozen=True)
class BurerMonteiro(AbstractSolver):
    """Heads by the top singular vectors of the gradient, all of them polished by L-BFGS, round after round.

    It keeps nothing but the heads and L-BFGS's memory of them, and so serves where greedy's features do not fit.
    Source: Burer and Monteiro 2003; Sahiner et al. 2024.
    """

    added: int = 32
    """Heads added in a round at most, over all terms."""
    polishing: int = 30
    """Passes of the first polishing; it grows by a half every round."""

    def improve(self, problem: Problem, progress: Progress) -> Stopped:
        """Certify, add, polish, compress."""
        heads, passes = progress.heads.compressed(), float(self.polishing)
        while True:
            outputs = problem.outputs(heads)
            residual = problem.gradient(outputs)
            images = [pulled(problem, residual, t) for t in range(len(problem.terms))]
            tops = largest_pairs(images, heads, self.added)
            primal = problem.data_loss(outputs) + problem.beta * heads.nuclear_norm
            progress.passes += 2
            progress.reached(heads, primal, dual_value(problem, outputs, max(top.bound for top in tops)))
            if (ended := progress.ended()) is not None:
                return ended
            polished = polish(
                problem.value_and_gradient, grown(problem, heads, outputs, tops), min(int(passes), progress.left)
            )
            progress.passes += polished.passes
            heads = polished.heads.compressed(1e-6)
            if polished.interrupted:
                progress.reached(heads, polished.value)
                raise KeyboardInterrupt
            passes *= 1.5
