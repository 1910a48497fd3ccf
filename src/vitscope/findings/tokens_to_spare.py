"""Whether tokens can be dropped."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, MORE_IMAGES, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.findings.reading import read_settings
from vitscope.measurement.estimate import FALSE_ALARMS, above, of_shares
from vitscope.runs.run import Run


@FINDINGS.add("tokens-to-spare")
@final
@dataclass(frozen=True)
class TokensToSpare(AbstractFinding):
    """A good part of the patch tokens can be dropped, as it is, at little loss of accuracy.

    Rule: of the studied shares of kept tokens the largest that is at most ``share`` changes top-1 accuracy by no more
    than ``-margin``, beyond its paired error. Li et al. 2023 prove for shallow ViTs that dropping tokens without
    relevance to the label costs nothing.
    """

    name = "tokens-to-spare"
    statement = "A third of the patch tokens can be dropped at little loss of accuracy."
    reference = (
        "Li et al., A Theoretical Understanding of Shallow Vision Transformers, ICLR 2023; DynamicViT, EViT, ToMe"
    )
    evidence = "token-keep-accuracy/top1_change"
    outcomes = Outcomes(
        holds=Outcome(0.6, "Drop them from that unit on: the forward pass is faster by nearly as much as is dropped."),
        fails=Outcome(0.3, "Merge tokens instead of dropping them, drop them later, or train with dropping."),
        undecided=Outcome(0.1, MORE_IMAGES),
    )

    share: float = 0.7
    """Share of the tokens that is kept, at most."""
    margin: float = 0.02
    """Loss of accuracy that is little."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            f"Change of top-1 accuracy at the largest studied share of kept tokens that is at most {self.share:g}, "
            f"paired t-test over images, its error at least one image's, at {FALSE_ALARMS:.0%}: above "
            f"-{self.margin:g} holds, below fails."
        )

    def judge(self, run: Run) -> Judgement | None:
        """The change at that share; None where no such share was studied."""
        settings = [(at, e) for at, e in read_settings(run, self.evidence, "keep") if at <= self.share]
        if not settings:
            return None
        share, seen = max(settings, key=lambda setting: setting[0])
        change = of_shares(seen)
        return Judgement(above(change, -self.margin), f"{change.text} with {share:.0%} of the patch tokens")
