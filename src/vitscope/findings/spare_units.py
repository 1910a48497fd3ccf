"""Whether any single unit can be left out."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import read_lesions, some_above
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("spare-units")
@final
@dataclass(frozen=True)
class SpareUnits(AbstractFinding):
    """Some single unit can be left out at next to no loss of accuracy.

    Rule: for some unit, the change of top-1 accuracy when it is replaced by the identity is above ``-margin`` by the
    exact interval of the images gained and lost. Studies of heads, of several units together and of units replaced by
    their mean do not count. Veit et al. 2016 find this for residual networks, Bhojanapalli et al. 2021 for ViTs.
    """

    name = "spare-units"
    statement = "Some single unit can be left out at next to no loss of accuracy."
    reference = "Veit et al., Residual Networks Behave Like Ensembles of Relatively Shallow Networks, NeurIPS 2016"
    evidence = "lesion-accuracy/top1_change"
    again = "vitscope study lesion {examined} --limit {needed}"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.LOOK,
            0.6,
            "Some single unit can be left out at a loss of less than 1 point of accuracy.",
            "What units cost one at a time does not say what they cost together. To measure that, name their layers: "
            "`vitscope study lesion {examined} --layers LAYER,LAYER`.",
        ),
        fails=Outcome(
            ClaimKind.GOOD,
            0.3,
            "Every unit is needed: leaving any one out costs more than 1 point of accuracy.",
            "Units can be removed only if the model is trained afterwards.",
        ),
        undecided=undecided_outcome("whether some single unit can be left out at next to no loss of accuracy"),
    )

    margin: float = 0.01
    """Loss of accuracy that counts as next to none."""

    @property
    @override
    def rule(self) -> str:
        return (
            f"Change of top-1 accuracy without the unit above -{self.margin:g}, by the exact interval of the images "
            "gained and lost (Clopper and Pearson), for each unit at the rate divided by their number: holds if any is "
            "above, fails if all are below."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Test whether any unit can go; None if fewer than two single units were left out."""
        units = read_lesions(run)
        return some_above(units, -self.margin, rate).judgement("units") if len(units) > 1 else None
