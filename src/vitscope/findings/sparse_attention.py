"""Whether few keys hold the attention."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import by_layer, judge_below, read_entries
from vitscope.measurement.claim import ClaimKind
from vitscope.measurement.estimate import average
from vitscope.runs.run import Run


@FINDINGS.add("sparse-attention")
@final
@dataclass(frozen=True)
class SparseAttention(AbstractFinding):
    """A small share of the keys holds nearly all of the attention, on average.

    Rule: the share of a query's keys that hold 90 % of its attention (or the diagnostic's chosen mass), averaged
    over heads and units, is significantly below ``threshold``. Li et al., ICLR 2023, show for shallow ViTs that
    training makes attention sparse on the tokens that matter, and that dropping others can help.
    """

    name = "sparse-attention"
    statement = "A small share of the keys holds nearly all of the attention."
    reference = "Li et al., A Theoretical Understanding of Shallow Vision Transformers, ICLR 2023"
    evidence = "attention-sparsity/keys_share"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.LOOK,
            0.5,
            statement,
            "A hypothesis, not proof: dropping the tokens that are attended least may save time at little loss. "
            "`vitscope study token-keep {examined}` measures accuracy against the share kept.",
        ),
        fails=Outcome(
            ClaimKind.THEORY,
            0.15,
            "Attention is spread over many keys.",
            "Attention is a poor guide to which tokens to drop here.",
        ),
        undecided=undecided_outcome("whether a small share of the keys holds nearly all of the attention"),
    )

    threshold: float = 0.2
    """Share of the keys below which it counts as small."""

    @property
    @override
    def rule(self) -> str:
        return (
            "Share of keys that hold the mass, mean over heads and attention units, t-test over images with the mean "
            f"of the standard errors: holds below {self.threshold:g}, fails above."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Compare the mean share with the threshold; None if it was not measured."""
        heads = read_entries(run, self.evidence, span=1.0)
        if not heads:
            return None
        layers = by_layer(heads)
        mean = average([entry.estimate for entry in layers])
        low = sum(entry.estimate.mean < self.threshold for entry in layers)
        figure = f"{mean.text} of the keys on average; {low} of {len(layers)} attention units below {self.threshold:g}"
        return judge_below(mean, self.threshold, rate, figure)
