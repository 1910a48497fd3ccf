"""Whether the first attention units sharpen."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.change import MIXING, changes, judge_rise
from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("early-attention-sharpens")
@final
@dataclass(frozen=True)
class EarlyAttentionSharpens(AbstractFinding):
    """The first attention units raise high spatial frequencies, unlike attention in general.

    Rule: the mean change of the relative log amplitude at the highest frequency across the first quarter of the
    attention units (at least one) is significantly above 0, and more than half of them raise it. Park and Kim 2022
    name it as the exception: the early attention of a ViT acts like convolutions.
    """

    name = "early-attention-sharpens"
    statement = "The first attention units sharpen, as convolutions do, instead of smoothing."
    reference = (
        "Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figure 8 (the first units are the exception)"
    )
    evidence = "fourier-spectrum/sharpening"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.THEORY,
            0.45,
            "The first attention units sharpen, as convolutions do, instead of smoothing.",
            "The first units do the work of convolutions. A convolutional stem or first stage may do it with fewer "
            "weights; only training can tell.",
        ),
        fails=Outcome(
            ClaimKind.THEORY,
            0.2,
            "The first attention units smooth: they lower high spatial frequencies.",
            "As Park and Kim (2022) find for attention in general; the exception they report for the first units is "
            "not seen here.",
        ),
        undecided=undecided_outcome("whether the first attention units sharpen or smooth", ClaimKind.THEORY, 0.1),
    )

    share: float = 0.25
    """Share of the attention units that count as the first."""
    least: int = 4
    """Attention units needed to distinguish first from later ones."""

    @property
    @override
    def rule(self) -> str:
        return (
            "Mean change of the relative log amplitude at the highest frequency across the first "
            f"{self.share:.0%} of the attention units (at least one), t-test over images with the mean of the changes' "
            "standard errors: holds above 0, fails below 0, each only if more than half of these units change that way."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Judge the mean change across the first attention units; None with fewer than ``least`` in all."""
        found = changes(run, self.evidence, MIXING)
        first = found[: max(1, round(self.share * len(found)))]
        return judge_rise(first, rate, "first attention units") if len(found) >= self.least else None
