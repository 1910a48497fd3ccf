"""What a finding is: a rule, fixed before the run, that makes a claim of a run's numbers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from vitscope.measurement.claim import Claim, Verdict
from vitscope.runs.registry import Registry
from vitscope.runs.run import Run

MORE_IMAGES = "Examine more images: the standard errors shrink with the square root of their number."
"""What to try where nothing could be decided."""


@dataclass(frozen=True)
class Judgement:
    """What a rule makes of a run: the verdict, the numbers it rests on, and how strongly they show it, 0 to 1."""

    verdict: Verdict
    figure: str
    strength: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """What a verdict means for the reader: how much it matters at full strength, 0 to 1, and what to try."""

    weight: float
    advice: str


@dataclass(frozen=True)
class Outcomes:
    """The outcome of each verdict."""

    holds: Outcome
    fails: Outcome
    undecided: Outcome

    def __getitem__(self, verdict: Verdict) -> Outcome:
        return {Verdict.HOLDS: self.holds, Verdict.FAILS: self.fails, Verdict.UNDECIDED: self.undecided}[verdict]


class AbstractFinding(ABC):
    """A statement about a model and the rule by which a run decides on it.

    The thresholds are fields with fixed defaults; rules that compare means state their false-alarm rate. One file,
    one registered final class; its docstring is the rule in words and where it comes from.
    """

    name: ClassVar[str]
    statement: ClassVar[str]
    """One plain sentence; the verdict says whether it holds."""
    reference: ClassVar[str]
    evidence: ClassVar[str]
    """The quantity it rests on, as in ``attention-sinks/prefix_mass``; empty where it is the spec."""
    outcomes: ClassVar[Outcomes]

    @property
    @abstractmethod
    def rule(self) -> str:
        """The rule with its numbers."""

    @abstractmethod
    def judge(self, run: Run) -> Judgement | None:
        """The verdict; None where the run does not hold what the rule needs."""

    def apply(self, run: Run) -> Claim | None:
        """The claim about this run; None where the run does not hold what the rule needs."""
        judgement = self.judge(run)
        if judgement is None:
            return None
        outcome = self.outcomes[judgement.verdict]
        return Claim(
            name=self.name,
            statement=self.statement,
            verdict=judgement.verdict,
            figure=judgement.figure,
            rule=self.rule,
            reference=self.reference,
            advice=outcome.advice,
            evidence=self.evidence,
            weight=outcome.weight * judgement.strength,
        )


FINDINGS: Registry[AbstractFinding] = Registry("finding", "vitscope.findings", AbstractFinding)
