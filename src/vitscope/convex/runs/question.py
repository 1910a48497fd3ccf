"""Questions about heads: what they share, and the pieces that an interrupted answer leaves."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from time import perf_counter
from typing import TypeVar

import xarray as xr

from vitscope.convex.runs.data import HeadData
from vitscope.convex.runs.piece import AbstractPiece
from vitscope.convex.runs.settings import HeadSettings
from vitscope.convex.solver import SolverStep
from vitscope.engine.plan import Plan
from vitscope.engine.question import AbstractQuestion
from vitscope.measurement.claim import Claim, sort_claims
from vitscope.runs.provenance import provenance
from vitscope.runs.run import Run, make_run

Piece = TypeVar("Piece", bound=AbstractPiece)


@dataclass(frozen=True, eq=False)
class AbstractHeadQuestion(AbstractQuestion, ABC):
    """A question about heads on these tokens, under these settings."""

    data: HeadData
    settings: HeadSettings

    def make_run(
        self,
        groups: Mapping[str, xr.Dataset],
        claims: Sequence[Claim],
        notes: Sequence[str],
        seconds: float,
        plan: Plan,
    ) -> Run:
        """The run of these groups and claims, which took these seconds."""
        origin = provenance(seconds, plan.command)
        all_notes = (*notes, *self.data.notes)
        run = make_run(self.spec, groups, len(self.data.labels), provenance=origin, notes=all_notes)
        return run.with_claims(sort_claims(claims))


class AbstractPiecewiseQuestion(AbstractHeadQuestion, ABC):
    """A question that is answered fit by fit; each finished fit is stored as a part, by its name."""

    @property
    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """The names of all pieces, in the order in which they are made."""

    @property
    def total(self) -> int:
        """The number of pieces."""
        return len(self.parts)

    def kept_amount(self, plan: Plan) -> int:
        """How many pieces an interrupted attempt left in the plan's folder."""
        return 0 if plan.store is None else len(plan.store.parts(self.spec, wanted=self.parts))

    def make_pieces(
        self, plan: Plan, read: Callable[[bytes], Piece], make: Callable[[str, Mapping[str, Piece]], Piece]
    ) -> dict[str, Piece]:
        """All pieces: the stored ones if the plan resumes, the others by ``make``, each stored as soon as it is made.

        ``make`` takes a piece's name and all pieces before it. An interrupt is raised again; the piece under way is
        then lost.
        """
        kept = plan.store.parts(self.spec, read, self.parts) if plan.store is not None and plan.resume else {}
        found = dict[str, Piece]()
        for done, name in enumerate(self.parts):
            plan.progress(max(done, len(kept)), self.total)
            if name not in kept:
                kept[name] = make(name, found)
                if plan.store is not None:
                    plan.store.write_part(self.spec, name, kept[name].to_bytes())
            found[name] = kept[name]
        plan.progress(self.total, self.total)
        return found


def watch(plan: Plan, text: str) -> Callable[[SolverStep], None]:
    """A callback that tells the plan of every step of a solver, after this text."""
    plan.tell(text)
    return lambda step: plan.tell(f"{text}: {describe_step(step)}")


def describe_step(step: SolverStep) -> str:
    """Objective, estimated gap and heads of the best point so far."""
    bound = f"gap about {100 * step.gap:.2g} %" if isfinite(step.gap) else "no bound yet"
    return f"objective {step.primal:.4g}, {bound}, {step.heads} heads"


def stopwatch() -> Callable[[], float]:
    """A function that returns the seconds since this call."""
    began = perf_counter()
    return lambda: perf_counter() - began
