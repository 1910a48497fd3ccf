"""Whether attention units lower the variance of feature maps."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.change import MIXING, changes, judge_fall
from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("attention-lowers-variance")
@final
@dataclass(frozen=True)
class AttentionLowersVariance(AbstractFinding):
    """Attention units lower the variance of feature maps, on average.

    Rule: the logarithm of the variance, after a unit less before it, averaged over the attention units, is below 0
    beyond its error, and more than half of them lower it. Park and Kim 2022, figure 9. The logarithm makes the
    units of a network count alike. The stream of a pre-norm network grows by each residual sum, which works against
    this.
    """

    name = "attention-lowers-variance"
    statement = "Attention units lower the variance of feature maps, on average."
    reference = "Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figure 9: MSAs reduce feature-map variance"
    evidence = "feature-variance/log_change"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.THEORY,
            0.5,
            "Attention units lower the variance of feature maps, on average.",
            "As the paper finds: attention averages over positions, as an ensemble does.",
        ),
        fails=Outcome(
            ClaimKind.THEORY,
            0.5,
            "Attention units raise the variance of feature maps, on average.",
            "Unlike the paper. In pre-norm networks each residual sum adds to the stream, whatever the unit; look at "
            "the curve by depth before reading more into it.",
        ),
        undecided=undecided_outcome(
            "whether attention units lower the variance of feature maps on average", ClaimKind.THEORY, 0.15
        ),
    )

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            "Mean change of the logarithm of the variance across attention units, by a "
            "t-test over images with "
            "the mean of the changes' standard errors: below 0 holds, above 0 fails, "
            "each only if more than half of the units change that way."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """The mean change across the units; None where there are none."""
        return judge_fall(changes(run, self.evidence, MIXING), rate, "attention units")
