"""Whether MLP and convolution units sharpen."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.change import TRANSFORMING, changes, judge_rise
from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("mlp-sharpens")
@final
@dataclass(frozen=True)
class MlpSharpens(AbstractFinding):
    """MLP and convolution units raise high spatial frequencies, on average.

    Rule: the change of the relative log amplitude at the highest frequency across a unit, averaged over the MLP and
    convolution units, is significantly above 0, and more than half of them raise it. Park and Kim 2022, figure 8.
    Downsampling units change the grid and are left out.
    """

    name = "mlp-sharpens"
    statement = "MLP and convolution units sharpen: on average they raise high spatial frequencies."
    reference = (
        "Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figure 8: Convs and MLPs are high-pass filters"
    )
    evidence = "fourier-spectrum/sharpening"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.THEORY,
            0.5,
            "MLP and convolution units sharpen: on average they raise high spatial frequencies.",
            "As Park and Kim (2022) find: they and attention complement one another.",
        ),
        fails=Outcome(
            ClaimKind.THEORY,
            0.5,
            "MLP and convolution units smooth: on average they lower high spatial frequencies.",
            "Park and Kim (2022) find the opposite. Large-kernel convolutions at stage ends are known to smooth too; "
            "it is not known to cost accuracy.",
        ),
        undecided=undecided_outcome(
            "whether MLP and convolution units sharpen or smooth on average", ClaimKind.THEORY, 0.15
        ),
    )

    @property
    @override
    def rule(self) -> str:
        return (
            "Mean change of the relative log amplitude at the highest frequency across MLP and convolution units, "
            "t-test over images with the mean of the changes' standard errors: holds above 0, fails below 0, each only "
            "if more than half of the units change that way."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Judge the mean change across the units; None if there are none."""
        return judge_rise(changes(run, self.evidence, TRANSFORMING), rate, "MLP and convolution units")
