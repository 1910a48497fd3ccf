"""Whether noise of low or of high frequency hurts more."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

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
    the bands above it, by the exact intervals. Park and Kim 2022, figure 2b, find this for ViTs and the reverse for
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
            "As Park and Kim (2022) find for ViTs, for which they propose augmentation with low-frequency noise; only "
            "training can tell whether that helps this model.",
        ),
        fails=Outcome(
            ClaimKind.LOOK,
            0.4,
            "Noise of high frequency costs more accuracy than noise of low frequency.",
            "As Park and Kim (2022) find for ResNets. Sensor noise and compression have high frequencies: "
            "`vitscope study corruption {examined} --kinds gaussian_noise,jpeg_compression` shows what they cost. "
            "Train with them, or blur before downsampling.",
        ),
        undecided=undecided_outcome("whether noise of low or of high frequency costs more accuracy", ClaimKind.THEORY),
    )

    @property
    @override
    def rule(self) -> str:
        return (
            "Mean change of top-1 accuracy of the bands below 0.5 pi, minus that of the bands above, by the exact "
            "intervals of the images gained and lost, each at its share of the rate: holds below 0, fails above."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Compare the lower with the higher bands; None if one side has no band."""
        bands = read_settings(run, self.evidence, "frequency_band")
        low, high = [e for at, _, e in bands if at < 0.5], [e for at, _, e in bands if at > 0.5]
        if not low or not high:
            return None
        figure = (
            f"{contrast(low).text} over {len(low)} bands below 0.5 pi, {contrast(high).text} over {len(high)} above"
        )
        return judge_below(contrast(low, high), 0.0, rate, figure)
