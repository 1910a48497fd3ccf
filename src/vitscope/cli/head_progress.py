"""What is seen of a convex fit while it is under way."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from math import isfinite
from typing import TYPE_CHECKING

from vitscope.cli.terminal import ProgressBar, stderr

if TYPE_CHECKING:
    from vitscope.convex.solver import Step


@contextmanager
def fitting(text: str) -> Generator[Callable[["Step"], None] | None]:
    """A line that is there while a head is fitted, and says at every step of the solver how far it is."""
    console = stderr()
    if not console.is_terminal:
        yield None
        return
    with console.status(text) as status:
        yield lambda step: status.update(f"{text}: {so_far(step)}, {step.seconds:.0f} s")


class FitProgress:
    """A bar of fits, which says of the one under way how far it is."""

    def __init__(self, bar: ProgressBar, text: str) -> None:
        self._bar, self._text = bar, text

    def begins(self, text: str) -> None:
        """Another fit is under way."""
        self._text = text
        self._bar.at(text)

    def __call__(self, step: "Step") -> None:
        """It has come so far."""
        self._bar.at(f"{self._text}: {so_far(step)}")


def so_far(step: "Step") -> str:
    """Objective, estimated gap and heads of the best point so far."""
    bound = f"gap about {100 * step.gap:.2g} %" if isfinite(step.gap) else "no bound yet"
    return f"objective {step.primal:.4g}, {bound}, {step.heads} heads"
