"""Whether all queries of the last attention unit attend alike."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import by_layer, judge_below, read_entries
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("query-collapse")
@final
@dataclass(frozen=True)
class QueryCollapse(AbstractFinding):
    """In the last attention unit all patches attend to the same keys, whatever their position.

    Rule: the normalised mutual information of query and key in the last attention unit, averaged over its heads, is
    significantly below ``threshold``. Park et al., ICLR 2023, find this collapse in contrastive training and not in
    masked image modelling.
    """

    name = "query-collapse"
    statement = "In the last attention unit all patches attend to the same keys (attention collapse)."
    reference = "Park et al., What Do Self-Supervised Vision Transformers Learn?, ICLR 2023, figure 3"
    evidence = "attention-diversity/mutual_information"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.LOOK,
            0.5,
            statement,
            "Fine for classification. For dense tasks take features from an earlier unit, or weights from masked image "
            "modelling (MAE, BEiT).",
        ),
        fails=Outcome(
            ClaimKind.GOOD,
            0.15,
            "Where a patch attends depends on its position, up to the last attention unit.",
            "Nothing to do.",
        ),
        undecided=undecided_outcome("whether all patches attend to the same keys in the last attention unit"),
    )

    threshold: float = 0.05
    """Mutual information below which queries count as all alike."""

    @property
    @override
    def rule(self) -> str:
        return (
            "Normalised mutual information of query and key, mean over the heads of the last attention unit, t-test "
            f"over images: holds below {self.threshold:g}, fails above."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Compare the last attention unit with the threshold; None if it was not measured."""
        units = by_layer(read_entries(run, self.evidence, span=1.0))
        if not units:
            return None
        low = sum(unit.estimate.mean < self.threshold for unit in units)
        last = units[-1]
        figure = f"{last.estimate.text} in {last.place}; {low} of {len(units)} attention units below {self.threshold:g}"
        return judge_below(last.estimate, self.threshold, rate, figure)
