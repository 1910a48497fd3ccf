"""Whether heads attend mostly to prefix tokens."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import read_entries, some_above
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("prefix-sinks")
@final
@dataclass(frozen=True)
class PrefixSinks(AbstractFinding):
    """In some heads, patches attend mostly to the class token or registers.

    Rule: a head's mean attention mass on prefix tokens is significantly above ``threshold``, tested for all heads at
    one false-alarm rate (Bonferroni). Xiao et al., ICLR 2024, call such tokens attention sinks: a head with nothing to
    do puts its attention there.
    """

    name = "prefix-sinks"
    statement = "In some heads the patches attend mostly to the class token or registers (attention sinks)."
    reference = (
        "Xiao et al., Efficient Streaming Language Models with Attention Sinks, ICLR 2024; Darcet et "
        "al., Vision Transformers Need Registers, ICLR 2024, figure 9"
    )
    evidence = "attention-sinks/prefix_mass"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.LOOK,
            0.5,
            statement,
            "These heads may do nothing for these patches. Before pruning one, see what it costs: "
            "`vitscope study lesion {examined} --of head`.",
        ),
        fails=Outcome(
            ClaimKind.GOOD,
            0.1,
            "In no head do the patches attend mostly to the class token or registers (no attention sinks).",
            "Nothing to do.",
        ),
        undecided=undecided_outcome("whether in some heads the patches attend mostly to the class token or registers"),
    )

    threshold: float = 0.5
    """Attention mass above which patches attend mostly to prefix tokens."""

    @property
    @override
    def rule(self) -> str:
        return (
            "Mass on prefix tokens by head, t-tests over images for all heads together: holds if some are above "
            f"{self.threshold:g}, fails if all are below."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Test whether any head is above the threshold; None for a model without prefix tokens."""
        heads = read_entries(run, self.evidence, span=1.0)
        return some_above(heads, self.threshold, rate).judgement(f"heads above {self.threshold:g}") if heads else None
