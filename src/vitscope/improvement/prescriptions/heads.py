"""Fewer attention heads."""

from dataclasses import dataclass, replace
from typing import final

from typing_extensions import override

from vitscope.improvement.prescription import PRESCRIPTIONS, AbstractMove, AbstractPrescription
from vitscope.improvement.splits import Splits
from vitscope.interventions.head_lesion import head_counts
from vitscope.interventions.remove_heads import RemoveHeads
from vitscope.models.subject import Subject


@final
@dataclass(frozen=True)
class TakeHead(AbstractMove):
    """Take one of the ``count`` heads out of an attention unit: the one that is missed least after a repair."""

    layer: int
    count: int
    seed: int | None = None
    """Choose at random by this seed, without repair; None chooses by the error that is left."""

    @property
    @override
    def label(self) -> str:
        return f"take one of {self.count} heads out of unit {self.layer}"

    @override
    def apply(self, subject: Subject, splits: Splits) -> Subject:
        images, one, layers = splits.calibration, 1 / self.count, (self.layer,)
        if self.seed is not None:
            chosen = RemoveHeads.fitted(subject, images, None, one, layers, "random", False, self.seed)
            return chosen(subject)
        return RemoveHeads.fitted(subject, images, None, one, layers, "error")(subject)

    @override
    def at_random(self, subject: Subject, seed: int) -> AbstractMove:
        return replace(self, seed=seed)


@PRESCRIPTIONS.add("heads")
@final
@dataclass(frozen=True)
class FewerHeads(AbstractPrescription):
    """Take an attention head out, with its rows and columns of the projections, and repair the output projection."""

    name = "heads"
    title = "Fewer heads"
    goals = frozenset({"faster", "smaller"})
    findings = frozenset({"redundant-heads"})
    references = ("Michel, Levy and Neubig, Are Sixteen Heads Really Better than One?, NeurIPS 2019",)

    @override
    def moves(self, subject: Subject) -> tuple[AbstractMove, ...]:
        return tuple(TakeHead(layer, count) for layer, count in head_counts(subject).items() if count > 1)
