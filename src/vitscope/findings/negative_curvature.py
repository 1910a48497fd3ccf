"""Whether the loss is non-convex where the model stands."""

from dataclasses import asdict, dataclass
from typing import cast, final

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

    Rule: the share of negative eigenvalues among those of largest modulus (NEP), mean over mini-batches, is above
    ``share`` beyond its error. Mini-batches are few and the share of one takes few values, often the same, so that
    their spread says little: the interval is Hoeffding's, which holds for any law. Where no mini-batch has a negative
    eigenvalue it takes some 60 of them to say so of the loss. Park and Kim 2022, figures 1 and 4: so it is of ViTs, the
    more the less data they were trained on, and hardly of ResNets. How large it is depends on augmentation and on where
    in training it is measured.
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
            "In the paper non-convexity goes with little data and hampers training; more data, average pooling instead "
            "of a class token, more heads, or sharpness-aware minimisation lower it.",
        ),
        fails=Outcome(
            ClaimKind.THEORY,
            0.3,
            "Around these weights the loss is nearly convex along its steepest directions.",
            "As the paper finds of ResNets.",
        ),
        undecided=undecided_outcome(
            "whether many of the Hessian's outermost eigenvalues are negative", ClaimKind.THEORY
        ),
    )

    share: float = 0.1
    """Share of negative eigenvalues that is many."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            "Share of negative eigenvalues among those of largest modulus, by Hoeffding's interval over mini-batches: "
            f"above {self.share:g} holds, below fails."
        )

    def rerun_command(self, run: Run) -> str:
        """With the settings of this run that are not those of the command: a deep checkup has a smaller batch."""
        own, usual = cast("dict[str, object]", run.spec.settings.get("hessian-spectrum", {})), asdict(HessianSpectrum())
        other = {name: own[name] for name in usual if own.get(name, usual[name]) != usual[name]}
        flags = (f" --{name.replace('_', '-')} {other[name]}" for name in other if name not in ("batches", "seed"))
        return self.again + "".join(flags)

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """The share; None where the Hessian was not measured, or only part by part."""
        seen = read_number(run, self.evidence)
        if seen is None:
            return None
        share = Bounded(seen.mean, seen.error, seen.count)
        return judge_above(share, self.share, rate, f"{seen.text} over {seen.count} mini-batches")
