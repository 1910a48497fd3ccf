"""Whether the heads of a unit repeat one another."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, MORE_IMAGES, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.findings.reading import read_entries, some_below
from vitscope.measurement.estimate import FALSE_ALARMS
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
            0.55,
            "A hypothesis, not proof: leave heads of these units out one at a time and measure accuracy; "
            "prune those that cost nothing.",
        ),
        fails=Outcome(0.1, "Nothing to do: in every unit the heads attend differently."),
        undecided=Outcome(0.1, MORE_IMAGES),
    )

    threshold: float = 0.05
    """Divergence below which heads count as nearly alike."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            f"Divergence among heads by unit, "
            f"t-tests at {FALSE_ALARMS:.0%} over all units: some below {self.threshold:g} holds, all above fails."
        )

    def judge(self, run: Run) -> Judgement | None:
        """The units below the threshold; None where no unit has two heads."""
        entries = read_entries(run, self.evidence)
        if not entries:
            return None
        found = some_below(entries, self.threshold)
        return Judgement(found.verdict, found.text(f"attention units below {self.threshold:g}"), found.strength)
