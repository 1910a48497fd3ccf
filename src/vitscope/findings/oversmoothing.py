"""Whether tokens become alike."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import judge_above, last_tokens
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("oversmoothing")
@final
@dataclass(frozen=True)
class Oversmoothing(AbstractFinding):
    """The patch tokens of an image are nearly alike after the last unit.

    Rule: their mean cosine is significantly above ``threshold``. The tokens are not centred: a large mean token alone
    can raise the cosine, so look at the effective rank too. No claim is made about networks whose last stage neither
    attends nor mixes tokens: cells of a convolutional map are not tokens. Wang et al., ICLR 2022.
    """

    name = "oversmoothing"
    statement = "The patch tokens of an image are nearly alike after the last unit (oversmoothing)."
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
            "the curve is lower; AttnScale and FeatScale (Wang et al. 2022) are remedies that need training.",
        ),
        fails=Outcome(
            ClaimKind.GOOD,
            0.1,
            "The patch tokens of an image remain distinguishable to the last unit (no oversmoothing).",
            "Nothing to do.",
        ),
        undecided=undecided_outcome(
            "whether the patch tokens of an image are nearly alike after the last unit", weight=0.15
        ),
    )

    threshold: float = 0.9
    """Mean cosine above which tokens count as nearly alike."""

    @property
    @override
    def rule(self) -> str:
        return (
            "Mean cosine between patch tokens after the last unit, t-test over images: holds above "
            f"{self.threshold:g}, fails below."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Compare the last unit's cosine with the threshold; None if it was not measured, or not of tokens."""
        last = last_tokens(run, self.evidence, span=2.0)
        if last is None:
            return None
        return judge_above(last.estimate, self.threshold, rate, f"mean cosine {last.estimate.text} after {last.place}")
