"""Whether MLP and convolution units raise the variance of feature maps."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.change import TRANSFORMING, changes, judge_rise
from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("mlp-raises-variance")
@final
@dataclass(frozen=True)
class MlpRaisesVariance(AbstractFinding):
    """MLP and convolution units raise the variance of feature maps, on average.

    Rule: the change of the log variance across a unit, averaged over the MLP and convolution units, is significantly
    above 0, and more than half of them raise it. Park and Kim 2022, figure 9. In a pre-norm network each residual sum
    adds to the stream, which works for this whatever the unit does.
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
            "As Park and Kim (2022) find. In a pre-norm network the residual sum alone would do it, so compare with "
            "the attention units.",
        ),
        fails=Outcome(
            ClaimKind.THEORY,
            0.5,
            "MLP and convolution units lower the variance of feature maps, on average.",
            "Park and Kim (2022) find the opposite. Whether that is good or bad for accuracy is not known.",
        ),
        undecided=undecided_outcome(
            "whether MLP and convolution units raise the variance of feature maps on average", ClaimKind.THEORY, 0.15
        ),
    )

    @property
    @override
    def rule(self) -> str:
        return (
            "Mean change of the log variance across MLP and convolution units, t-test over images with the mean of the "
            "changes' standard errors: holds above 0, fails below 0, each only if more than half of the units change "
            "that way."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Judge the mean change across the units; None if there are none."""
        return judge_rise(changes(run, self.evidence, TRANSFORMING), rate, "MLP and convolution units")
