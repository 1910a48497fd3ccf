"""Whether the queries of a head attend to single keys."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import read_entries, some_below
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("entropy-collapse")
@final
@dataclass(frozen=True)
class EntropyCollapse(AbstractFinding):
    """In some heads nearly every query attends to a single key.

    Rule: a head's mean entropy as a share of its maximum is significantly below ``threshold``, tested for all heads at
    one false-alarm rate (Bonferroni). Zhai et al., ICML 2023, find that a fall of the entropy in training goes with
    instability; a trained model may have such heads by design (a fixed neighbour).
    """

    name = "entropy-collapse"
    statement = "In some heads nearly every query attends to a single key (entropy collapse)."
    reference = (
        "Zhai et al., Stabilizing Transformer Training by Preventing Attention Entropy Collapse, ICML 2023, figure 1"
    )
    evidence = "attention-entropy/relative_entropy"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.LOOK,
            0.5,
            statement,
            "If training was unstable, try a lower learning rate, longer warm-up, or spectral normalisation of the "
            "projections (Zhai et al. 2023). If it was stable, nothing.",
        ),
        fails=Outcome(ClaimKind.GOOD, 0.1, "No head's attention has collapsed onto single keys.", "Nothing to do."),
        undecided=undecided_outcome("whether some head's attention has collapsed onto single keys"),
    )

    threshold: float = 0.05
    """Share of the maximal entropy below which a head counts as collapsed."""

    @property
    @override
    def rule(self) -> str:
        return (
            "Entropy / its maximum by head, t-tests over images for all heads together: holds if some are below "
            f"{self.threshold:g}, fails if all are above."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Test whether any head is below the threshold; None if it was not measured."""
        heads = read_entries(run, self.evidence, span=1.0)
        return some_below(heads, self.threshold, rate).judgement(f"heads below {self.threshold:g}") if heads else None
