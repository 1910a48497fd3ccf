"""Who watches a training: the library itself prints nothing."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A step that was just made. ``loss`` is left on the device: to read it waits for the device."""

    number: int
    steps: int
    epoch: int
    epochs: int
    loss: Tensor
    learning_rate: float


class AbstractTrainingObserver(ABC):
    """Told what happens, on the first device's process alone. What it raises ends the training, as a kill would."""

    @abstractmethod
    def begin(self, steps: int, done: int) -> None:
        """The training begins; ``done`` of its ``steps`` were made before it was interrupted."""

    @abstractmethod
    def step(self, step: Step) -> None:
        """A step was made, and its state saved if it was due."""

    @abstractmethod
    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """Epoch ``number`` (from 1) is over and saved; ``figures`` are its row of the metrics."""

    @abstractmethod
    def end(self) -> None:
        """The training is over, or was ended by an error."""


class Silent(AbstractTrainingObserver):
    """Says nothing."""

    def begin(self, steps: int, done: int) -> None:
        """Nothing."""

    def step(self, step: Step) -> None:
        """Nothing."""

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""
