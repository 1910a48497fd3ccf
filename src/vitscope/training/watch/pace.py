"""When to measure: at regular steps, as long as measuring takes no more than its share of the time."""

from dataclasses import dataclass, field
from enum import Enum
from typing import final

from vitscope.measurement.errors import UserError


class Turn(Enum):
    """What a step calls for."""

    PASS = "nothing"
    MEASURE = "a measurement"
    POSTPONE = "a measurement that would take too large a share of the time"


@final
@dataclass(eq=False)
class Pace:
    r"""The steps at which to measure, and the share of wall time that measuring may take.

    A multiple of ``every`` is due once it is reached or passed. With c the seconds of the last measurement and t
    the seconds since it ended, the next is taken if

    .. math:: c / (t + c) \le \text{budget}

    and otherwise waits for the next multiple. So all measurements but the latest have together taken at most
    ``budget`` of the time from the first one to the latest. The first, whose cost is unknown, is always taken.
    """

    every: int
    budget: float
    spent: float = field(default=0.0, init=False)
    """Seconds that measuring has taken so far."""
    cost: float | None = field(default=None, init=False)
    """Seconds of the last measurement."""
    _began: float = field(default=0.0, init=False)
    _ended: float = field(default=0.0, init=False)
    _seen: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"every is {self.every}; it is the number of steps between measurements, at least 1.")
        if not 0 < self.budget <= 1:
            raise UserError(f"budget is {self.budget}; it is a share of the time, above 0 and at most 1.")

    def turn(self, step: int, now: float) -> Turn:
        """What this step calls for; the same step again (gradient accumulation) calls for nothing."""
        first = self._seen is None or self._seen > step  # a count that falls belongs to another training
        before = step - 1 if first else self._seen
        assert before is not None
        self._seen = step
        if step - step % self.every <= before:
            return Turn.PASS
        if self.cost is None:
            return Turn.MEASURE
        return Turn.MEASURE if self.cost <= self.budget * (now - self._ended + self.cost) else Turn.POSTPONE

    def record_measurement(self, began: float, ended: float) -> None:
        """Record when a measurement began and ended."""
        if self.cost is None:
            self._began = began
        self.cost, self._ended = ended - began, ended
        self.spent += self.cost

    def share(self, now: float) -> float | None:
        """Share of the time since the first measurement began that was spent measuring; None before the first."""
        if self.cost is None or now <= self._began:
            return None
        return self.spent / (now - self._began)
