"""Whether few images were examined."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.measurement.claim import ClaimKind, Verdict
from vitscope.runs.run import Run


@FINDINGS.add("few-images")
@final
@dataclass(frozen=True)
class FewImages(AbstractFinding):
    """So few images were examined that standard errors are wide.

    Rule: fewer than ``enough`` images; for more, no claim is made. A share near one half has a standard error of 5
    points with 100 images, and of 1 point with 2500.
    """

    name = "few-images"
    statement = "Few images were examined: standard errors are wide, and small differences cannot be seen."
    reference = "the standard error of a mean"
    evidence = ""
    is_test = False
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.LOOK,
            0.85,
            statement,
            "Examine more, if you have them: ten times as many make the errors three times smaller. "
            "`vitscope checkup {examined} --limit 1000` takes a thousand.",
        ),
    )

    enough: int = 100
    """Number of images from which on no claim is made."""

    @property
    @override
    def rule(self) -> str:
        return f"Holds below {self.enough} images; otherwise no claim is made."

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Holds for few images, None for enough of them."""
        del rate
        images = int(run.tree.attrs["images"])
        return Judgement(Verdict.HOLDS, f"{images} images") if images < self.enough else None
