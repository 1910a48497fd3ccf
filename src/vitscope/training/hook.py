"""Hooks: what a training does besides its steps, as values that are part of what it is."""

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from torch import nn

from vitscope.models.subject import Subject
from vitscope.runs.code import code_version
from vitscope.runs.registry import Registry


@dataclass(frozen=True, eq=False)
class Epoch:
    """An epoch that is over: its number (from 1), the rows of the metrics so far, and the model as a subject.

    ``subject`` makes it when it is called: a copy of what is tested and saved. ``folder`` is the training's.
    """

    number: int
    rows: Sequence[Mapping[str, float]]
    subject: Callable[[], Subject]
    folder: Path


class AbstractHook(ABC):
    """What a training does besides its steps. One file, one registered final class, a frozen dataclass of its settings.

    A hook has no state of its own: what it does follows from the weights that the training began with, from the step
    and from the metrics, so that a resumed training does the same.
    """

    name: ClassVar[str]

    def facts(self) -> dict[str, object]:
        """Its name and settings, as part of what the training is; with the version of foreign code."""
        return {"name": self.name, **asdict(self), **code_version(self)}  # pyright: ignore[reportArgumentType]

    def begin(self, module: nn.Module) -> Callable[[], None] | None:
        """What is done after each step, on each device; None for nothing.

        ``module`` is the one that is trained, with the weights that the training begins with, also when it is resumed.
        """
        del module

    def finish_epoch(self, epoch: Epoch) -> None:
        """What is done after an epoch, on the first device. It changes no weights."""
        del epoch

    def ends(self, rows: Sequence[Mapping[str, float]], figure: str, larger: bool) -> bool:
        """Whether the training ends after these rows of the metrics, of which ``figure`` chooses the epoch."""
        del rows, figure, larger
        return False


HOOKS: Registry[AbstractHook] = Registry("hook", "vitscope.training.hooks", AbstractHook, settled=False)
