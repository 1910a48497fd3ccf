"""Whether the heads of a unit repeat one another."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import read_entries, some_below
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("redundant-heads")
@final
@dataclass(frozen=True)
class RedundantHeads(AbstractFinding):
    """In some units all heads attend nearly alike.

    Rule: a unit's Jensen-Shannon divergence among heads, divided by log(heads), is below ``threshold`` beyond its
    error, tested for all units at one false-alarm rate (Bonferroni). Alike in where they attend is not alike in
    what they carry: values differ. Michel, Levy and Neubig, NeurIPS 2019 prune heads by what their loss costs.
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
            "A hypothesis, not proof: see what each head costs, and prune those that cost nothing. "
            "`vitscope study lesion {examined} --of head` leaves them out one at a time.",
        ),
        fails=Outcome(ClaimKind.GOOD, 0.1, "In every unit the heads attend differently.", "Nothing to do."),
        undecided=undecided_outcome("whether in some units the heads attend nearly alike"),
    )

    threshold: float = 0.05
    """Divergence below which heads count as nearly alike."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            "Jensen-Shannon divergence among heads / log(heads) by unit, by t-tests over images, for all units "
            f"together: some below {self.threshold:g} holds, all above fails."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """The units below the threshold; None where no unit has several heads."""
        units = read_entries(run, self.evidence, span=1.0)
        return some_below(units, self.threshold, rate).judgement(f"units below {self.threshold:g}") if units else None
