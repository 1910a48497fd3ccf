"""Polishing: all weights of heads together, downhill."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from vitscope.convex.heads import Heads


@runtime_checkable
class Coordinates(Protocol):
    """A linear change of the weights of heads."""

    def weights(self, scaled: Heads) -> Heads:
        """From scaled weights to weights."""
        ...

    def gradient(self, gradient: Heads) -> Heads:
        """The gradient in scaled weights."""
        ...

    def to_scaled(self, weights: Heads) -> Heads:
        """From weights to scaled weights."""
        ...


@dataclass(frozen=True, eq=False)
class Polished:
    """The best heads found, their value with half the squared weights as penalty, and the passes it took.

    ``interrupted`` says whether the user stopped it.
    """

    heads: Heads
    value: float
    passes: int
    interrupted: bool


def polish(
    objective: Callable[[Heads], tuple[float, Heads]],
    heads: Heads,
    passes: int,
    tolerance: float = 0.0,
    memory: int = 20,
    along: Callable[[Heads], Heads] | None = None,
    scaling: Coordinates | None = None,
    until: Callable[[], bool] | None = None,
) -> Polished:
    """Lower the objective in all weights by L-BFGS (Burer-Monteiro), in about ``passes`` passes at most.

    ``objective`` returns the value, with half the squared weights as penalty, and its gradient, in the problem's
    precision; the steps' algebra is in float64. Polishing stops if a step lowers the value by less than ``tolerance``
    of it. L-BFGS keeps ``memory`` steps, of ``2 memory`` times the weights; their number only affects speed.
    ``along`` projects a gradient on the subspace in which heads may move; None is the whole space. ``scaling`` are the
    coordinates of the steps. ``until`` is called after every step, with the objective last evaluated at the heads that
    the step led to; True ends the polishing.
    """
    best, value, made, interrupted = heads, float("inf"), 0, False
    like = heads.terms[0].left

    def in_one_row(vector: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        nonlocal best, value, made
        made += 1
        here = heads.with_vector(torch.from_numpy(vector).to(like))
        here = scaling.weights(here) if scaling else here
        found, gradient = objective(here)
        if found < value:
            best, value = here, found
        slopes = along(gradient) if along else gradient
        slopes = scaling.gradient(slopes) if scaling else slopes
        return found, slopes.vector.double().cpu().numpy()

    def check_step(_: NDArray[np.float64]) -> None:
        if until is not None and until():
            raise StopIteration

    if heads.count and passes > 0:
        start = (scaling.to_scaled(heads) if scaling else heads).vector.double().cpu().numpy()
        options = {"maxcor": memory, "maxfun": passes, "maxiter": passes, "ftol": tolerance, "gtol": 0.0}
        try:
            minimize(in_one_row, start, jac=True, method="L-BFGS-B", callback=check_step, options=options)
        except KeyboardInterrupt:
            interrupted = True
    return Polished(best, value, made, interrupted)
