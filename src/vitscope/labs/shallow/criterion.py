"""When a trial has learned, and when it stops: by hinge loss and, separately, by 0-1 error on test images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from vitscope.measurement.errors import UserError


@dataclass(frozen=True)
class Criterion:
    """A trial is evaluated before its first step and after every ``every`` steps, until its goal or ``steps``.

    ``hinge`` is reached when the mean hinge loss on test images is below ``loss``: the paper's zero generalization
    error is a margin of at least 1 almost surely. ``error`` is reached when every test image is classified correctly;
    that takes far fewer samples. The goal ``both`` waits for both, ``none`` for neither.
    """

    loss: float = 1e-3
    goal: Literal["hinge", "error", "both", "none"] = "hinge"
    steps: int = 300
    every: int = 20

    def __post_init__(self) -> None:
        if self.goal not in ("hinge", "error", "both", "none"):
            raise UserError(f"goal is {self.goal!r}; it can be 'hinge', 'error', 'both' or 'none'.")
        if self.every < 1 or self.steps < 1 or self.steps % self.every:
            raise UserError(f"steps is {self.steps} and every is {self.every}; steps must be a multiple of every.")

    def stops(self, hinge: Sequence[float], error: Sequence[float]) -> bool:
        """Whether a trial with these evaluations so far has ended."""
        met = {"hinge": self.hinge_step(hinge) is not None, "error": self.error_step(error) is not None}
        met |= {"both": met["hinge"] and met["error"], "none": False}
        return met[self.goal] or (len(hinge) - 1) * self.every >= self.steps

    def hinge_step(self, hinge: Sequence[float]) -> int | None:
        """The first step at which the hinge loss was found below ``loss``; None if it was not."""
        return self._first(value < self.loss for value in hinge)

    def error_step(self, error: Sequence[float]) -> int | None:
        """The first step at which no test image was misclassified; None if there was none."""
        return self._first(value == 0 for value in error)

    def _first(self, met: Iterable[bool]) -> int | None:
        return next((place * self.every for place, one in enumerate(met) if one), None)
