"""Scalars to TensorBoard."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

from vitscope.training.watch.scalar import Scalar, plain_values, units
from vitscope.training.watch.sink import AbstractSink, refuse_if_missing


@final
@dataclass(eq=False)
class TensorBoard(AbstractSink):
    """Writes an event file to ``folder``; in the training's own log folder, its curves appear beside the training's.

    Units are a text, ``watch/units``. Raises ``UserError`` if ``tensorboard`` is not installed.
    """

    folder: str | os.PathLike[str]
    _writer: Any = field(default=None, init=False)
    _units: dict[str, str] = field(default_factory=dict[str, str], init=False)

    def __post_init__(self) -> None:
        refuse_if_missing("tensorboard")

    def log(self, step: int, scalars: Sequence[Scalar]) -> None:
        """Write each scalar, and any new units."""
        for name, value in plain_values(scalars).items():
            self._open().add_scalar(name, value, step)
        if not units(scalars).items() <= self._units.items():
            self._units |= units(scalars)
            rows = [f"| {name} | {unit} |" for name, unit in self._units.items()]
            self._open().add_text("watch/units", "\n".join(["| quantity | unit |", "|---|---|", *rows]), step)
        self._open().flush()

    def note(self, step: int, text: str) -> None:
        """Write the text as ``watch/notes``."""
        self._open().add_text("watch/notes", text, step)
        self._open().flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> Any:  # noqa: ANN401 - a SummaryWriter, from an optional library
        if self._writer is None:  # at the first scalar, in the process that trains
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(os.fspath(self.folder), filename_suffix=".vitscope")
        return self._writer
