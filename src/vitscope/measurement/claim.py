"""Claims: a statement, its verdict, and the figure the verdict rests on."""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What the figure says of the statement."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"


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
    """How much it matters, 0 to 1: findings are shown in this order."""
