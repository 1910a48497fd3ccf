"""Whether heads attend to single keys."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, MORE_IMAGES, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.findings.reading import read_entries, some_below
from vitscope.measurement.estimate import FALSE_ALARMS
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
            0.5,
            "If training was unstable: a lower learning rate, longer warm-up, or the paper's spectral "
            "normalisation of the projections. In a model that trained well, nothing.",
        ),
        fails=Outcome(0.1, "Nothing to do: no head looks at single keys only."),
        undecided=Outcome(0.1, MORE_IMAGES),
    )

    threshold: float = 0.05
    """Share of the maximal entropy below which a head counts as collapsed."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            f"Entropy / its maximum by head, "
            f"t-tests at {FALSE_ALARMS:.0%} over all heads: some below {self.threshold:g} holds, all above fails."
        )

    def judge(self, run: Run) -> Judgement | None:
        """The heads below the threshold; None where it was not measured."""
        entries = read_entries(run, self.evidence)
        if not entries:
            return None
        found = some_below(entries, self.threshold)
        return Judgement(found.verdict, found.text(f"heads below {self.threshold:g}"), found.strength)
