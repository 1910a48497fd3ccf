"""Whether confidence and accuracy agree on average."""

from dataclasses import dataclass
from typing import final

import numpy as np

from vitscope.findings.finding import FINDINGS, MORE_IMAGES, AbstractFinding, Judgement, Outcome, Outcomes
from vitscope.findings.reading import read_number
from vitscope.measurement.claim import Verdict
from vitscope.measurement.estimate import FALSE_ALARMS, z_text
from vitscope.runs.run import Run

_TOP1 = "accuracy/top1"


@FINDINGS.add("calibration")
@final
@dataclass(frozen=True)
class CalibratedOnAverage(AbstractFinding):
    """The mean confidence equals the accuracy, or the model is over- or underconfident.

    Rule: fails where the 99 % interval of mean confidence less accuracy leaves out 0 and is not small; holds where
    the whole interval lies within ``margin`` of 0, so that a miscalibration that matters would have been seen.
    Undecided with fewer than ``least`` right or wrong images, where no interval can be trusted. The expected
    calibration error is shown beside what sampling alone makes of it in a perfectly calibrated model: it is biased
    upwards for few images.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """

    name = "calibration"
    statement = "Its confidence can be taken at its word: mean confidence and accuracy agree."
    reference = "Guo et al., On Calibration of Modern Neural Networks, ICML 2017, figure 4"
    evidence = "calibration/overconfidence"
    outcomes = Outcomes(
        holds=Outcome(0.2, "Nothing to correct on average; look at the reliability bins for errors that cancel."),
        fails=Outcome(
            0.75,
            "Fit one temperature on held-out images (temperature scaling): it changes confidences and no prediction.",
        ),
        undecided=Outcome(0.15, MORE_IMAGES),
    )

    margin: float = 0.02
    """Difference that does not matter."""
    least: int = 5
    """Right and wrong images needed."""

    @property
    def rule(self) -> str:
        """The rule with its numbers."""
        return (
            f"The {1 - FALSE_ALARMS:.0%} t interval of confidence - accuracy: holds where all of it is within "
            f"{self.margin:g} of 0, fails where it leaves out 0 otherwise, undecided where it does neither or where "
            f"fewer than {self.least} images are right or wrong."
        )

    def judge(self, run: Run) -> Judgement | None:
        """The interval of the overconfidence against 0 and the margin; None without labels."""
        over, ece, top1 = (read_number(run, name) for name in ("calibration/overconfidence", "calibration/ece", _TOP1))
        if over is None or ece is None or top1 is None:
            return None
        right = round(top1.mean * top1.count)
        low, high = over.interval(FALSE_ALARMS)
        side = "over" if over.mean > 0 else "under"
        figure = (
            f"{side}confident by {abs(over.mean):.3f} ± {over.error:.3f} ({z_text(over)}); expected calibration error "
            f"{ece.text}, of which {sampling_floor(run):.3f} would be seen of a perfectly calibrated model"
        )
        verdict = Verdict.UNDECIDED
        if min(right, top1.count - right) >= self.least:
            if max(-low, high) <= self.margin:
                verdict = Verdict.HOLDS
            elif low > 0 or high < 0:
                verdict = Verdict.FAILS
        return Judgement(verdict, figure, min(1.0, 0.6 + 4 * abs(over.mean)) if verdict is Verdict.FAILS else 1.0)


def sampling_floor(run: Run) -> float:
    r"""The calibration error that sampling alone makes, in expectation.

    .. math:: \sqrt{2 / \pi} \sum_b \sqrt{s_b c_b (1 - c_b) / n}

    over bins with the share s and the mean confidence c, n images in all, gaps taken as normal.
    """
    result = run.tree["calibration"].to_dataset()
    share, confidence = result["bin_share"].values, np.nan_to_num(result["bin_confidence"].values)
    variance = share * confidence * (1 - confidence) / int(result["ece_count"])
    return float(np.sqrt(2 / np.pi) * np.sqrt(variance).sum())
