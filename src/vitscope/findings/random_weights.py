"""Whether the weights are random."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.measurement.claim import ClaimKind, Verdict
from vitscope.models.names import OWN
from vitscope.runs.run import Run

_TRAIN = "This model comes without trained weights: train it with `vitscope train {} --images DATA --out FOLDER`."
"""Advice on the project's own models."""


@FINDINGS.add("random-weights")
@final
@dataclass(frozen=True)
class RandomWeights(AbstractFinding):
    """The weights are random: every other number describes the architecture at its initialisation.

    Rule: the run's spec says that the model was made with random weights; for other weights, no claim is made.
    """

    name = "random-weights"
    statement = (
        "These are random weights: the numbers describe the architecture at initialisation, not a trained model."
    )
    reference = "the run's own spec"
    evidence = ""
    is_test = False
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.PROBLEM,
            1.0,
            statement,
            "Load trained weights: `vitscope checkup {examined} --pretrained` takes the library's, --weights FILE "
            "your own.",
        ),
    )

    @property
    @override
    def rule(self) -> str:
        return "Holds if the spec says that the weights are random; otherwise no claim is made."

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Holds for random weights, None for others."""
        del rate
        if run.spec.model["weights"] != "random":
            return None
        name = str(run.spec.model["name"])
        return Judgement(Verdict.HOLDS, f"{name}, weights: random", advice=_TRAIN.format(name) if name in OWN else "")
