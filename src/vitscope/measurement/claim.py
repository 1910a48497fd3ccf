"""Claims: a statement, its verdict, what that means to the reader, and the figure that it rests on."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What the figure says of the statement."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"


class ClaimKind(Enum):
    """What a claim is to somebody who uses the model, in the order in which claims are shown."""

    PROBLEM = "problem"
    LOOK = "look at this"
    GOOD = "good"
    THEORY = "about the theory"


@dataclass(frozen=True)
class Claim:
    """A statement about a run. The rule was fixed before the run; ``figure`` is what it was applied to."""

    name: str
    statement: str
    verdict: Verdict
    figure: str
    rule: str
    reference: str
    advice: str
    evidence: str
    weight: float
    """How much it matters, 0 to 1: findings of a kind are shown in this order."""
    headline: str = ""
    """A sentence that is true as it is read, whatever the verdict; empty in runs of earlier versions."""
    kind: ClaimKind = ClaimKind.LOOK
    rate: float | None = None
    """The false-alarm rate of its test; None of a rule that is no test."""

    @property
    def sentence(self) -> str:
        """What is read after the mark: the headline, or the statement."""
        return self.headline or self.statement

    @property
    def mark(self) -> str:
        """What is read before it: the kind, or that it is undecided; of a statement what became of it."""
        if self.verdict is Verdict.UNDECIDED:
            return self.verdict.value
        return self.kind.value if self.headline else {Verdict.HOLDS: "holds"}.get(self.verdict, "does not hold")


def foremost(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """Claims in the order in which they are shown: by kind, the weightiest of each first."""
    order = list(ClaimKind)
    return tuple(sorted(claims, key=lambda claim: (order.index(claim.kind), -claim.weight)))
