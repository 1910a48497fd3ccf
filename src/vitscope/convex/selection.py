"""The choice of beta on images that are held out, along a warm-started path."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from torch import Tensor

from vitscope.convex.heads import Heads
from vitscope.convex.loss import AbstractLoss, CrossEntropy, Squared
from vitscope.convex.path import largest_beta, path
from vitscope.convex.problem import Problem
from vitscope.convex.solver import Solution, Step, solve
from vitscope.convex.tokens import Tokens
from vitscope.measurement.errors import UserError

_SPAN = 1e-3
_PATIENCE = 3


@dataclass(frozen=True)
class Trial:
    """One beta of the path: the score on the images held out, the certified relative gap, and the number of heads."""

    beta: float
    score: float
    relative_gap: float
    heads: int


@dataclass(frozen=True, eq=False)
class Choice:
    """The best of the trials (of equal ones the largest beta); ``solution`` is of the images that were not held out."""

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
    watch: Callable[[Step], None] | None

    def solve(self, problem: Problem, start: Heads | None = None) -> Solution:
        """The solution, from heads to begin with or none."""
        return solve(problem, start, solver=self.solver, tol=self.tol, max_passes=self.max_passes, watch=self.watch)


@dataclass(frozen=True, eq=False)
class Split:
    """Which images are fitted to and which are held out."""

    fitted: Int[np.ndarray, " fitted"]
    held: Int[np.ndarray, " held"]


def chosen(problem: Problem, split: Split, betas: int, fitting: Fitting) -> Choice:
    """The beta with the best score on the images held out, of a path from the largest that matters down.

    ``betas`` values fall geometrically from ``largest_beta`` (where no head is worth its price) to a thousandth of it.
    The path ends when three of them in a row brought nothing better. Cost: the path, each from the one before.
    """
    fitted, held = part(problem, split.fitted), part(problem, split.held)
    largest = largest_beta(fitted)
    if not largest > 0:
        raise UserError("No head can lower the loss (do all tokens, or all targets, agree?), so give beta as a number.")
    values = [float(value) for value in np.geomspace(largest, largest * _SPAN, betas + 1)[1:]]
    trials: list[Trial] = []

    def stop(solution: Solution) -> bool:
        heads = solution.heads.to(held.dtype, held.device)
        reached = score(held.loss, held.outputs(heads))
        certificate = solution.certificate
        trials.append(Trial(values[len(trials)], reached, certificate.relative_gap, certificate.heads))
        return len(trials) - 1 - _best(trials) >= _PATIENCE

    solutions = path(
        fitted,
        values,
        tol=fitting.tol,
        max_passes=fitting.max_passes,
        solver=fitting.solver,
        watch=fitting.watch,
        stop=stop,
    )
    best = _best(trials) if trials else 0
    return Choice(solutions[best], values[best], tuple(trials), solutions[-1].stopped == "interrupted")


def part(problem: Problem, index: Int[np.ndarray, " images"]) -> Problem:
    """The same problem of these images alone; their weights again have mean 1."""
    if not isinstance(problem.tokens, Tokens):
        raise TypeError("Only a problem whose tokens are read by index can be divided.")
    loss, images = problem.loss, torch.as_tensor(index)
    if isinstance(loss, CrossEntropy):
        loss = replace(loss, labels=loss.labels[images], weights=_mean_one(loss.weights[images]))
    elif isinstance(loss, Squared):
        loss = replace(loss, targets=loss.targets[images], weights=_mean_one(loss.weights[images]))
    return replace(problem, tokens=problem.tokens.of(index), loss=loss, kept={})


def score(loss: AbstractLoss, outputs: Float[Tensor, "images rows outputs"]) -> float:
    """Of classes the weighted share that is right, of numbers the share of the variance that is explained."""
    outputs = outputs.cpu().double()
    if isinstance(loss, CrossEntropy):
        right = outputs.squeeze(1).argmax(1) == loss.labels
        return float((right * loss.weights.double()).mean())
    if isinstance(loss, Squared):
        targets = loss.targets.double()
        spread = (targets - targets.mean(0)).square().sum().clamp(min=torch.finfo(torch.float64).tiny)
        return 1 - float((outputs - targets).square().sum() / spread)
    raise TypeError(f"There is no score of {type(loss).__name__}.")


def _best(trials: list[Trial]) -> int:
    return max(range(len(trials)), key=lambda at: (trials[at].score, -at))


def _mean_one(weights: Tensor) -> Tensor:
    return weights / weights.mean()


def split(problem: Problem, share: float, seed: int) -> Split:
    """Images held out at random, of every class its share where there are enough of each."""
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


def print_step(step: Step) -> None:
    """A line about a step of the solver."""
    gap = (step.primal - step.dual) / step.dual if step.dual > 0 else float("inf")
    cost = f"{step.seconds:8.1f} s {step.passes:6d} passes {step.heads:5d} heads"
    print(f"{cost}  objective {step.primal:.6g}  relative gap {gap:.2e}")


def warn_interrupted() -> None:
    """Say that the fit was interrupted and what is kept."""
    text = (
        "The fit was interrupted; its best point so far is kept, and certificate_ says how far from the optimum it is."
    )
    warnings.warn(text, ConvergenceWarning, stacklevel=4)
