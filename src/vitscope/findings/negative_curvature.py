"""Whether the loss is non-convex where the model stands."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.findings.reading import read_number
from vitscope.measurement.estimate import FALSE_ALARMS, above
from vitscope.runs.run import Run


@FINDINGS.add("negative-curvature")
@final
@dataclass(frozen=True)
class NegativeCurvature(AbstractFinding):
    """Many of the Hessian's outermost eigenvalues are negative: the loss is not convex around the weights.

    Rule: the share of negative eigenvalues among those of largest modulus (NEP), mean over mini-batches, is above
    ``share`` beyond its error. Park and Kim 2022, figures 1 and 4: so it is of ViTs, the more the less data they were
    trained on, and hardly of ResNets. How large it is depends on augmentation and on where in training it is measured.
    """

    name = "negative-curvature"
    statement = "Many of the Hessian's outermost eigenvalues are negative."
    reference = "Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figures 1 and 4"
    evidence = "hessian-spectrum/negative_share"
    outcomes = Outcomes(
        holds=Outcome(
            0.5,
            "In the paper non-convexity goes with little data and hampers training; more data, average pooling instead "
            "of a class token, more heads, or sharpness-aware minimisation lower it.",
        ),
        fails=Outcome(0.3, "Around these weights the loss is nearly convex along its steepest directions."),
        undecided=Outcome(0.1, "Measure more mini-batches: the standard error shrinks with the root of their number."),
    )

    share: float = 0.1
    """Share of negative eigenvalues that is many."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            f"Share of negative eigenvalues among those of largest modulus, t-test over mini-batches at "
            f"{FALSE_ALARMS:.0%}: above {self.share:g} holds, below fails."
        )

    def judge(self, run: Run) -> Judgement | None:
        """The share; None where the Hessian was not measured, or only part by part."""
        share = read_number(run, self.evidence)
        if share is None:
            return None
        return Judgement(above(share, self.share), f"{share.text} over {share.count} mini-batches")
