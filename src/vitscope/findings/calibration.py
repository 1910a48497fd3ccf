"""Whether confidence and accuracy agree on average."""

from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
from typing_extensions import override

from vitscope.findings.finding import FINDINGS, AbstractFinding, Judgement, Outcome, Outcomes, undecided_outcome
from vitscope.findings.reading import read_number
from vitscope.measurement.claim import ClaimKind, Verdict
from vitscope.measurement.estimate import OverImages, between, samples_needed, z_text
from vitscope.measurement.exact import clopper_pearson
from vitscope.runs.run import Run

_TOP1 = "accuracy/top1"
_HEADLINES = {
    "over": "The model is overconfident: it is right less often than its confidence says.",
    "under": "The model is underconfident: it is right more often than its confidence says.",
}


@FINDINGS.add("calibration")
@final
@dataclass(frozen=True)
class CalibratedOnAverage(AbstractFinding):
    """Whether mean confidence and accuracy agree, or the model is over- or underconfident.

    Rule: holds if the interval of mean confidence minus accuracy lies within ``margin`` of 0, so that a miscalibration
    that matters would have been seen; fails if it lies beyond. Each end of the interval is the wider of two: the t
    interval over images, which is too short if few images are wrong, and the exact interval of the accuracy alone,
    which is too short if confidence varies independently of accuracy. The expected calibration error is shown with the
    value that sampling alone would give a perfectly calibrated model: it is biased upwards for few images.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """

    name = "calibration"
    statement = "The model's confidence can be trusted on average: it agrees with the accuracy to within 2 points."
    reference = "Guo et al., On Calibration of Modern Neural Networks, ICML 2017, figure 4"
    evidence = "calibration/overconfidence"
    outcomes = Outcomes(
        holds=Outcome(
            ClaimKind.GOOD,
            0.2,
            statement,
            "Nothing to correct on average; check the reliability bins for errors that cancel.",
        ),
        fails=Outcome(
            ClaimKind.PROBLEM,
            0.75,
            "The model's confidence cannot be trusted: on average it is over 2 points away from the accuracy.",
            "Divide the logits by one temperature, fitted on held-out images: it changes confidences but no prediction "
            "(scikit-learn 1.8 and later has `CalibratedClassifierCV(method='temperature')`).",
        ),
        undecided=undecided_outcome("whether the model's confidence can be trusted on average", weight=0.15),
    )

    margin: float = 0.02
    """Difference up to which it does not matter."""

    @property
    @override
    def rule(self) -> str:
        return (
            "The interval of confidence - accuracy, the wider of the t interval over images and the exact one of the "
            f"accuracy: holds if all of it is within {self.margin:g} of 0, fails if all of it is beyond."
        )

    def judge(self, run: Run, rate: float) -> Judgement | None:
        """Compare the interval of the overconfidence with the margin; None without labels."""
        over, ece, top1 = (read_number(run, name) for name in ("calibration/overconfidence", "calibration/ece", _TOP1))
        if over is None or ece is None or top1 is None:
            return None
        apart = Overconfidence(over.mean, over.error, over.count, span=2.0, accuracy=top1.mean)
        side = "over" if over.mean > 0 else "under"
        figure = (
            f"{side}confident by {abs(over.mean):.3f} ± {over.error:.3f} ({z_text(over)}); expected calibration error "
            f"{ece.text}; a perfectly calibrated model would have {sampling_floor(run):.3f} by sampling alone"
        )
        verdict = between(apart, -self.margin, self.margin, rate)
        if verdict is not Verdict.FAILS:
            more = partial(samples_needed, lambda n: between(apart.at(n), -self.margin, self.margin, rate), apart.count)
            return Judgement(verdict, figure, needed=more)
        return Judgement(verdict, figure, min(1.0, 0.6 + 4 * abs(over.mean)), headline=_HEADLINES[side])


@final
@dataclass(frozen=True)
class Overconfidence(OverImages):
    """Mean confidence minus accuracy."""

    accuracy: float = 0.0

    def interval(self, rate: float) -> tuple[float, float]:
        """At each end the wider of the t interval and the confidence minus the exact interval of the accuracy."""
        low, high = super().interval(rate)
        right = clopper_pearson(self.accuracy * self.count, self.count, rate)
        confidence = self.mean + self.accuracy
        return min(low, confidence - right[1]), max(high, confidence - right[0])


def sampling_floor(run: Run) -> float:
    r"""The expected calibration error of a perfectly calibrated model, which comes from sampling alone.

    .. math:: \sqrt{2 / \pi} \sum_b \sqrt{s_b c_b (1 - c_b) / n}

    over bins with share s and mean confidence c, with n images in all and gaps taken as normal.
    """
    result = run.tree["calibration"].to_dataset()
    share, confidence = result["bin_share"].values, np.nan_to_num(result["bin_confidence"].values)
    variance = share * confidence * (1 - confidence) / int(result["ece_count"])
    return float(np.sqrt(2 / np.pi) * np.sqrt(variance).sum())
