"""Whether heads attend mostly to prefix tokens."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import read_entries, some_above
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("prefix-sinks")
@final
@dataclass(frozen=True)
class PrefixSinks(AbstractFinding):
    """In some heads, patches attend mostly to the class token or registers.

    Rule: a head's mean attention mass on prefix tokens is above ``threshold`` beyond its error, tested for all
    heads at one false-alarm rate (Bonferroni). Xiao et al., ICLR 2024 name such tokens attention sinks: a head with
    nothing to do puts its attention there.
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
            "These heads may do nothing at these places. Before pruning one see what it costs: "
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
    """Attention mass above which it is most of it."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            "Mass on prefix tokens by head, by t-tests over images, for all heads together: some above "
            f"{self.threshold:g} holds, all below fails."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """The heads above the threshold; None for a model without prefix tokens."""
        heads = read_entries(run, self.evidence, span=1.0)
        return some_above(heads, self.threshold, rate).judgement(f"heads above {self.threshold:g}") if heads else None
