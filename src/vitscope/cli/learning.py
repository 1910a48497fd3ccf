"""The teacher and the hooks of a training, as flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vitscope.cli.paths import refuse_absent
from vitscope.measurement.errors import UserError
from vitscope.models.names import refuse_unknown

if TYPE_CHECKING:
    from vitscope.training.hook import AbstractHook
    from vitscope.training.objective import AbstractObjective


@dataclass(frozen=True)
class Learning:
    """A teacher, and the hooks; each field is a flag."""

    distil: str | None = None
    """Learn from this model: a name (with its trained weights), the folder of a training, or a checkpoint."""
    distil_weights: str | None = None
    """Weights of the model named by --distil."""
    temperature: float = 2.0
    """Temperature of the distillation."""
    distil_share: float = 0.5
    """Share of the distillation in the loss; the labels have the rest."""
    keep_zeros: bool = False
    """Keep weights at zero that start at zero, as in a pruned model."""
    patience: int | None = None
    """End after this many epochs without a better result on the validation images."""

    def __post_init__(self) -> None:
        """Refuse what is known to be wrong before anything heavy is imported."""
        refuse_absent(self.distil_weights, "--distil-weights")
        if self.distil is not None:
            refuse_unknown(self.distil)
        elif self.distil_weights is not None:
            raise UserError("--distil-weights is given without --distil, the model whose weights they are.")

    def objective(self) -> "AbstractObjective | None":
        """The distillation, if there is a teacher."""
        if self.distil is None:
            return None
        from vitscope.models.load import load
        from vitscope.training.objectives.distillation import Distillation

        named = not (Path(self.distil).exists() or self.distil == "digits")
        trained = named and self.distil_weights is None
        teacher = load(checkpoint_in(self.distil), weights=self.distil_weights, pretrained=trained)
        return Distillation(teacher, self.temperature, self.distil_share)

    def hooks(self) -> "list[AbstractHook]":
        """The hooks that these flags request."""
        from vitscope.training.hooks.early_stop import EarlyStop
        from vitscope.training.hooks.keep_zeros import KeepZeros

        return [
            *([KeepZeros()] if self.keep_zeros else []),
            *([] if self.patience is None else [EarlyStop(self.patience)]),
        ]


def checkpoint_in(model: str) -> str:
    """The checkpoint in the folder of a training; any other name or path as it is."""
    file = Path(model) / "model.safetensors"
    return str(file) if file.is_file() and not (Path(model) / "config.json").is_file() else model
