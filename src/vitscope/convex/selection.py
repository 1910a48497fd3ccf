"""The choice of beta on held-out images, along a warm-started path."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from torch import Tensor

from vitscope.convex.certificate import largest_beta
from vitscope.convex.heads import Heads
from vitscope.convex.loss import AbstractLoss, CrossEntropy, Squared
from vitscope.convex.problem import Problem
from vitscope.convex.solver import Solution, SolverStep, solve
from vitscope.convex.tokens import Tokens
from vitscope.measurement.errors import UserError

_SPAN = 1e-3
"""The smallest beta of a path, relative to the largest that leaves any head. A free choice: it bounds the search."""
_PATIENCE = 3
"""Trials in a row without a better score that end a path. A free choice: it trades time against a later maximum."""


@dataclass(frozen=True)
class Trial:
    """One beta of the path: the score on the images held out, the certified relative gap, and the number of heads."""

    beta: float
    score: float
    relative_gap: float
    heads: int


@dataclass(frozen=True, eq=False)
class Choice:
    """The best trial (of equal ones the largest beta); ``solution`` is fitted to the images that were not held out."""

    solution: Solution
    beta: float
    trials: tuple[Trial, ...]
    interrupted: bool
    """Whether the user ended the path."""


@dataclass(frozen=True)
class Fitting:
    """How a problem is solved: see :func:`vitscope.convex.solver.solve`."""

    tol: float
    solver: str
    max_passes: int
    watch: Callable[[SolverStep], None] | None

    def solve(self, problem: Problem, start: Heads | None = None) -> Solution:
        """The solution; ``start`` are heads to begin with."""
        return solve(problem, start, solver=self.solver, tol=self.tol, max_passes=self.max_passes, watch=self.watch)


@dataclass(frozen=True, eq=False)
class Split:
    """Which images are fitted to and which are held out."""

    fitted: Int[np.ndarray, " fitted"]
    held: Int[np.ndarray, " held"]


def choose_beta(problem: Problem, split: Split, betas: int, fitting: Fitting, before: Choice | None = None) -> Choice:
    """The beta with the best score on the images held out, along a path down from the largest useful one.

    ``betas`` values fall geometrically from ``largest_beta`` (at which no head is worth its penalty) to a thousandth of
    it. The path ends when three in a row are no better. Trials of the same betas made ``before`` are reused, and the
    path goes on from that solution's heads. Cost: a fit for each beta, each from the heads of the one before.
    """
    fitted, held = part(problem, split.fitted).average_tokens(), part(problem, split.held).average_tokens()
    values = _values(fitted, betas)
    known = before if before is not None and _begins(before.trials, values) else None
    trials, best = ([], None) if known is None else (list(known.trials), known.solution)
    start, interrupted = None if best is None else best.heads, False
    for beta in values[len(trials) :]:
        if trials and len(trials) - 1 - _best(trials) >= _PATIENCE:
            break
        solution = fitting.solve(fitted.with_beta(beta), start)
        interrupted = solution.stopped == "interrupted"
        if interrupted:
            best = solution if best is None or not trials else best
            break
        start = solution.heads
        trials.append(_trial(beta, solution, held))
        if _best(trials) == len(trials) - 1:
            best = solution
    assert best is not None
    return Choice(best, trials[_best(trials)].beta if trials else values[0], tuple(trials), interrupted)


def _values(problem: Problem, betas: int) -> list[float]:
    """The betas of a path, largest first."""
    largest = largest_beta(problem)
    if not largest > 0:
        raise UserError("No head can lower the loss (are all tokens or targets equal?), so give beta as a number.")
    return [float(value) for value in np.geomspace(largest, largest * _SPAN, betas + 1)[1:]]


def _begins(trials: Sequence[Trial], values: list[float]) -> bool:
    """Whether these trials have the first of these betas, up to the rounding of another reading of the tokens."""
    betas = [trial.beta for trial in trials]
    return len(betas) <= len(values) and bool(np.allclose(betas, values[: len(betas)], rtol=1e-6, atol=0))


def _trial(beta: float, solution: Solution, held: Problem) -> Trial:
    reached = score(held.loss, held.outputs(solution.heads.to(held.dtype, held.device)))
    return Trial(beta, reached, solution.certificate.relative_gap, solution.certificate.heads)


def part(problem: Problem, index: Int[np.ndarray, " images"]) -> Problem:
    """The same problem on only these images; their weights again have mean 1."""
    if not isinstance(problem.tokens, Tokens):
        raise TypeError("Only a problem whose tokens are read by index can be divided.")
    loss, images = problem.loss, torch.as_tensor(index)
    if isinstance(loss, CrossEntropy):
        loss = replace(loss, labels=loss.labels[images], weights=_mean_one(loss.weights[images]))
    elif isinstance(loss, Squared):
        loss = replace(loss, targets=loss.targets[images], weights=_mean_one(loss.weights[images]))
    return replace(problem, tokens=problem.tokens.select(index), loss=loss, kept={})


def score(loss: AbstractLoss, outputs: Float[Tensor, "images rows outputs"]) -> float:
    """For classes the weighted share predicted correctly, for numbers the share of the variance explained."""
    outputs = outputs.cpu().double()
    if isinstance(loss, CrossEntropy):
        right = outputs.squeeze(1).argmax(1) == loss.labels
        return float((right * loss.weights.double()).mean())
    if isinstance(loss, Squared):
        targets = loss.targets.double()
        spread = (targets - targets.mean(0)).square().sum().clamp(min=torch.finfo(torch.float64).tiny)
        return 1 - float((outputs - targets).square().sum() / spread)
    raise TypeError(f"There is no score of {type(loss).__name__}.")


def _best(trials: Sequence[Trial]) -> int:
    return max(range(len(trials)), key=lambda at: (trials[at].score, -at))


def _mean_one(weights: Tensor) -> Tensor:
    return weights / weights.mean()


def split(problem: Problem, share: float, seed: int) -> Split:
    """Images held out at random; if every class has enough, each class gives its share."""
    count = len(problem.tokens)
    held = max(1, round(share * count))
    if held >= count:
        raise UserError(
            f"A share of {share:g} of {count} images leaves none to fit to; give more images or a number as beta."
        )
    strata = problem.loss.labels.numpy() if isinstance(problem.loss, CrossEntropy) else None
    if strata is not None:
        sizes = np.bincount(strata)
        enough = sizes.min() >= 2 and min(held, count - held) >= len(sizes)
        strata = strata if enough else None
    fitted, tested = train_test_split(np.arange(count), test_size=held, random_state=seed, stratify=strata)
    return Split(np.sort(fitted), np.sort(tested))


def print_step(step: SolverStep) -> None:
    """Print a line about a step of the solver."""
    cost = f"{step.seconds:8.1f} s {step.passes:6d} passes {step.heads:5d} heads"
    print(f"{cost}  objective {step.primal:.6g}  relative gap about {step.gap:.2e}")


def warn_interrupted() -> None:
    """Warn that the fit was interrupted, and say what is kept."""
    text = (
        "The fit was interrupted; its best point so far is kept, and certificate_ says how far from the optimum it is. "
        "With warm_start=True the next fit continues from there."
    )
    warnings.warn(text, ConvergenceWarning, stacklevel=4)


def warn_of(solution: Solution, problem: Problem, fitting: Fitting) -> None:
    """Warn if a solution misses the tolerance, or has no heads, and say what to do."""
    certificate = solution.certificate
    if certificate.relative_gap > fitting.tol:
        more = ""
        if solution.stopped == "passes":
            more = f" All {fitting.max_passes} passes were made; raise max_passes, tol ({fitting.tol:g}) or beta."
        warnings.warn(certificate.advice + more, ConvergenceWarning, stacklevel=4)
    elif certificate.heads == 0:
        warnings.warn(no_heads(certificate.slack * problem.beta, problem.beta), UserWarning, stacklevel=4)


def no_heads(largest: float, beta: float) -> str:
    """The message for a solution without heads; ``largest`` is the least beta at which none is worth its penalty."""
    if largest > 0:
        then = f"heads begin below {largest:.3g}, so give a beta well below that"
    else:
        then = "none would lower the loss, so check whether all tokens, or all targets, are equal"
    return f"A beta of {beta:.3g} leaves no head, and all images have the same outputs; {then}."
