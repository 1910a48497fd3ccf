"""Whether heads attend mostly to prefix tokens."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, MORE_IMAGES, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.findings.reading import read_entries, some_above
from vitscope.measurement.estimate import FALSE_ALARMS
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
            0.5, "These heads may do nothing at these places. Leave one out and measure accuracy before pruning it."
        ),
        fails=Outcome(0.1, "Nothing to do: no head gives most of its attention to prefix tokens."),
        undecided=Outcome(0.1, MORE_IMAGES),
    )

    threshold: float = 0.5
    """Attention mass above which it is most of it."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            f"Mass on prefix tokens by head, "
            f"t-tests at {FALSE_ALARMS:.0%} over all heads: some above {self.threshold:g} holds, all below fails."
        )

    def judge(self, run: Run) -> Judgement | None:
        """The heads above the threshold; None for a model without prefix tokens."""
        entries = read_entries(run, self.evidence)
        if not entries:
            return None
        found = some_above(entries, self.threshold)
        return Judgement(found.verdict, found.text(f"heads above {self.threshold:g}"), found.strength)
