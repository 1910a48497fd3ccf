"""Whether attention units smooth."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.change import MIXING, changes, judge_fall
from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("attention-smooths")
@final
@dataclass(frozen=True)
class AttentionSmooths(AbstractFinding):
    """Attention units lower high spatial frequencies, on average.

    Rule: the change of the relative log amplitude at the highest frequency across a unit, averaged over the attention
    units, is significantly below 0, and more than half of them lower it. Park and Kim 2022, figure 8. As in the paper,
    the residual sum is measured, not the branch alone.
    """

    name = "attention-smooths"
    statement = "Attention units smooth: on average they lower high spatial frequencies."
    reference = "Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figure 8: MSAs are low-pass filters"
    evidence = "fourier-spectrum/sharpening"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.THEORY,
            0.5,
            "Attention units smooth: on average they lower high spatial frequencies.",
            "As Park and Kim (2022) find. They argue for attention at the end of a stage, after convolutions; only "
            "training can tell whether that helps this model.",
        ),
        fails=Outcome(
            ClaimKind.THEORY,
            0.5,
            "Attention units sharpen: on average they raise high spatial frequencies.",
            "Park and Kim (2022) find the opposite. Early units and models whose attention stays local are known to "
            "sharpen; it is not known to cost accuracy.",
        ),
        undecided=undecided_outcome("whether attention units smooth or sharpen on average", ClaimKind.THEORY, 0.15),
    )

    @property
    @override
    def rule(self) -> str:
        return (
            "Mean change of the relative log amplitude at the highest frequency across attention units, t-test over "
            "images with the mean of the changes' standard errors: holds below 0, fails above 0, each only if more "
            "than half of the units change that way."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Judge the mean change across the units; None if there are none."""
        return judge_fall(changes(run, self.evidence, MIXING), rate, "attention units")
