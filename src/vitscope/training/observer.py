"""Observers of a training: the library itself prints nothing."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn
from typing_extensions import override

from vitscope.models.pixels import PixelInput


@dataclass(frozen=True)
class Step:
    """A step that was just made. ``loss`` stays on the device; reading it waits for the device."""

    number: int
    steps: int
    epoch: int
    epochs: int
    loss: Tensor
    learning_rate: float


class AbstractTrainingObserver(ABC):
    """Receives a training's events, in the first device's process only. What it raises ends the training, as a kill."""

    def model(self, name: str, module: nn.Module, input: PixelInput, classes: tuple[str, ...]) -> None:
        """Before all other events: the live module that is tested and saved, its name, its input and its classes.

        The module may be read at any step but not changed. Most observers ignore it.
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
    """Ignores all events."""

    @override
    def begin(self, steps: int, done: int) -> None:
        pass

    @override
    def step(self, step: Step) -> None:
        pass

    @override
    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        pass

    @override
    def end(self) -> None:
        pass


@final
class Several(AbstractTrainingObserver):
    """Several observers, called in order; all of them learn of the end, even if one fails at it."""

    def __init__(self, observers: Sequence[AbstractTrainingObserver]) -> None:
        self._observers = tuple(observers)

    @override
    def model(self, name: str, module: nn.Module, input: PixelInput, classes: tuple[str, ...]) -> None:
        for observer in self._observers:
            observer.model(name, module, input, classes)

    @override
    def begin(self, steps: int, done: int) -> None:
        for observer in self._observers:
            observer.begin(steps, done)

    @override
    def step(self, step: Step) -> None:
        for observer in self._observers:
            observer.step(step)

    @override
    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        for observer in self._observers:
            observer.epoch(number, figures)

    @override
    def end(self) -> None:
        with ExitStack() as stack:
            for observer in reversed(self._observers):
                stack.callback(observer.end)
