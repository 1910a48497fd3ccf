"""Units left out."""

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from typing_extensions import override

from vitscope.improvement.prescription import PRESCRIPTIONS, AbstractMove, AbstractPrescription
from vitscope.improvement.splits import Splits
from vitscope.interventions.bypass import irremovable_layers
from vitscope.interventions.remove_units import RemoveUnits, is_left_out
from vitscope.models.subject import Subject


@final
@dataclass(frozen=True)
class LeaveOut(AbstractMove):
    """Leave one unit out; a linear map, if ``linear``, or its mean output replaces its branch."""

    layer: int
    place: str
    linear: bool = True
    repair: bool = True

    @property
    @override
    def label(self) -> str:
        instead = " for a linear map" if self.linear and self.repair else ""
        return f"leave out unit {self.layer} ({self.place}){instead}"

    @override
    def apply(self, subject: Subject, splits: Splits) -> Subject:
        by = ("linear" if self.linear else "mean") if self.repair else "nothing"
        return RemoveUnits.fitted(subject, splits.calibration, (self.layer,), by)(subject)

    @override
    def at_random(self, subject: Subject, seed: int) -> AbstractMove:
        """A unit of the same kind, or of any if there is none left."""
        free = [one for one in _removable(subject) if one != self.layer]
        kind = subject.places[self.layer - 1].kind
        same = [one for one in free if subject.places[one - 1].kind is kind] or free or [self.layer]
        chosen = int(np.random.default_rng(seed).choice(same))
        return replace(self, layer=chosen, place=subject.places[chosen - 1].name)


@PRESCRIPTIONS.add("units")
@final
@dataclass(frozen=True)
class FewerUnits(AbstractPrescription):
    """Leave a residual unit out; its best linear map, found on calibration images, replaces it.

    The cost of each is measured, not scored: every unit that can be left out is tried. A linear map costs dim² products
    a token, an attention or MLP unit some 4 to 8 times as many.
    """

    name = "units"
    title = "Fewer units"
    goals = frozenset({"faster", "smaller"})
    findings = frozenset({"spare-units"})
    references = (
        "Veit, Wilber and Belongie, Residual Networks Behave Like Ensembles of Relatively Shallow Networks, "
        "NeurIPS 2016",
        "Cannistraci et al., TOAST, 2410.04941",
    )

    @override
    def moves(self, subject: Subject) -> tuple[AbstractMove, ...]:
        maps = RemoveUnits.takes_maps(subject)
        return tuple(LeaveOut(layer, subject.places[layer - 1].name, maps) for layer in _removable(subject))


def _removable(subject: Subject) -> list[int]:
    why = irremovable_layers(subject)
    return [n for n in range(1, len(subject.places) + 1) if n not in why and not is_left_out(subject, n)]
