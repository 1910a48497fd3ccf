"""How precisely the accuracy is known."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.findings.reading import read_number
from vitscope.measurement.claim import ClaimKind, Verdict
from vitscope.measurement.exact import SHOWN, clopper_pearson
from vitscope.runs.run import Run


@FINDINGS.add("accuracy")
@final
@dataclass(frozen=True)
class KnownAccuracy(AbstractFinding):
    """The accuracy with its uncertainty, and whether that is small enough to compare models.

    Rule: the exact 95 % interval of the top-1 accuracy is at most ``width`` wide. Unlike the standard error, it is
    right for accuracies near 0 and 1 and for few images (Clopper and Pearson, Biometrika 1934).
    """

    name = "accuracy"
    statement = "The accuracy is known well enough to be compared: its 95 % interval is at most 10 points wide."
    reference = "Clopper and Pearson, The Use of Confidence or Fiducial Limits Illustrated, Biometrika 1934"
    evidence = "accuracy/top1"
    is_test = False
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.GOOD,
            0.3,
            "The accuracy is known well enough to compare models: its 95 % interval is at most 10 points wide.",
            "Compare models on the same images only: `vitscope compare RUN RUN` puts them side by side.",
        ),
        fails=Outcome(
            ClaimKind.LOOK,
            0.35,
            "The accuracy is not known well enough to compare models: its 95 % interval is over 10 points wide.",
            "About 410 images make the interval at most 10 points wide at any accuracy: "
            "`vitscope checkup {examined} --limit 410`.",
        ),
    )

    width: float = 0.1
    """Width of the interval up to which it is narrow enough."""

    @property
    @override
    def rule(self) -> str:
        return (
            f"Holds if the exact {1 - SHOWN:.0%} interval (Clopper and Pearson) of the top-1 accuracy is at most "
            f"{self.width:g} wide, otherwise fails."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Compare the width of the interval with the limit; None without labels."""
        del rate
        top1 = read_number(run, "accuracy/top1")
        if top1 is None:
            return None
        low, high = clopper_pearson(float(round(top1.mean * top1.count)), top1.count, SHOWN)
        figure = (
            f"right on {top1.mean:.1%} of {top1.count} images, standard error {100 * top1.error:.1f} points, "
            f"95 % interval {low:.1%} to {high:.1%}"
        )
        return Judgement(Verdict.HOLDS if high - low <= self.width else Verdict.FAILS, figure)
