"""The monitor in the project's own trainer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import final

from torch import nn
from typing_extensions import override

from vitscope.models.pixels import PixelInput
from vitscope.training.observer import AbstractTrainingObserver, Step
from vitscope.training.watch.monitor import Monitor
from vitscope.training.watch.snapshot import AsSubject


@final
class WatchObserver(AbstractTrainingObserver):
    """Calls ``monitor`` at every step of :func:`vitscope.training.train.train`.

    It measures what the training tests and saves: the model, or the moving average of its weights if the recipe has
    one. If the monitor's ``subject`` is the default, input and class names are the training's own.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._module: nn.Module | None = None

    def model(self, name: str, module: nn.Module, input: PixelInput, classes: tuple[str, ...]) -> None:
        """Remember the live module, and let a default ``subject`` use its input and classes."""
        self._module = module
        if self._monitor.subject == AsSubject():
            self._monitor = replace(self._monitor, subject=AsSubject(input, classes, name=name))

    def begin(self, steps: int, done: int) -> None:
        """Measure before the first step, if that is due."""
        self._tell(done)

    def step(self, step: Step) -> None:
        """Measure if it is due."""
        self._tell(step.number)

    @override
    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        pass

    def end(self) -> None:
        """Close the monitor's sinks."""
        self._monitor.close()

    def _tell(self, number: int) -> None:
        assert self._module is not None, "a training shows its model before it begins"
        self._monitor.step(self._module, number)
