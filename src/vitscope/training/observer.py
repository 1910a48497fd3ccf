"""Who watches a training: the library itself prints nothing."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from vitscope.models.pixels import PixelInput


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

    def model(self, name: str, module: nn.Module, input: PixelInput, classes: tuple[str, ...]) -> None:
        """Before all else: the live module that is tested and saved, what it is called, its input and its classes.

        It may be read at any step and must not be changed. Most observers have no use for it.
        """
        del name, module, input, classes

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


@final
class Several(AbstractTrainingObserver):
    """Several observers, told in their order; all are told the end, even where one fails at it."""

    def __init__(self, observers: Sequence[AbstractTrainingObserver]) -> None:
        self._observers = tuple(observers)

    def model(self, name: str, module: nn.Module, input: PixelInput, classes: tuple[str, ...]) -> None:
        """Show it to each."""
        for observer in self._observers:
            observer.model(name, module, input, classes)

    def begin(self, steps: int, done: int) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.begin(steps, done)

    def step(self, step: Step) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.step(step)

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.epoch(number, figures)

    def end(self) -> None:
        """Tell each."""
        with ExitStack() as stack:
            for observer in reversed(self._observers):
                stack.callback(observer.end)
