"""Whether MLP and convolution units raise the variance of feature maps."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.change import TRANSFORMING, changes, judge_rise
from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("mlp-raises-variance")
@final
@dataclass(frozen=True)
class MlpRaisesVariance(AbstractFinding):
    """MLP and convolution units raise the variance of feature maps, on average.

    Rule: the logarithm of the variance, after a unit less before it, averaged over the MLP and convolution units,
    is above 0 beyond its error, and more than half of them raise it. Park and Kim 2022, figure 9. The stream of a
    pre-norm network grows by each residual sum, which works for this whatever the unit does.
    """

    name = "mlp-raises-variance"
    statement = "MLP and convolution units raise the variance of feature maps, on average."
    reference = (
        "Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figure 9: Convs and MLPs increase "
        "feature-map variance"
    )
    evidence = "feature-variance/log_change"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.THEORY,
            0.5,
            "MLP and convolution units raise the variance of feature maps, on average.",
            "As the paper finds; in a pre-norm network the residual sum alone would do it, so read it beside the "
            "attention units.",
        ),
        fails=Outcome(
            ClaimKind.THEORY,
            0.5,
            "MLP and convolution units lower the variance of feature maps, on average.",
            "Unlike the paper. Nobody knows whether that is good or bad for accuracy.",
        ),
        undecided=undecided_outcome(
            "whether MLP and convolution units raise the variance of feature maps on average", ClaimKind.THEORY, 0.15
        ),
    )

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            "Mean change of the logarithm of the variance across MLP and convolution "
            "units, by a t-test over images with "
            "the mean of the changes' standard errors: above 0 holds, below 0 fails, "
            "each only if more than half of the units change that way."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """The mean change across the units; None where there are none."""
        return judge_rise(changes(run, self.evidence, TRANSFORMING), rate, "MLP and convolution units")
