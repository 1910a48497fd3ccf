"""Solvers: what they are asked, what they answer, and the one call that picks and runs one."""

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
"""Why a solver stopped: the gap is small enough, no passes are left, the user, or no way down in this precision."""


@dataclass(frozen=True)
class Step:
    """Where a solver was: the best objective and the best lower bound so far, in working precision.

    ``estimate`` is what a bound would probably be here; solvers for which a bound costs more than a step make do with
    it on the way. It is at least ``dual``.
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
    """The best heads found, what certifies them (in float64), the way there and why it ended."""

    heads: Heads
    certificate: Certificate
    history: tuple[Step, ...]
    stopped: Stopped


class Progress:
    """A solve under way: its best point and bound so far, its history, and when it is to end."""

    def __init__(
        self, problem: Problem, start: Heads, tol: float, max_passes: int, watch: Callable[[Step], None] | None
    ) -> None:
        self.problem, self.tol, self.max_passes = problem, tol, max_passes
        self.heads, self.primal, self.dual = start, float("inf"), -float("inf")
        self.passes, self._own, self._asked = 0, -float("inf"), tol
        self.history: list[Step] = []
        self._rounds: list[tuple[float, float]] = []
        self._watch, self._begun = watch, perf_counter()
        self._certified: tuple[Heads, Certificate] | None = None

    @property
    def left(self) -> int:
        """How many passes are left."""
        return max(self.max_passes - self.passes, 0)

    def reached(self, heads: Heads, primal: float, dual: float = -float("inf"), certain: bool = True) -> None:
        """Take note of a point, and of a bound or, where it is not ``certain``, the estimate of one.

        Of points that are equally low but for rounding, the one with the best bound is kept.
        """
        if certain:
            self.dual = max(self.dual, dual)
        rounding = torch.finfo(self.problem.dtype).eps * abs(primal)
        if primal < self.primal - rounding or (primal <= self.primal + rounding and dual > self._own):
            self.heads, self._own = heads, dual
        self.primal = min(self.primal, primal)
        estimate = max(self.dual, dual)
        step = Step(perf_counter() - self._begun, self.passes, self.primal, self.dual, self.heads.count, estimate)
        self.history.append(step)
        if self._watch:
            self._watch(step)

    def certified(self) -> bool:
        """Whether the best point's certificate, in float64, is within the tolerance.

        It is made where it may be, and after it was not, where the gap has halved.
        """
        if self.primal - self._own > self._asked * self._own:
            return False
        if self.certificate().relative_gap <= self.tol:
            return True
        self._asked /= 2
        return False

    def ended(self) -> Stopped | None:
        """Whether to stop after this round: certified, no passes left, or three rounds without a way down."""
        if self.certified():
            return "certified"
        if self.left == 0:
            return "passes"
        self._rounds = [*self._rounds[-3:], (self.primal, self.dual)]
        least = max(torch.finfo(self.problem.dtype).eps / 10, 1e-13)
        (primal, dual), still = self._rounds[0], len(self._rounds) == 4
        still = still and primal - self.primal <= least * abs(self.primal) and dual == self.dual
        return "stuck" if still else None

    def certificate(self) -> Certificate:
        """Of the best point."""
        if self._certified is None or self._certified[0] is not self.heads:
            self._certified = (self.heads, certify(self.problem, self.heads))
        return self._certified[1]


class AbstractSolver(ABC):
    """A way to train heads. Implementations are frozen dataclasses of its options, registered by name."""

    @abstractmethod
    def improve(self, problem: Problem, progress: Progress) -> Stopped:
        """Go down from ``progress.heads``, telling ``progress`` of every point reached, until it is time to stop."""

    def solve(
        self,
        problem: Problem,
        start: Heads | None = None,
        *,
        tol: float = 1e-3,
        max_passes: int = 2000,
        watch: Callable[[Step], None] | None = None,
    ) -> Solution:
        """Train until the certified relative gap is ``tol`` at most, or ``max_passes`` passes were made.

        ``start`` are heads to begin with; ``watch`` is told every step. An interrupt (control-C) ends the training with
        the best point so far and its certificate; a second one is raised as ever.
        """
        problem = problem.averaged()
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


def chosen(problem: Problem) -> AbstractSolver:
    """The solver that "auto" stands for.

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
    watch: Callable[[Step], None] | None = None,
) -> Solution:
    """Train by the solver of that name: see :meth:`AbstractSolver.solve`."""
    if solver != "auto" and problem.relu != (solver == "relu"):
        raise UserError(
            f"Solver {solver!r} was given for {'ReLU' if problem.relu else 'linear or gated'} heads; take 'auto', or "
            "'relu' for ReLU heads and another one for all others."
        )
    picked = chosen(problem) if solver == "auto" else SOLVERS[solver]()
    return picked.solve(problem, start, tol=tol, max_passes=max_passes, watch=watch)
