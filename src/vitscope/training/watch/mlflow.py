"""Scalars to MLflow."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

from vitscope.training.watch.scalar import Scalar, plain_values, units
from vitscope.training.watch.sink import AbstractSink, refuse_if_missing

_AT_ONCE = 900
"""Metrics per request; MLflow takes at most 1000."""
_TAG_LENGTH = 5000
"""Characters of a tag that every MLflow store accepts."""


@final
@dataclass(eq=False)
class MLflow(AbstractSink):
    """Logs metrics to the MLflow run ``run_id``, or to the active run; MLflow starts one if there is none.

    Units are tags ``vitscope.unit.DIAGNOSTIC.QUANTITY``, notes tags ``vitscope.note.step-000200``. Raises ``UserError``
    if ``mlflow`` is not installed.
    """

    run_id: str | None = None
    _units: dict[str, str] = field(default_factory=dict[str, str], init=False)

    def __post_init__(self) -> None:
        refuse_if_missing("mlflow")

    def log(self, step: int, scalars: Sequence[Scalar]) -> None:
        """Log the metrics, and any new units."""
        values = list(plain_values(scalars).items())
        for start in range(0, len(values), _AT_ONCE):
            self._mlflow.log_metrics(dict(values[start : start + _AT_ONCE]), step=step, run_id=self._run)
        for name, unit in units(scalars).items():
            if self._units.get(name) != unit:
                self._tag(f"vitscope.unit.{name.replace('/', '.')}", unit)
                self._units[name] = unit

    def note(self, step: int, text: str) -> None:
        """Set the text as a tag."""
        self._tag(f"vitscope.note.step-{step:06d}", text[:_TAG_LENGTH])

    def close(self) -> None:
        """Do nothing: the user ends the run."""

    def _tag(self, name: str, text: str) -> None:
        self._mlflow.tracking.MlflowClient().set_tag(self._run, name, text)

    @property
    def _mlflow(self) -> Any:  # noqa: ANN401 - an optional library
        return importlib.import_module("mlflow")

    @property
    def _run(self) -> str:
        if self.run_id is not None:
            return self.run_id
        active = self._mlflow.active_run() or self._mlflow.start_run()
        return active.info.run_id
