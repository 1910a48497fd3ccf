"""The monitor in transformers' ``Trainer``."""

from typing import Any, final

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vitscope.training.watch.monitor import Monitor


@final
class WatchCallback(TrainerCallback):
    """``Trainer(..., callbacks=[WatchCallback(monitor)])``: the monitor follows the trainer's global step.

    The monitor's own sinks write to TensorBoard, MLflow and Weights & Biases; the last two log to the run that the
    trainer's integration has begun.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - the trainer passes everything it has
    ) -> None:
        """Measure before the first step, if that is due."""
        self._tell(state, kwargs["model"])

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Measure if it is due."""
        self._tell(state, kwargs["model"])

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Close the monitor's sinks."""
        self.monitor.close()

    def _tell(self, state: TrainerState, model: nn.Module) -> None:
        if state.is_world_process_zero:
            self.monitor.step(model, state.global_step)
