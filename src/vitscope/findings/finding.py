"""What a finding is: a rule, fixed before the run, that turns a run's numbers into a claim."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from vitscope.findings.command import fill_in
from vitscope.measurement.claim import Claim, ClaimKind, Verdict
from vitscope.measurement.estimate import FALSE_ALARMS
from vitscope.runs.registry import Registry
from vitscope.runs.run import Run

CHECKUP = "vitscope checkup {examined} --limit {needed}"
"""The command that examines more images."""


@dataclass(frozen=True)
class Judgement:
    """A rule's verdict on a run, the numbers it rests on, and how strongly they show it, 0 to 1."""

    verdict: Verdict
    figure: str
    strength: float = 1.0
    needed: Callable[[], int | None] = lambda: None
    """If undecided: how many samples would decide it, if they are like those seen."""
    obstacle: str = ""
    """If more samples cannot decide it: why, and what could."""
    headline: str = ""
    """A sentence that replaces the headline of the outcome, if not empty."""
    advice: str = ""
    """What to try with this run; replaces the advice of the outcome, if not empty."""


@dataclass(frozen=True)
class Outcome:
    """What a verdict means for the reader.

    ``headline`` is true as it is read. ``weight`` says how much it matters at full strength, 0 to 1. ``advice`` says
    what to try; ``{examined}`` in it is the placeholder for the model and the images, as flags of a command.
    """

    kind: ClaimKind
    weight: float
    headline: str
    advice: str


@dataclass(frozen=True)
class Outcomes:
    """The outcome of each verdict that the rule can give."""

    holds: Outcome
    fails: Outcome | None = None
    undecided: Outcome | None = None

    @property
    def each(self) -> Mapping[Verdict, Outcome]:
        """The outcomes by their verdict."""
        found = ((Verdict.HOLDS, self.holds), (Verdict.FAILS, self.fails), (Verdict.UNDECIDED, self.undecided))
        return {verdict: outcome for verdict, outcome in found if outcome is not None}


def undecided_outcome(question: str, kind: ClaimKind = ClaimKind.LOOK, weight: float = 0.1) -> Outcome:
    """The outcome of a rule whose interval includes the threshold; ``question`` begins with *whether*."""
    return Outcome(
        kind, weight, f"These numbers do not decide {question}.", "The page says how many more would decide it."
    )


class AbstractFinding(ABC):
    """A statement about a model, and the rule that decides it from a run.

    The thresholds are fields with fixed defaults. One file, one registered final class; its docstring gives the rule in
    words and its source.
    """

    name: ClassVar[str]
    statement: ClassVar[str]
    """One plain sentence; the verdict says whether it holds."""
    reference: ClassVar[str]
    evidence: ClassVar[str]
    """The quantity it rests on, as in ``attention-sinks/prefix_mass``; empty if it rests on the spec."""
    outcomes: ClassVar[Outcomes]
    is_test: ClassVar[bool] = True
    """Whether the rule is a test with a false-alarm rate."""
    samples: ClassVar[str] = "images"
    """What the numbers are means over."""
    again: ClassVar[str] = CHECKUP
    """The command that measures the numbers again on ``{needed}`` samples."""

    @property
    @abstractmethod
    def rule(self) -> str:
        """The rule with its numbers."""

    @abstractmethod
    def judge(self, run: Run, rate: float) -> Judgement | None:
        """The verdict at a false-alarm rate; None if the run does not hold what the rule needs."""

    def apply(self, run: Run, rate: float = FALSE_ALARMS) -> Claim | None:
        """The claim about this run; None if the run does not hold what the rule needs."""
        judgement = self.judge(run, rate)
        if judgement is None:
            return None
        outcome = self.outcomes.each[judgement.verdict]
        return Claim(
            name=self.name,
            statement=self.statement,
            verdict=judgement.verdict,
            figure=judgement.figure,
            rule=self.rule,
            reference=self.reference,
            advice=self._decides(judgement, run)
            if judgement.verdict is Verdict.UNDECIDED
            else fill_in(judgement.advice or outcome.advice, run),
            evidence=self.evidence,
            weight=outcome.weight * judgement.strength,
            headline=judgement.headline or outcome.headline,
            kind=outcome.kind,
            rate=rate if self.is_test else None,
        )

    def _decides(self, judgement: Judgement, run: Run) -> str:
        """What would decide it."""
        if judgement.obstacle:
            return judgement.obstacle
        if run.tree.attrs["images"] < 2:
            return "One image has no standard error: examine more images."
        needed = judgement.needed()
        if needed is None:
            return f"More {self.samples} are unlikely to decide it: the measured value lies on the threshold itself."
        return (
            f"About {needed:,} {self.samples} would decide it, if they are like those seen: "
            f"`{fill_in(self.rerun_command(run), run).replace('{needed}', str(needed))}`."
        )

    def rerun_command(self, run: Run) -> str:
        """The command that measures this run's numbers again, with the same settings."""
        del run
        return self.again


FINDINGS: Registry[AbstractFinding] = Registry("finding", "vitscope.findings", AbstractFinding)
