"""Whether tokens collapse to a line."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import judge_below, last_tokens
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("rank-collapse")
@final
@dataclass(frozen=True)
class RankCollapse(AbstractFinding):
    """The patch tokens of an image differ along hardly more than one direction after the last unit.

    Rule: their effective rank (participation ratio) is below ``threshold`` beyond its error. Nothing is said of
    networks whose last stage neither attends nor mixes tokens. Dong et al., ICML 2021 show that attention without skip
    connections and MLPs collapses doubly exponentially with depth.
    """

    name = "rank-collapse"
    statement = "The patch tokens of an image differ along fewer than two directions in the end (rank collapse)."
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
            "The patch tokens of an image differ along two directions or more to the end (no rank collapse).",
            "Nothing to do.",
        ),
        undecided=undecided_outcome("whether the patch tokens of an image collapse to a line in the end", weight=0.15),
    )

    threshold: float = 2.0
    """Effective rank below which the tokens count as collapsed."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            "Effective rank of the patch tokens after the last unit, by a t-test over images: below "
            f"{self.threshold:g} holds, above fails."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """The last unit's rank against the threshold; None where it was not measured, or not of tokens."""
        last = last_tokens(run, self.evidence)
        if last is None:
            return None
        return judge_below(
            last.estimate, self.threshold, rate, f"effective rank {last.estimate.text} after {last.place}"
        )
