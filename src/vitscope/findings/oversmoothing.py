"""Whether tokens become alike."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import judge_above, last_tokens
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("oversmoothing")
@final
@dataclass(frozen=True)
class Oversmoothing(AbstractFinding):
    """The patch tokens of an image are nearly alike after the last unit.

    Rule: their mean cosine is above ``threshold`` beyond its error. The cosine is that of the tokens as they are: a
    large mean token alone can raise it, so look at the effective rank beside it. Nothing is said of networks whose last
    stage neither attends nor mixes tokens: cells of a convolutional map are no tokens. Wang et al., ICLR 2022.
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
            ClaimKind.LOOK,
            0.7,
            statement,
            "Harmless for a class token or averaged tokens. For dense tasks take features from an earlier unit, where "
            "the curve is lower; the paper's AttnScale and FeatScale are changes of training.",
        ),
        fails=Outcome(
            ClaimKind.GOOD,
            0.1,
            "The patch tokens of an image can be told apart to the end (no oversmoothing).",
            "Nothing to do.",
        ),
        undecided=undecided_outcome("whether the patch tokens of an image are nearly alike in the end", weight=0.15),
    )

    threshold: float = 0.9
    """Mean cosine above which tokens count as nearly alike."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            "Mean cosine between patch tokens after the last unit, by a t-test over images: above "
            f"{self.threshold:g} holds, below fails."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """The last unit's cosine against the threshold; None where it was not measured, or not of tokens."""
        last = last_tokens(run, self.evidence, span=2.0)
        if last is None:
            return None
        return judge_above(last.estimate, self.threshold, rate, f"mean cosine {last.estimate.text} after {last.place}")
