"""Whether heads attend to single keys."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import read_entries, some_below
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("entropy-collapse")
@final
@dataclass(frozen=True)
class EntropyCollapse(AbstractFinding):
    """In some heads nearly every query attends to one key alone.

    Rule: a head's mean entropy as a share of its maximum is below ``threshold`` beyond its error, tested for all
    heads at one false-alarm rate (Bonferroni). Zhai et al., ICML 2023 find that a fall of the entropy in training
    goes with instability; a trained model may have such heads by design (a fixed neighbour).
    """

    name = "entropy-collapse"
    statement = "In some heads nearly every query looks at a single key (entropy collapse)."
    reference = (
        "Zhai et al., Stabilizing Transformer Training by Preventing Attention Entropy Collapse, ICML 2023, figure 1"
    )
    evidence = "attention-entropy/relative_entropy"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.LOOK,
            0.5,
            statement,
            "If training was unstable: a lower learning rate, longer warm-up, or the paper's spectral normalisation of "
            "the projections. In a model that trained well, nothing.",
        ),
        fails=Outcome(ClaimKind.GOOD, 0.1, "No head's attention has collapsed onto single keys.", "Nothing to do."),
        undecided=undecided_outcome("whether some head's attention has collapsed onto single keys"),
    )

    threshold: float = 0.05
    """Share of the maximal entropy below which a head counts as collapsed."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            "Entropy / its maximum by head, by t-tests over images, for all heads together: some below "
            f"{self.threshold:g} holds, all above fails."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """The heads below the threshold; None where it was not measured."""
        heads = read_entries(run, self.evidence, span=1.0)
        return some_below(heads, self.threshold, rate).judgement(f"heads below {self.threshold:g}") if heads else None
