"""Whether tokens collapse to a line."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, MORE_IMAGES, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.findings.reading import read_entries
from vitscope.measurement.estimate import FALSE_ALARMS, below
from vitscope.runs.run import Run


@FINDINGS.add("rank-collapse")
@final
@dataclass(frozen=True)
class RankCollapse(AbstractFinding):
    """The patch tokens of an image differ along hardly more than one direction after the last unit.

    Rule: their effective rank (participation ratio) is below ``threshold`` beyond its error. Dong et al., ICML 2021
    show that attention without skip connections and MLPs collapses doubly exponentially with depth.
    """

    name = "rank-collapse"
    statement = "The patch tokens of an image differ along fewer than two directions in the end (rank collapse)."
    reference = "Dong, Cordonnier and Loukas, Attention Is Not All You Need, ICML 2021, figure 2"
    evidence = "token-rank/rank"
    outcomes = Outcomes(
        holds=Outcome(
            0.7,
            "Look where the curve falls: that unit's skip connection or normalisation is the first suspect. "
            "Take features from before it.",
        ),
        fails=Outcome(0.1, "Nothing to do: the tokens keep several directions."),
        undecided=Outcome(0.15, MORE_IMAGES),
    )

    threshold: float = 2.0
    """Effective rank below which the tokens count as collapsed."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            f"Effective rank of the patch tokens after the last unit, "
            f"t-test at {FALSE_ALARMS:.0%}: below {self.threshold:g} holds, above fails."
        )

    def judge(self, run: Run) -> Judgement | None:
        """The last unit's rank against the threshold; None where it was not measured."""
        entries = read_entries(run, self.evidence)
        if not entries:
            return None
        last = entries[-1]
        return Judgement(
            below(last.estimate, self.threshold), f"effective rank {last.estimate.text} after {last.place}"
        )
