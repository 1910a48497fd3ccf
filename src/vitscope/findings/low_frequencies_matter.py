"""Which frequencies of noise hurt."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import judge_below, read_settings
from vitscope.measurement.claim import ClaimKind
from vitscope.measurement.exact import contrast
from vitscope.runs.run import Run


@FINDINGS.add("low-frequencies-matter")
@final
@dataclass(frozen=True)
class LowFrequenciesMatter(AbstractFinding):
    """Noise of low frequency costs more accuracy than noise of high frequency.

    Rule: the change of top-1 accuracy, averaged over the bands below half the Nyquist frequency, is below that over
    the bands above it, beyond the exact intervals. Park and Kim 2022, figure 2b: so it is of ViTs, and the reverse of
    ResNets. With the paper's energies the higher bands carry more noise.
    """

    name = "low-frequencies-matter"
    statement = "Noise of low frequency costs more accuracy than noise of high frequency."
    reference = "Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figure 2b"
    evidence = "frequency-noise-accuracy/top1_change"
    again = "vitscope study frequency-noise {examined} --limit {needed}"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.THEORY,
            0.4,
            statement,
            "As the paper finds of ViTs, for which it proposes augmentation with low-frequency noise; whether that "
            "helps this model, only training tells.",
        ),
        fails=Outcome(
            ClaimKind.LOOK,
            0.4,
            "Noise of high frequency costs more accuracy than noise of low frequency.",
            "As the paper finds of ResNets. Sensor noise and compression are of high frequency: "
            "`vitscope study corruption {examined} --kinds gaussian_noise,jpeg_compression` shows what they cost. "
            "Train with them, or blur before downsampling.",
        ),
        undecided=undecided_outcome("whether noise of low or of high frequency costs more accuracy", ClaimKind.THEORY),
    )

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            "Mean change of top-1 accuracy of the bands below 0.5 pi less that of the bands above, by the exact "
            "intervals of the images gained and lost, each at its share of the rate: below 0 holds, above fails."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """The lower bands against the higher; None where one side has no band."""
        bands = read_settings(run, self.evidence, "frequency_band")
        low, high = [e for at, _, e in bands if at < 0.5], [e for at, _, e in bands if at > 0.5]
        if not low or not high:
            return None
        figure = (
            f"{contrast(low).text} over {len(low)} bands below 0.5 pi, {contrast(high).text} over {len(high)} above"
        )
        return judge_below(contrast(low, high), 0.0, rate, figure)
