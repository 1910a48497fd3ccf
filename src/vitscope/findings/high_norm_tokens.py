"""Whether a few patch tokens of high norm draw the attention."""

from dataclasses import dataclass, replace
from typing import final

from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import read_entries, some_above
from vitscope.measurement.claim import ClaimKind
from vitscope.measurement.estimate import Estimate, difference, scale
from vitscope.runs.run import Run


@FINDINGS.add("high-norm-tokens")
@final
@dataclass(frozen=True)
class HighNormTokens(AbstractFinding):
    """In some heads, a few patch tokens of outlier norm draw far more attention than their share of the tokens.

    Rule: a head's mean mass on high-norm patch tokens significantly exceeds both ``factor`` times their share of the
    patch tokens and ``least``, tested for all heads at one false-alarm rate (Bonferroni). Darcet et al., ICLR 2024,
    find that such tokens sit on uninformative patches and hold global information.
    """

    name = "high-norm-tokens"
    statement = (
        "A few patch tokens of high norm draw far more attention than their share (artefacts in attention maps)."
    )
    reference = "Darcet et al., Vision Transformers Need Registers, ICLR 2024, figures 2 to 4"
    evidence = "attention-sinks/high_norm_mass"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.LOOK,
            0.7,
            statement,
            "Do not read these attention maps as where the model looks. The published remedy is to train with register "
            "tokens (4 in the paper).",
        ),
        fails=Outcome(
            ClaimKind.GOOD,
            0.1,
            "No head is drawn to patches of high norm (no artefacts in attention maps).",
            "Nothing to do.",
        ),
        undecided=undecided_outcome("whether a few patch tokens of high norm draw far more attention than their share"),
    )

    factor: float = 10.0
    """How many times the tokens' share the mass must be."""
    least: float = 0.05
    """Smallest mass that matters."""

    @property
    @override
    def rule(self) -> str:
        return (
            f"Mass on high-norm patches by head, minus {self.factor:g} times their share of patches or {self.least:g}, "
            "whichever is more; t-tests over images for all heads together: holds if some are above 0, fails if all "
            "are below."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Test whether the mass of any head is out of proportion; None if it was not measured."""
        masses = read_entries(run, self.evidence, span=1.0)
        shares = {entry.layer: entry.estimate for entry in read_entries(run, "attention-sinks/high_norm_share")}
        if not masses or not shares:
            return None
        excesses = [replace(mass, estimate=self._excess(mass.estimate, shares[mass.layer])) for mass in masses]
        found = some_above(excesses, 0.0, rate)
        by_place = {mass.place: mass.estimate for mass in masses}
        shown = "; ".join(
            f"{entry.place}: mass {by_place[entry.place].text} on {shares[entry.layer].mean:.1%} of the patches"
            for entry in found.ranked[: min(3, found.hits) or 1]
        )
        figure = f"{found.hits} of {len(masses)} heads; {'strongest' if found.hits else 'closest'} {shown}"
        return replace(found.judgement("heads"), figure=figure)

    def _excess(self, mass: Estimate, share: Estimate) -> Estimate:
        expected = scale(share, self.factor)
        return difference(mass, max(expected, Estimate(self.least, 0.0, share.count), key=lambda e: e.mean))
