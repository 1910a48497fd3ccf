"""Hooks: what a training does besides its steps, as values that belong to its identity."""

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
    """A finished epoch: its number (from 1), the rows of the metrics so far, and the model as a subject.

    Calling ``subject`` copies the model that is tested and saved. ``folder`` is the training's.
    """

    number: int
    rows: Sequence[Mapping[str, float]]
    subject: Callable[[], Subject]
    folder: Path


class AbstractHook(ABC):
    """What a training does besides its steps. One file, one registered final class, a frozen dataclass of its settings.

    A hook has no state of its own: what it does follows from the weights that the training began with, the step and
    the metrics, so a resumed training does the same.
    """

    name: ClassVar[str]

    def facts(self) -> dict[str, object]:
        """Name and settings, as part of the training's identity, with the version of third-party code."""
        return {"name": self.name, **asdict(self), **code_version(self)}  # pyright: ignore[reportArgumentType]

    def begin(self, module: nn.Module) -> Callable[[], None] | None:
        """Return what to do after each step, on each device; None for nothing.

        ``module`` is the model in training, with the weights that the training began with, even when it is resumed.
        """
        del module

    def finish_epoch(self, epoch: Epoch) -> None:
        """Act after an epoch, on the first device, without changing weights."""
        del epoch

    def ends(self, rows: Sequence[Mapping[str, float]], figure: str, larger: bool) -> bool:
        """Whether the training ends after these rows of the metrics; their ``figure`` chooses the epoch."""
        del rows, figure, larger
        return False


HOOKS: Registry[AbstractHook] = Registry("hook", "vitscope.training.hooks", AbstractHook, settled=False)
