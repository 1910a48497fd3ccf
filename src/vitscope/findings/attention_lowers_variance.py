"""Whether attention units lower the variance of feature maps."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.change import MIXING, changes, judge_fall
from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("attention-lowers-variance")
@final
@dataclass(frozen=True)
class AttentionLowersVariance(AbstractFinding):
    """Attention units lower the variance of feature maps, on average.

    Rule: the change of the log variance across a unit, averaged over the attention units, is significantly below 0,
    and more than half of them lower it. Park and Kim 2022, figure 9. The logarithm gives all units of a network the
    same weight. In a pre-norm network each residual sum adds to the stream, which works against this.
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
            "As Park and Kim (2022) find: attention averages over positions, as an ensemble does.",
        ),
        fails=Outcome(
            ClaimKind.THEORY,
            0.5,
            "Attention units raise the variance of feature maps, on average.",
            "Park and Kim (2022) find the opposite. In pre-norm networks each residual sum adds to the stream whatever "
            "the unit does: look at the curve over depth before reading more into it.",
        ),
        undecided=undecided_outcome(
            "whether attention units lower the variance of feature maps on average", ClaimKind.THEORY, 0.15
        ),
    )

    @property
    @override
    def rule(self) -> str:
        return (
            "Mean change of the log variance across attention units, t-test over images with the mean of the changes' "
            "standard errors: holds below 0, fails above 0, each only if more than half of the units change that way."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Judge the mean change across the units; None if there are none."""
        return judge_fall(changes(run, self.evidence, MIXING), rate, "attention units")
