"""Whether tokens can be dropped."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import judge_above, read_settings
from vitscope.measurement.claim import ClaimKind
from vitscope.runs.run import Run


@FINDINGS.add("tokens-to-spare")
@final
@dataclass(frozen=True)
class TokensToSpare(AbstractFinding):
    """About a third of the patch tokens can be dropped, without training, at little loss of accuracy.

    Rule: at the studied share of kept tokens nearest to ``share``, which must be within ``near`` of it, the change of
    top-1 accuracy is above ``-margin`` by the exact interval of the images gained and lost. The tokens dropped are
    those attended least; for other rankings, no claim is made. Li et al. 2023 prove for shallow ViTs that dropping
    tokens without relevance to the label costs nothing.
    """

    name = "tokens-to-spare"
    statement = "About a third of the patch tokens can be dropped at little loss of accuracy."
    reference = (
        "Li et al., A Theoretical Understanding of Shallow Vision Transformers, ICLR 2023; DynamicViT, EViT, ToMe"
    )
    evidence = "token-keep-accuracy/top1_change"
    again = "vitscope study token-keep {examined} --limit {needed}"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.LOOK,
            0.6,
            "About a third of the patch tokens can be dropped at a loss of less than 2 points of accuracy.",
            "Drop them from the studied unit on: the forward pass gets faster by nearly the share dropped. "
            "`vitscope study token-keep {examined}` shows what other shares cost.",
        ),
        fails=Outcome(
            ClaimKind.LOOK,
            0.3,
            "Dropping about a third of the patch tokens costs more than 2 points of accuracy.",
            "Merge tokens instead of dropping them: `vitscope study token-keep {examined} --by merge`. Or drop them "
            "later (--layer), or train with dropping.",
        ),
        undecided=undecided_outcome(
            "whether about a third of the patch tokens can be dropped at little loss of accuracy"
        ),
    )

    share: float = 0.7
    """Share of the tokens that is kept, approximately."""
    near: float = 0.05
    """How far a studied share may be from it."""
    margin: float = 0.02
    """Loss of accuracy that counts as little."""

    @property
    @override
    def rule(self) -> str:
        return (
            f"Change of top-1 accuracy at the studied share of kept tokens nearest to {self.share:g}, by the exact "
            f"interval of the images gained and lost (Clopper and Pearson): holds above -{self.margin:g}, fails below."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Judge the change at that share; None if no share near it was studied by attention."""
        shares = {
            kept: change
            for kept, done, change in read_settings(run, self.evidence, "keep")
            if done.get("by") == "attention" and abs(kept - self.share) <= self.near
        }
        if not shares:
            return None
        kept = min(shares, key=lambda share: abs(share - self.share))
        figure = f"{shares[kept].text} with {kept:.0%} of the patch tokens"
        return judge_above(shares[kept], -self.margin, rate, figure)
