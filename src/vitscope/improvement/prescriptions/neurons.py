"""Fewer neurons in the MLP units."""

from dataclasses import dataclass, replace
from typing import final

from typing_extensions import override

from vitscope.improvement.prescription import PRESCRIPTIONS, AbstractMove, AbstractPrescription
from vitscope.improvement.splits import Splits
from vitscope.interventions.remove_neurons import RemoveNeurons
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Subject


@final
@dataclass(frozen=True)
class TakeNeurons(AbstractMove):
    """Take a share of the hidden neurons out of some MLP units."""

    layers: tuple[int, ...]
    share: float
    seed: int | None = None
    """Choose at random by this seed, without repair; None chooses by the error that is left after a repair."""

    @property
    @override
    def label(self) -> str:
        where = f"unit {self.layers[0]}" if len(self.layers) == 1 else f"units {self.layers[0]} to {self.layers[-1]}"
        return f"take {self.share:.0%} of the MLP neurons out of {where}"

    @override
    def apply(self, subject: Subject, splits: Splits) -> Subject:
        images = splits.calibration
        if self.seed is not None:
            return RemoveNeurons.fitted(subject, images, self.share, self.layers, "random", False, self.seed)(subject)
        return RemoveNeurons.fitted(subject, images, self.share, self.layers, "error")(subject)

    @override
    def at_random(self, subject: Subject, seed: int) -> AbstractMove:
        return replace(self, seed=seed)


@PRESCRIPTIONS.add("neurons")
@final
@dataclass(frozen=True)
class FewerNeurons(AbstractPrescription):
    """Take hidden neurons out of MLP units, and let the others do their work by a closed-form repair.

    Two shares of each third of the model's MLP units are tried, again and again.
    """

    shares: tuple[float, ...] = (0.25, 0.1)
    name = "neurons"
    title = "Fewer neurons"
    goals = frozenset({"faster", "smaller"})
    references = ("Variance-based pruning, 2507.12988", "Ridge compensation, 2602.05243")

    @override
    def moves(self, subject: Subject) -> tuple[AbstractMove, ...]:
        try:
            mlps = RemoveNeurons.possible(subject)
        except UserError:  # its weights are computed from others
            return ()
        thirds = [tuple(mlps[part * len(mlps) // 3 : (part + 1) * len(mlps) // 3]) for part in range(3)]
        return tuple(TakeNeurons(part, share) for part in thirds if part for share in self.shares)
