"""Whether the heads of a unit repeat one another."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import read_entries, some_below
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("redundant-heads")
@final
@dataclass(frozen=True)
class RedundantHeads(AbstractFinding):
    """In some units all heads attend nearly alike.

    Rule: a unit's Jensen-Shannon divergence among heads, divided by log(heads), is significantly below ``threshold``,
    tested for all units at one false-alarm rate (Bonferroni). Heads that attend alike need not carry the same: their
    values differ. Michel, Levy and Neubig, NeurIPS 2019, prune heads by what losing them costs.
    """

    name = "redundant-heads"
    statement = "In some units the heads attend nearly alike (redundant heads)."
    reference = "Michel, Levy and Neubig, Are Sixteen Heads Really Better than One?, NeurIPS 2019"
    evidence = "attention-diversity/heads"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.LOOK,
            0.55,
            statement,
            "A hypothesis, not proof: measure what removing each head costs, and prune those that cost nothing. "
            "`vitscope study lesion {examined} --of head` leaves them out one at a time.",
        ),
        fails=Outcome(ClaimKind.GOOD, 0.1, "In every unit the heads attend differently.", "Nothing to do."),
        undecided=undecided_outcome("whether in some units the heads attend nearly alike"),
    )

    threshold: float = 0.05
    """Divergence below which heads count as nearly alike."""

    @property
    @override
    def rule(self) -> str:
        return (
            "Jensen-Shannon divergence among heads / log(heads) by unit, t-tests over images for all units together: "
            f"holds if some are below {self.threshold:g}, fails if all are above."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Test whether any unit is below the threshold; None if no unit has several heads."""
        units = read_entries(run, self.evidence, span=1.0)
        return some_below(units, self.threshold, rate).judgement(f"units below {self.threshold:g}") if units else None
