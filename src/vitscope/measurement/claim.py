"""Claims: a statement, its verdict, what that means to the reader, and the figure that it rests on."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What the figure says about the statement."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"


class ClaimKind(Enum):
    """What a claim means to a user of the model, in the order in which claims are shown."""

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
    """How much it matters, 0 to 1: claims of a kind are shown by falling weight."""
    headline: str = ""
    """A sentence that is true as it reads, whatever the verdict; empty in runs of earlier versions."""
    kind: ClaimKind = ClaimKind.LOOK
    rate: float | None = None
    """The false-alarm rate of its test; None if the rule is not a test."""

    @property
    def sentence(self) -> str:
        """The text after the mark: the headline, or else the statement."""
        return self.headline or self.statement

    @property
    def mark(self) -> str:
        """The text before the sentence: "undecided", the kind of a headline, or whether a statement holds."""
        if self.verdict is Verdict.UNDECIDED:
            return self.verdict.value
        return self.kind.value if self.headline else {Verdict.HOLDS: "holds"}.get(self.verdict, "does not hold")


def sort_claims(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """Claims in the order in which they are shown: by kind, the weightiest of a kind first."""
    order = list(ClaimKind)
    return tuple(sorted(claims, key=lambda claim: (order.index(claim.kind), -claim.weight)))
