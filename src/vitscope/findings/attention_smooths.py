"""Whether attention units smooth."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.change import MIXING, changes, judge_fall
from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("attention-smooths")
@final
@dataclass(frozen=True)
class AttentionSmooths(AbstractFinding):
    """Attention units lower high spatial frequencies, on average.

    Rule: the relative log amplitude at the highest frequency, after a unit less before it, averaged over the
    attention units, is below 0 beyond its error, and more than half of them lower it. Park and Kim 2022, figure 8.
    The residual sum is measured, not the branch alone, as in the paper.
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
            "As the paper finds. It argues for attention at the end of a stage, after convolutions; whether that helps "
            "this model, only training tells.",
        ),
        fails=Outcome(
            ClaimKind.THEORY,
            0.5,
            "Attention units sharpen: on average they raise high spatial frequencies.",
            "Unlike the paper. It is known of early units and of models whose attention stays local; that it costs "
            "accuracy is not known.",
        ),
        undecided=undecided_outcome("whether attention units smooth or sharpen on average", ClaimKind.THEORY, 0.15),
    )

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            "Mean change of the relative log amplitude at the highest frequency across attention units, by a "
            "t-test over images with "
            "the mean of the changes' standard errors: below 0 holds, above 0 fails, "
            "each only if more than half of the units change that way."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """The mean change across the units; None where there are none."""
        return judge_fall(changes(run, self.evidence, MIXING), rate, "attention units")
