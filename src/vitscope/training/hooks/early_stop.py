"""Early stop: a training ends when it no longer gets better."""

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
    """The training ends when ``patience`` epochs in a row brought no better figure of the validation images.

    The figure is the one that chooses the epoch. The learning rate follows the epochs of the recipe all the same.
    """

    patience: int = bounded_field(3, COUNT)
    """Epochs without a better figure after which the training ends."""

    name = "early-stop"

    def __post_init__(self) -> None:
        check_bounds(self)

    def ends(self, rows: Sequence[Mapping[str, float]], figure: str, larger: bool) -> bool:
        """Whether the best row lies ``patience`` rows back."""
        if figure not in rows[0]:
            raise UserError("early-stop needs validation images; set validation, the share of the images, above 0.")
        values = [row[figure] if larger else -row[figure] for row in rows]
        return len(values) - 1 - values.index(max(values)) >= self.patience
