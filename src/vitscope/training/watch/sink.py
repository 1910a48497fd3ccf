"""Where the scalars of a watched training go besides the run store."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence

from vitscope.measurement.errors import UserError
from vitscope.training.watch.scalar import Scalar


class AbstractSink(ABC):
    """A destination of scalars over the steps. What it raises is logged, and the training goes on."""

    @abstractmethod
    def log(self, step: int, scalars: Sequence[Scalar]) -> None:
        """Take the scalars of a step."""

    @abstractmethod
    def note(self, step: int, text: str) -> None:
        """Take a note for the reader of the numbers: a measurement that failed or was postponed."""

    @abstractmethod
    def close(self) -> None:
        """Write what is not yet written; a run of the user's own stays open."""


def refuse_if_missing(library: str) -> None:
    """Raise ``UserError`` if an optional library is not installed, saying how to install it."""
    if importlib.util.find_spec(library) is None:
        raise UserError(f"{library} is not installed; install it with: pip install 'vitscope[{library}]'.")
