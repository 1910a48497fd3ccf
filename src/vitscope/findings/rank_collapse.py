"""Whether the patch tokens collapse to a line."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import judge_below, last_tokens
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("rank-collapse")
@final
@dataclass(frozen=True)
class RankCollapse(AbstractFinding):
    """The patch tokens of an image differ along hardly more than one direction after the last unit.

    Rule: their effective rank (participation ratio) is significantly below ``threshold``. No claim is made about
    networks whose last stage neither attends nor mixes tokens. Dong et al., ICML 2021, show that attention without
    skip connections and MLPs collapses doubly exponentially with depth.
    """

    name = "rank-collapse"
    statement = "After the last unit the patch tokens of an image differ in fewer than two directions (rank collapse)."
    reference = "Dong, Cordonnier and Loukas, Attention Is Not All You Need, ICML 2021, figure 2"
    evidence = "token-rank/rank"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.PROBLEM,
            0.7,
            statement,
            "Look where the curve falls: that unit's skip connection or normalisation is the first suspect. Take "
            "features from before it.",
        ),
        fails=Outcome(
            ClaimKind.GOOD,
            0.1,
            "After the last unit the patch tokens of an image differ in two or more directions (no rank collapse).",
            "Nothing to do.",
        ),
        undecided=undecided_outcome(
            "whether the patch tokens of an image collapse to a line after the last unit", weight=0.15
        ),
    )

    threshold: float = 2.0
    """Effective rank below which the tokens count as collapsed."""

    @property
    @override
    def rule(self) -> str:
        return (
            "Effective rank of the patch tokens after the last unit, t-test over images: holds below "
            f"{self.threshold:g}, fails above."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Compare the last unit's rank with the threshold; None if it was not measured, or not of tokens."""
        last = last_tokens(run, self.evidence)
        if last is None:
            return None
        return judge_below(
            last.estimate, self.threshold, rate, f"effective rank {last.estimate.text} after {last.place}"
        )
