"""Which frequencies of noise hurt."""

from dataclasses import dataclass
from typing import final

from vitscope.findings.finding import FINDINGS, MORE_IMAGES, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.findings.reading import read_settings
from vitscope.measurement.estimate import FALSE_ALARMS, average, below, difference
from vitscope.runs.run import Run


@FINDINGS.add("low-frequencies-matter")
@final
@dataclass(frozen=True)
class LowFrequenciesMatter(AbstractFinding):
    """Noise of low frequency costs more accuracy than noise of high frequency.

    Rule: the change of top-1 accuracy, averaged over the bands below half the Nyquist frequency, is below that over
    the bands above it, beyond the errors. Park and Kim 2022, figure 2b: so it is of ViTs, and the reverse of ResNets.
    With the paper's energies the higher bands carry more noise.
    """

    name = "low-frequencies-matter"
    statement = "Noise of low frequency costs more accuracy than noise of high frequency."
    reference = "Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figure 2b"
    evidence = "frequency-noise-accuracy/top1_change"
    outcomes = Outcomes(
        holds=Outcome(
            0.4,
            "As the paper finds of ViTs, for which it proposes augmentation with low-frequency noise; whether that "
            "helps this model is to be tested.",
        ),
        fails=Outcome(
            0.4,
            "As the paper finds of ResNets. High-frequency noise (sensor noise, compression) is what this model is "
            "weak against: train with it, or blur before downsampling.",
        ),
        undecided=Outcome(0.1, MORE_IMAGES),
    )

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            "Mean change of top-1 accuracy of the bands below 0.5 pi less that of the bands above, t-test over images "
            f"at {FALSE_ALARMS:.0%} with the sum of the standard errors: below 0 holds, above fails."
        )

    def judge(self, run: Run) -> Judgement | None:
        """The lower bands against the higher; None where one side has no band."""
        bands = read_settings(run, self.evidence, "frequency_band")
        low, high = [e for at, e in bands if at < 0.5], [e for at, e in bands if at > 0.5]
        if not low or not high:
            return None
        lower, higher = average(low), average(high)
        figure = f"{lower.text} over {len(low)} bands below 0.5 pi, {higher.text} over {len(high)} above"
        return Judgement(below(difference(lower, higher), 0.0), figure)
