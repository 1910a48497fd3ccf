"""Whether confidence and accuracy agree on average."""

from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import read_number
from vitscope.measurement.claim import ClaimKind, Verdict
from vitscope.measurement.estimate import OverImages, between, samples_needed, z_text
from vitscope.measurement.exact import clopper_pearson
from vitscope.runs.run import Run

_TOP1 = "accuracy/top1"
_HEADLINES = {
    "over": "It is overconfident: it is right less often than its confidence says.",
    "under": "It is underconfident: it is right more often than its confidence says.",
}


@FINDINGS.add("calibration")
@final
@dataclass(frozen=True)
class CalibratedOnAverage(AbstractFinding):
    """The mean confidence equals the accuracy, or the model is over- or underconfident.

    Rule: the interval of mean confidence less accuracy lies within ``margin`` of 0, so that a miscalibration that
    matters would have been seen: holds; it lies beyond: fails. It is the wider, at either end, of the t interval over
    images and of the exact interval of the accuracy alone: where few images are wrong the first is too short, where
    confidence varies apart from accuracy the second. The expected calibration error is shown beside what sampling
    alone makes of it in a perfectly calibrated model: it is biased upwards for few images.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """

    name = "calibration"
    statement = "Its confidence can be taken at its word: mean confidence and accuracy agree to 2 points."
    reference = "Guo et al., On Calibration of Modern Neural Networks, ICML 2017, figure 4"
    evidence = "calibration/overconfidence"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.GOOD,
            0.2,
            statement,
            "Nothing to correct on average; look at the reliability bins for errors that cancel.",
        ),
        fails=Outcome(
            ClaimKind.PROBLEM,
            0.75,
            "Its confidence cannot be taken at its word: mean confidence and accuracy are over 2 points apart.",
            "Divide the logits by one temperature, fitted on images held out: it changes confidences and no prediction "
            "(scikit-learn from 1.8 on has `CalibratedClassifierCV(method='temperature')`).",
        ),
        undecided=undecided_outcome("whether its confidence can be taken at its word", weight=0.15),
    )

    margin: float = 0.02
    """Difference that does not matter."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            "The interval of confidence - accuracy, the wider of the t interval over images and the exact one of the "
            f"accuracy: holds where all of it is within {self.margin:g} of 0, fails where all of it is beyond."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """The interval of the overconfidence against the margin; None without labels."""
        over, ece, top1 = (read_number(run, name) for name in ("calibration/overconfidence", "calibration/ece", _TOP1))
        if over is None or ece is None or top1 is None:
            return None
        apart = Overconfidence(over.mean, over.error, over.count, span=2.0, accuracy=top1.mean)
        side = "over" if over.mean > 0 else "under"
        figure = (
            f"{side}confident by {abs(over.mean):.3f} ± {over.error:.3f} ({z_text(over)}); expected calibration error "
            f"{ece.text}, of which {sampling_floor(run):.3f} would be seen of a perfectly calibrated model"
        )
        verdict = between(apart, -self.margin, self.margin, rate)
        if verdict is not Verdict.FAILS:
            more = partial(samples_needed, lambda n: between(apart.at(n), -self.margin, self.margin, rate), apart.count)
            return Judgement(verdict, figure, needed=more)
        return Judgement(verdict, figure, min(1.0, 0.6 + 4 * abs(over.mean)), headline=_HEADLINES[side])


@final
@dataclass(frozen=True)
class Overconfidence(OverImages):
    """Mean confidence less accuracy."""

    accuracy: float = 0.0

    def interval(self, rate: float) -> tuple[float, float]:
        """The wider, at either end, of the t interval and of the confidence less the accuracy's exact interval."""
        low, high = super().interval(rate)
        right = clopper_pearson(self.accuracy * self.count, self.count, rate)
        confidence = self.mean + self.accuracy
        return min(low, confidence - right[1]), max(high, confidence - right[0])


def sampling_floor(run: Run) -> float:
    r"""The calibration error that sampling alone makes, in expectation.

    .. math:: \sqrt{2 / \pi} \sum_b \sqrt{s_b c_b (1 - c_b) / n}

    over bins with the share s and the mean confidence c, n images in all, gaps taken as normal.
    """
    result = run.tree["calibration"].to_dataset()
    share, confidence = result["bin_share"].values, np.nan_to_num(result["bin_confidence"].values)
    variance = share * confidence * (1 - confidence) / int(result["ece_count"])
    return float(np.sqrt(2 / np.pi) * np.sqrt(variance).sum())
