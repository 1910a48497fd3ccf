"""Whether the loss is non-convex around the model's weights."""

from dataclasses import asdict, dataclass
from typing import cast, final

from typing_extensions import override

from vitscope.diagnostics.hessian_spectrum import HessianSpectrum
from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import judge_above, read_number
from vitscope.measurement.claim import ClaimKind
from vitscope.measurement.exact import Bounded
from vitscope.runs.run import Run


@FINDINGS.add("negative-curvature")
@final
@dataclass(frozen=True)
class NegativeCurvature(AbstractFinding):
    """Many of the Hessian's outermost eigenvalues are negative: the loss is not convex around the weights.

    Rule: the share of negative eigenvalues among those of largest modulus (NEP), mean over mini-batches, is
    significantly above ``share``. Mini-batches are few and the share of one takes few values, often the same, so their
    spread says little: the interval is Hoeffding's, which holds for any distribution. If no mini-batch has a negative
    eigenvalue, some 60 of them are needed to call the loss nearly convex. Park and Kim 2022, figures 1 and 4, find
    negative eigenvalues for ViTs, the more the less data they were trained on, and hardly any for ResNets. The share
    depends on augmentation and on when in training it is measured.
    """

    name = "negative-curvature"
    statement = "Many of the Hessian's outermost eigenvalues are negative."
    reference = "Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figures 1 and 4"
    evidence = "hessian-spectrum/negative_share"
    samples = "mini-batches"
    again = "vitscope measure hessian-spectrum {examined} --batches {needed}"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.THEORY,
            0.5,
            statement,
            "Park and Kim (2022) find that non-convexity goes with little data and hampers training; more data, "
            "average pooling instead of a class token, more heads, or sharpness-aware minimisation lower it.",
        ),
        fails=Outcome(
            ClaimKind.THEORY,
            0.3,
            "Around these weights the loss is nearly convex along its most curved directions.",
            "As Park and Kim (2022) find for ResNets.",
        ),
        undecided=undecided_outcome(
            "whether many of the Hessian's outermost eigenvalues are negative", ClaimKind.THEORY
        ),
    )

    share: float = 0.1
    """Share of negative eigenvalues above which they count as many."""

    @property
    @override
    def rule(self) -> str:
        return (
            "Share of negative eigenvalues among those of largest modulus, by Hoeffding's interval over mini-batches: "
            f"holds above {self.share:g}, fails below."
        )

    def rerun_command(self, run: Run) -> str:
        """The command with those settings of this run that are not its defaults: a deep checkup has a smaller batch."""
        own, usual = cast("dict[str, object]", run.spec.settings.get("hessian-spectrum", {})), asdict(HessianSpectrum())
        other = {name: own[name] for name in usual if own.get(name, usual[name]) != usual[name]}
        flags = (f" --{name.replace('_', '-')} {other[name]}" for name in other if name not in ("batches", "seed"))
        return self.again + "".join(flags)

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Compare the share with the threshold; None unless the Hessian of the whole model was measured."""
        seen = read_number(run, self.evidence)
        if seen is None:
            return None
        share = Bounded(seen.mean, seen.error, seen.count)
        return judge_above(share, self.share, rate, f"{seen.text} over {seen.count} mini-batches")
