"""Whether the weights are random."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.measurement.claim import Verdict
from vitscope.runs.run import Run


@FINDINGS.add("random-weights")
@final
@dataclass(frozen=True)
class RandomWeights(AbstractFinding):
    """The weights are random: every other number describes the architecture at its initialisation.

    Rule: the run's spec says that the model was made with random weights. Of other weights nothing is said.
    """

    name = "random-weights"
    statement = (
        "These are random weights: the numbers describe the architecture at initialisation, not a trained model."
    )
    reference = "the run's own spec"
    evidence = ""
    outcomes = Outcomes(
        holds=Outcome(1.0, "Load trained weights: --pretrained, --weights FILE, or a checkpoint of `vitscope train`."),
        fails=Outcome(0.0, "Nothing."),
        undecided=Outcome(0.0, "Nothing."),
    )

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return "Holds where the spec says that the weights are random; otherwise nothing is said."

    def judge(self, run: Run) -> Judgement | None:
        """Holds for random weights, None for others."""
        if run.spec.model["weights"] != "random":
            return None
        return Judgement(Verdict.HOLDS, f"{run.spec.model['name']}, weights: random")
