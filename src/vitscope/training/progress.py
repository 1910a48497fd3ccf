"""A progress bar with the time left, on the terminal."""

from collections.abc import Mapping
from typing import final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vitscope.training.observer import AbstractTrainingObserver, Step


@final
class TrainingBar(AbstractTrainingObserver):
    """One bar for all steps with the time left, and one line per epoch. The process that trains makes its own bar."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def begin(self, steps: int, done: int) -> None:
        """Show the bar."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[loss]}"), console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("training", total=steps, completed=done, loss="")
        self._bar.start()

    def step(self, step: Step) -> None:
        """Move the bar; the loss is read every twentieth step."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=f"epoch {step.epoch + 1}/{step.epochs}")
            if step.number % 20 == 0:
                self._bar.update(self._task, loss=f"loss {float(step.loss):.3f}")

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """Print the epoch's figures above the bar."""
        if self._bar is not None:
            judged = figures.get("validation_accuracy")
            tested = "" if judged is None else f", validation accuracy {judged:.2%}"
            text = f"epoch {number}: loss {figures['train_loss']:.3f}{tested}, {figures['seconds']:.0f} s"
            self._bar.console.print(text, highlight=False)

    def end(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
