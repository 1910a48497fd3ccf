"""Early stop: a training ends when it no longer improves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from vitscope.measurement.bounds import COUNT, bounded_field, check_bounds
from vitscope.measurement.errors import UserError
from vitscope.training.hook import HOOKS, AbstractHook


@HOOKS.add("early-stop")
@final
@dataclass(frozen=True)
class EarlyStop(AbstractHook):
    """Ends the training after ``patience`` epochs in a row without a better validation figure.

    The figure is the one that chooses the epoch. The learning rate still follows the recipe's number of epochs.
    """

    patience: int = bounded_field(3, COUNT)
    """Epochs without a better figure after which the training ends."""

    name = "early-stop"

    def __post_init__(self) -> None:
        check_bounds(self)

    def ends(self, rows: Sequence[Mapping[str, float]], figure: str, larger: bool) -> bool:
        """Whether the best row is at least ``patience`` rows back."""
        if figure not in rows[0]:
            raise UserError("early-stop needs validation images; set validation, the share of the images, above 0.")
        values = [row[figure] if larger else -row[figure] for row in rows]
        return len(values) - 1 - values.index(max(values)) >= self.patience
