"""Solvers: their interface, their progress and solution, and the one call that picks and runs one."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import torch

from vitscope.convex.certificate import Certificate, certify, relative_gap
from vitscope.convex.heads import Heads
from vitscope.convex.problem import Problem
from vitscope.measurement.errors import UserError
from vitscope.runs.registry import Registry

Stopped = Literal["certified", "passes", "interrupted", "stuck"]
"""Why a solver stopped: certified, out of passes, interrupted by the user, or without a way down in this precision."""


@dataclass(frozen=True)
class SolverStep:
    """One step of a solver: the best objective and the best lower bound so far, in working precision.

    ``estimate`` is what a bound would probably be here; solvers whose bound costs more than a step use it on the way.
    It is at least ``dual``.
    """

    seconds: float
    passes: int
    primal: float
    dual: float
    heads: int
    estimate: float

    @property
    def gap(self) -> float:
        """The relative gap by the estimate."""
        return relative_gap(self.primal, self.estimate)


@dataclass(frozen=True, eq=False)
class Solution:
    """The best heads found, their certificate (in float64), the steps there and why they ended."""

    heads: Heads
    certificate: Certificate
    history: tuple[SolverStep, ...]
    stopped: Stopped


class Progress:
    """A solve under way: its best point and bound so far, its history, and whether to end."""

    def __init__(
        self, problem: Problem, start: Heads, tol: float, max_passes: int, watch: Callable[[SolverStep], None] | None
    ) -> None:
        self.problem, self.tol, self.max_passes = problem, tol, max_passes
        self.heads, self.primal, self.dual = start, float("inf"), -float("inf")
        self.passes, self._own, self._asked = 0, -float("inf"), tol
        self.history: list[SolverStep] = []
        self._rounds: list[tuple[float, float]] = []
        self._watch, self._begun = watch, perf_counter()
        self._certified: tuple[Heads, Certificate] | None = None

    @property
    def passes_left(self) -> int:
        """How many passes are left."""
        return max(self.max_passes - self.passes, 0)

    def record(self, heads: Heads, primal: float, dual: float = -float("inf"), certain: bool = True) -> None:
        """Record a point, and a bound or, if not ``certain``, the estimate of one.

        Among points that are equally low up to ``eps``, the one with the best bound is kept.
        """
        if certain:
            self.dual = max(self.dual, dual)
        rounding = torch.finfo(self.problem.dtype).eps * abs(primal)
        if primal < self.primal - rounding or (primal <= self.primal + rounding and dual > self._own):
            self.heads, self._own = heads, dual
        self.primal = min(self.primal, primal)
        estimate = max(self.dual, dual)
        step = SolverStep(perf_counter() - self._begun, self.passes, self.primal, self.dual, self.heads.count, estimate)
        self.history.append(step)
        if self._watch:
            self._watch(step)

    def certified(self) -> bool:
        """Whether the best point's certificate, in float64, is within the tolerance.

        It is computed once the estimated gap is within the tolerance. Each refusal halves that limit, so there are few
        certificates in vain. This trades their cost against steps past the goal; only a certificate ends the training.
        """
        if self.primal - self._own > self._asked * self._own:
            return False
        if self.certificate().relative_gap <= self.tol:
            return True
        self._asked /= 2
        return False

    def stop_reason(self) -> Stopped | None:
        """Why to stop after this round, or None: certified, no passes left, or three rounds without a way down.

        Down means by more than a tenth of the precision's ``eps`` (losses are summed in float64, where that shows), or
        in float64 by 1e-13, 450 times its ``eps``. Stopping too early only misses ``tol``: the certificate stays true.
        """
        if self.certified():
            return "certified"
        if self.passes_left == 0:
            return "passes"
        self._rounds = [*self._rounds[-3:], (self.primal, self.dual)]
        least = max(torch.finfo(self.problem.dtype).eps / 10, 1e-13)
        (primal, dual), still = self._rounds[0], len(self._rounds) == 4
        still = still and primal - self.primal <= least * abs(self.primal) and dual == self.dual
        return "stuck" if still else None

    def certificate(self) -> Certificate:
        """The certificate of the best point, in float64."""
        if self._certified is None or self._certified[0] is not self.heads:
            self._certified = (self.heads, certify(self.problem, self.heads))
        return self._certified[1]


class AbstractSolver(ABC):
    """A way to train heads. Implementations are frozen dataclasses of their options, registered by name."""

    @abstractmethod
    def improve(self, problem: Problem, progress: Progress) -> Stopped:
        """Lower the objective from ``progress.heads``, recording points in ``progress``, until it is time to stop."""

    def solve(
        self,
        problem: Problem,
        start: Heads | None = None,
        *,
        tol: float = 1e-3,
        max_passes: int = 2000,
        watch: Callable[[SolverStep], None] | None = None,
    ) -> Solution:
        """Train until the certified relative gap is at most ``tol``, or ``max_passes`` passes were made.

        ``start`` are heads to begin with; ``watch`` is called with every step. An interrupt (control-C) ends the
        training with the best point so far and its certificate; a second one is raised as usual.
        """
        problem = problem.average_tokens()
        begin = problem.no_heads() if start is None else start.to(problem.dtype, problem.device)
        progress = Progress(problem, begin, tol, max_passes, watch)
        try:
            stopped = self.improve(problem, progress)
            progress.certificate()
        except KeyboardInterrupt:
            stopped = "interrupted"
        certificate = replace(progress.certificate(), stuck=stopped == "stuck")
        return Solution(progress.heads, certificate, tuple(progress.history), stopped)


SOLVERS: Registry[AbstractSolver] = Registry("solver", "vitscope.convex.solvers")


def choose_solver(problem: Problem) -> AbstractSolver:
    """The solver that "auto" picks.

    "relu" for ReLU heads; "lifted" for many gates of one output, whose lifted variables are vectors and cost little
    together; "greedy" for all others.
    """
    if problem.relu:
        return SOLVERS["relu"]()
    vectors = all(problem.shape(term)[1:] == (1, 1) for term in problem.terms)
    return SOLVERS["lifted" if vectors and problem.joint() is not None else "greedy"]()


def solve(
    problem: Problem,
    start: Heads | None = None,
    *,
    solver: str = "auto",
    tol: float = 1e-3,
    max_passes: int = 2000,
    watch: Callable[[SolverStep], None] | None = None,
) -> Solution:
    """Train with the solver of that name: see :meth:`AbstractSolver.solve`."""
    if solver != "auto" and problem.relu != (solver == "relu"):
        raise UserError(
            f"Solver {solver!r} does not train {'ReLU' if problem.relu else 'linear or gated'} heads; use 'auto', or "
            "'relu' for ReLU heads and another one for all others."
        )
    picked = choose_solver(problem) if solver == "auto" else SOLVERS[solver]()
    return picked.solve(problem, start, tol=tol, max_passes=max_passes, watch=watch)
