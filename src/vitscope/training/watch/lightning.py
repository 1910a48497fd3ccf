"""The monitor in Lightning, as ``lightning`` or as ``pytorch_lightning``."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import nn

from vitscope.measurement.errors import UserError
from vitscope.training.watch.monitor import Monitor
from vitscope.training.watch.scalar import Scalar, plain_values
from vitscope.training.watch.sink import AbstractSink


def _callback_class() -> Any:  # noqa: ANN401 - from an optional library
    """``Callback`` of the Lightning package that is in use, or else of one that is installed."""
    packages = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}
    found = [root for root in packages if importlib.util.find_spec(root) is not None]
    if not found:
        raise UserError("lightning is not installed; install it with: pip install 'vitscope[lightning]'.")
    root = next((root for root in found if packages[root] in sys.modules), found[0])
    return importlib.import_module(f"{packages[root]}.callbacks").Callback


_Callback = _callback_class()


@final
@dataclass(frozen=True)
class Loggers(AbstractSink):
    """The loggers that a Lightning trainer has, such as TensorBoard, MLflow, Weights & Biases or CSV."""

    loggers: Sequence[Any]

    def log(self, step: int, scalars: Sequence[Scalar]) -> None:
        """Log names and values to each logger."""
        for logger in self.loggers:
            logger.log_metrics(plain_values(scalars), step=step)

    def note(self, step: int, text: str) -> None:
        """Do nothing: loggers take numbers only. The log and the run store have the text."""

    def close(self) -> None:
        """Do nothing: the trainer closes its loggers."""


@final
class WatchCallback(_Callback):
    """``Trainer(callbacks=[WatchCallback(monitor)])``: the monitor follows the trainer's global step.

    ``submodule`` is the attribute of the LightningModule that is the vision model ("" for the module itself). Scalars
    go to the trainer's loggers too. Raises ``UserError`` before the training if there is no such submodule.
    """

    def __init__(self, monitor: Monitor, submodule: str = "model") -> None:
        super().__init__()
        self.monitor, self.submodule = monitor, submodule

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ANN401 - of either Lightning
        """Refuse a missing submodule."""
        self._model(pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Measure before the first step, if that is due."""
        self._tell(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: Any,  # noqa: ANN401
        pl_module: Any,  # noqa: ANN401
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Measure if it is due."""
        self._tell(trainer, pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ANN401
        """Close the monitor's sinks."""
        self.monitor.close()

    def _tell(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        if trainer.is_global_zero:
            self.monitor.step(self._model(pl_module), trainer.global_step, (Loggers(tuple(trainer.loggers)),))

    def _model(self, pl_module: nn.Module) -> nn.Module:
        try:
            return pl_module.get_submodule(self.submodule)
        except AttributeError as error:
            names = ", ".join(name for name, _ in pl_module.named_children())
            raise UserError(
                f"{type(pl_module).__name__} has no submodule {self.submodule!r} to watch; it has: {names}. "
                "Give WatchCallback(monitor, submodule=NAME)."
            ) from error
