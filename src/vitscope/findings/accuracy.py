"""How well the accuracy is known."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.findings.reading import read_number
from vitscope.measurement.claim import Verdict
from vitscope.measurement.estimate import wilson
from vitscope.runs.run import Run


@FINDINGS.add("accuracy")
@final
@dataclass(frozen=True)
class KnownAccuracy(AbstractFinding):
    """The accuracy with its uncertainty, and whether that is small enough to compare models by.

    Rule: Wilson's 95 % interval of the top-1 accuracy is at most ``width`` wide. Wilson's interval, unlike the
    standard error, is right for accuracies near 0 and 1 (Wilson, JASA 1927).
    """

    name = "accuracy"
    statement = "The accuracy is known well enough to be compared: its 95 % interval is at most 10 points wide."
    reference = "Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927"
    evidence = "accuracy/top1"
    outcomes = Outcomes(
        holds=Outcome(
            0.3,
            "Compare models on the same images only; a paired test sees smaller differences than two intervals do.",
        ),
        fails=Outcome(
            0.35,
            "Examine more images before comparing: about 400 make the interval at most 10 points wide at any accuracy.",
        ),
        undecided=Outcome(0.0, "Nothing."),
    )

    width: float = 0.1
    """Widest interval that is narrow enough."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return f"Holds where Wilson's 95 % interval of the top-1 accuracy is at most {self.width:g} wide, else fails."

    def judge(self, run: Run) -> Judgement | None:
        """The width of the interval against the widest allowed; None without labels."""
        top1 = read_number(run, "accuracy/top1")
        if top1 is None:
            return None
        low, high = wilson(top1.mean, top1.count)
        figure = (
            f"right on {top1.mean:.1%} of {top1.count} images, standard error {100 * top1.error:.1f} points, "
            f"95 % interval {low:.1%} to {high:.1%}"
        )
        return Judgement(Verdict.HOLDS if high - low <= self.width else Verdict.FAILS, figure)
