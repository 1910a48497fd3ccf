"""Scalars to Weights & Biases."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

from vitscope.measurement.errors import UserError
from vitscope.training.watch.scalar import Scalar, plain_values, units
from vitscope.training.watch.sink import AbstractSink, refuse_if_missing

_STEP = "watch/step"


@final
@dataclass(eq=False)
class WeightsAndBiases(AbstractSink):
    """Logs to the Weights & Biases run ``run``, or to the one that ``wandb.init`` began in this process.

    Curves are drawn over ``watch/step``, so they do not disturb the training's own logging step. Units are in the
    run's configuration as ``vitscope_units``. Raises ``UserError`` if ``wandb`` is not installed.
    """

    run: Any = None
    _units: dict[str, str] = field(default_factory=dict[str, str], init=False)

    def __post_init__(self) -> None:
        refuse_if_missing("wandb")

    def log(self, step: int, scalars: Sequence[Scalar]) -> None:
        """Log the scalars, and any new units."""
        run = self._run
        if not units(scalars).items() <= self._units.items():
            self._units |= units(scalars)
            run.config.update({"vitscope_units": dict(self._units)}, allow_val_change=True)
            run.define_metric(_STEP)
            for name in self._units:
                run.define_metric(name, step_metric=_STEP)
                run.define_metric(f"{name}/*", step_metric=_STEP)
            run.define_metric("standard-error/*", step_metric=_STEP)
        run.log({**plain_values(scalars), _STEP: step})

    def note(self, step: int, text: str) -> None:
        """Put the text into the run's summary."""
        self._run.summary[f"watch/note/step-{step:06d}"] = text

    def close(self) -> None:
        """Do nothing: the user finishes the run."""

    @property
    def _run(self) -> Any:  # noqa: ANN401 - a run from an optional library
        run = self.run or importlib.import_module("wandb").run
        if run is None:
            raise UserError("No Weights & Biases run is active; call wandb.init(...) before the training.")
        return run
