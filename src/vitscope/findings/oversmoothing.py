"""Whether tokens become alike."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, MORE_IMAGES, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.findings.reading import read_entries
from vitscope.measurement.estimate import FALSE_ALARMS, above
from vitscope.runs.run import Run


@FINDINGS.add("oversmoothing")
@final
@dataclass(frozen=True)
class Oversmoothing(AbstractFinding):
    """The patch tokens of an image are nearly alike after the last unit.

    Rule: their mean cosine is above ``threshold`` beyond its error. The cosine is that of the tokens as they are: a
    large mean token alone can raise it, so look at the effective rank beside it. Wang et al., ICLR 2022.
    """

    name = "oversmoothing"
    statement = "The patch tokens of an image are nearly alike in the end (oversmoothing)."
    reference = (
        "Wang et al., Anti-Oversmoothing in Deep Vision Transformers via the Fourier Domain Analysis, "
        "ICLR 2022, figure 1"
    )
    evidence = "token-similarity/cosine"
    outcomes = Outcomes(
        holds=Outcome(
            0.7,
            "For dense tasks take features from an earlier unit, where the curve is lower. In training: "
            "fewer units, or the paper's AttnScale and FeatScale; to be tested.",
        ),
        fails=Outcome(0.1, "Nothing to do: positions can be told apart to the end."),
        undecided=Outcome(0.15, MORE_IMAGES),
    )

    threshold: float = 0.9
    """Mean cosine above which tokens count as nearly alike."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            f"Mean cosine between patch tokens after the last unit, "
            f"t-test at {FALSE_ALARMS:.0%}: above {self.threshold:g} holds, below fails."
        )

    def judge(self, run: Run) -> Judgement | None:
        """The last unit's cosine against the threshold; None where it was not measured."""
        entries = read_entries(run, self.evidence)
        if not entries:
            return None
        last = entries[-1]
        return Judgement(above(last.estimate, self.threshold), f"mean cosine {last.estimate.text} after {last.place}")
