"""Whether units can be left out."""

from dataclasses import dataclass, replace
from typing import final

from vitscope.findings.finding import FINDINGS, MORE_IMAGES, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.findings.reading import read_entries, some_above
from vitscope.measurement.estimate import FALSE_ALARMS, of_shares
from vitscope.runs.run import Run


@FINDINGS.add("spare-units")
@final
@dataclass(frozen=True)
class SpareUnits(AbstractFinding):
    """Some unit can be left out, by itself, at next to no loss of accuracy.

    Rule: the change of top-1 accuracy when a unit is replaced by the identity is above ``-margin`` beyond its paired
    error, for some unit. Veit et al. 2016 find it of residual networks, Bhojanapalli et al. 2021 of ViTs.
    """

    name = "spare-units"
    statement = "Some unit can be left out by itself at next to no loss of accuracy."
    reference = "Veit et al., Residual Networks Behave Like Ensembles of Relatively Shallow Networks, NeurIPS 2016"
    evidence = "lesion-accuracy/top1_change"
    outcomes = Outcomes(
        holds=Outcome(
            0.6,
            "Leave it out and measure speed and accuracy again, several such units together first of all: what each "
            "costs by itself does not say what they cost together.",
        ),
        fails=Outcome(0.3, "Every unit is needed as it stands; units can be removed only with training after it."),
        undecided=Outcome(0.1, MORE_IMAGES),
    )

    margin: float = 0.01
    """Loss of accuracy that is next to none."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            f"Change of top-1 accuracy without the unit above -{self.margin:g}: paired t-test over images for each "
            f"unit, its error at least one image's, at {FALSE_ALARMS:.0%} divided by the number of units; holds for "
            "any, fails where all are below."
        )

    def judge(self, run: Run) -> Judgement | None:
        """The units that can go; None where no lesion was studied."""
        changes = read_entries(run, self.evidence, "lesion")
        if not changes:
            return None
        units = [replace(entry, estimate=of_shares(entry.estimate)) for entry in changes]
        found = some_above(units, -self.margin)
        return Judgement(found.verdict, found.text("units"), found.strength)
