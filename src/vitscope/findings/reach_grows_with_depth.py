"""Whether attention reaches further with depth."""

from dataclasses import dataclass, replace
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import by_layer, judge_above, read_entries
from vitscope.measurement.claim import ClaimKind
from vitscope.measurement.estimate import average, difference, scale
from vitscope.runs.run import Run


@FINDINGS.add("reach-grows-with-depth")
@final
@dataclass(frozen=True)
class ReachGrowsWithDepth(AbstractFinding):
    """Attention reaches further the deeper the unit: local heads early, global ones late.

    Rule: the attention distance as a share of that of uniform attention, averaged over the heads of the last third
    of the attention units, exceeds that of the first third by significantly more than ``margin``. Uniform attention in
    the same windows makes windows of different size comparable. Dosovitskiy et al. 2021, figure 7.
    """

    name = "reach-grows-with-depth"
    statement = "Attention reaches further with depth: local heads early, global ones late."
    reference = "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, figure 7"
    evidence = "attention-distance/distance"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.THEORY,
            0.4,
            "Attention reaches further with depth.",
            "As Dosovitskiy et al. (2021) find for ViTs trained on much data. Windows or convolutions could replace "
            "local early heads; only training can tell.",
        ),
        fails=Outcome(
            ClaimKind.THEORY,
            0.4,
            "Attention does not reach further with depth.",
            "Dosovitskiy et al. (2021) find that it does. Little training data is the known cause of missing local "
            "heads (Raghu et al. 2021); a convolutional stem or more data is worth a try.",
        ),
        undecided=undecided_outcome("whether attention reaches further with depth", ClaimKind.THEORY),
    )

    margin: float = 0.05
    """Growth below which it counts as none."""
    local: float = 0.5
    """Share of the uniform distance below which a head counts as local."""

    @property
    @override
    def rule(self) -> str:
        return (
            "Distance / distance of uniform attention, mean of the last third minus mean of the first third of the "
            "attention units, t-test over images with the sum of the standard errors: holds above "
            f"{self.margin:g}, fails below."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Judge the growth from first to last third; None below three attention units with patch queries."""
        uniform = {e.layer: e.estimate.mean for e in read_entries(run, "attention-distance/uniform_distance")}
        heads = [
            replace(e, estimate=scale(e.estimate, 1 / uniform[e.layer]))
            for e in read_entries(run, self.evidence)
            if uniform.get(e.layer, 0.0) > 0
        ]
        layers = by_layer(heads)
        third = len(layers) // 3
        if third == 0:
            return None
        early, late = (average([e.estimate for e in part]) for part in (layers[:third], layers[-third:]))
        first = [e for e in heads if e.layer <= layers[third - 1].layer]
        local = sum(e.estimate.mean < self.local for e in first)
        figure = (
            f"{early.text} of the uniform distance in the first {third} attention units, {late.text} in the last; "
            f"{local} of {len(first)} early heads below {self.local:g}"
        )
        return judge_above(difference(late, early), self.margin, rate, figure)
