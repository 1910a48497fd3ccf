"""Where the scalars of a watched training go beside the run store."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence

from vitscope.measurement.errors import UserError
from vitscope.training.watch.scalar import Scalar


class AbstractSink(ABC):
    """A place for scalars over the steps. What it raises is noted; the training goes on."""

    @abstractmethod
    def log(self, step: int, scalars: Sequence[Scalar]) -> None:
        """Take the scalars of a step."""

    @abstractmethod
    def note(self, step: int, text: str) -> None:
        """Take what must be known beside the numbers: a measurement that failed, or was postponed."""

    @abstractmethod
    def close(self) -> None:
        """Write what is not yet written; the user's own run there stays open."""


def refuse_if_missing(library: str) -> None:
    """Raise ``UserError`` where an optional library is not installed, saying how to get it."""
    if importlib.util.find_spec(library) is None:
        raise UserError(f"{library} is not installed; install it with: pip install 'vitscope[{library}]'.")
