"""One temperature for all logits."""

from dataclasses import dataclass
from typing import final

from typing_extensions import override

from vitscope.improvement.prescription import PRESCRIPTIONS, AbstractMove, AbstractPrescription
from vitscope.improvement.splits import Splits
from vitscope.interventions.temperature import Temperature
from vitscope.models.subject import Subject


@final
@dataclass(frozen=True)
class DivideLogits(AbstractMove):
    """Divide the logits by the temperature that is best on the calibration images."""

    @property
    @override
    def label(self) -> str:
        return "divide the logits by one temperature"

    @override
    def apply(self, subject: Subject, splits: Splits) -> Subject:
        return Temperature.fitted(subject, splits.calibration)(subject)


@PRESCRIPTIONS.add("temperature")
@final
@dataclass(frozen=True)
class OneTemperature(AbstractPrescription):
    """Divide all logits by one number, fitted on labelled images: confidences change, predictions do not."""

    name = "temperature"
    title = "One temperature"
    goals = frozenset({"calibrated"})
    findings = frozenset({"calibration"})
    references = ("Guo et al., On Calibration of Modern Neural Networks, ICML 2017",)

    @override
    def moves(self, subject: Subject) -> tuple[AbstractMove, ...]:
        return (DivideLogits(),) if subject.class_count > 1 else ()
