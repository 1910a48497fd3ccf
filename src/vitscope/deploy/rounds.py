"""Rounds, in which contestants take turns in random order, so that disturbances of the machine affect all of them."""

import gc
import json
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from typing_extensions import override

from vitscope.deploy.backend import AbstractRunner, synchronise
from vitscope.engine.work.work import AbstractResult, AbstractWork, Advance, Amount, Shard

TURN = 0.15
"""Seconds that a turn lasts, unless one pass takes longer."""
MOST_PASSES = 30
"""Passes of a turn, at most."""
_LONG = 0.5
"""Seconds of a pass; longer ones are not preceded by an untimed pass."""
_AGREEMENT, _LEAST_WARM, _MOST_WARM, _WARMTH = 0.05, 3, 30, 20.0
"""Warm-up ends when two successive passes differ by less than this share, after at least so many passes; at the
latest after so many passes or seconds."""


@final
@dataclass(frozen=True, eq=False)
class ReadyContestant:
    """A contestant at one batch size, ready to be timed."""

    contestant: int
    batch: int
    runner: AbstractRunner
    placed: Any
    passes: int = 1
    """Passes of a turn."""
    leads_in: bool = True
    """Whether a turn begins with an untimed pass, because caches hold another contestant's numbers."""
    expected: float = 0.0
    """Seconds of a pass after the warm-up."""

    def time(self) -> float:
        """Seconds of one pass, until the device has finished."""
        synchronise(self.runner.device)
        began = time.perf_counter()
        self.runner.run(self.placed)
        synchronise(self.runner.device)
        return time.perf_counter() - began

    def take_turn(self) -> list[float]:
        """Seconds of each pass of a turn."""
        if self.leads_in:
            self.time()
        return [self.time() for _ in range(self.passes)]

    @property
    def turn(self) -> int:
        """Passes of a turn, including the untimed one."""
        return self.passes + self.leads_in


def warm_up(one: ReadyContestant) -> float:
    """Run until two successive passes agree to 5 %, at most 30 passes or 20 s; returns the seconds of a pass."""
    times: list[float] = []
    while len(times) < _MOST_WARM and sum(times) < _WARMTH:
        times.append(one.time())
        if len(times) >= _LEAST_WARM and abs(times[-1] / times[-2] - 1) < _AGREEMENT:
            break
    return min(times[-2:])


def fit_turn(seconds: float) -> tuple[int, bool]:
    """The number of passes of a turn and whether an untimed one precedes them, for the given seconds of a pass."""
    return min(max(round(TURN / seconds), 1), MOST_PASSES), seconds < _LONG


@final
@dataclass(frozen=True, eq=False)
class RoundResult(AbstractResult):
    """The seconds of each contestant's passes, and of each gauge, in one round."""

    seconds: tuple[tuple[float, ...], ...]
    gauges: tuple[float, ...]

    @property
    @override
    def done(self) -> int:
        return 1

    @override
    def to_bytes(self) -> bytes:
        return json.dumps([self.seconds, self.gauges]).encode()


@final
@dataclass(frozen=True, eq=False)
class RoundWork(AbstractWork[RoundResult]):
    """Rounds, one per shard. Contestants of one batch size take their turns one after the other.

    It runs only in this process: two contestants at the same time would disturb each other.
    """

    ready: tuple[ReadyContestant, ...]
    gauges: tuple[Callable[[], object], ...]
    device: torch.device
    rounds: int
    seconds: float | int
    """Seconds of a round, for the progress."""
    seed: int

    @override
    def shards(self) -> tuple[Shard, ...]:
        return tuple(Shard(number, number + 1) for number in range(self.rounds))

    @override
    def passes(self, shard: Shard) -> Amount:
        return self.seconds

    @override
    def fold(self, shard: Shard, advance: Advance) -> RoundResult:
        """One round, without Python's garbage collector."""
        found: dict[int, tuple[float, ...]] = {}
        with _without_collector():
            for number in draw_order([one.batch for one in self.ready], self.seed, shard.start):
                found[number] = tuple(self.ready[number].take_turn())
            gauges = tuple(self._gauge(work) for work in self.gauges)
        advance(self.seconds)
        return RoundResult(tuple(found[number] for number in range(len(self.ready))), gauges)

    @override
    def read(self, content: bytes) -> RoundResult:
        seconds, gauges = json.loads(content)
        return RoundResult(tuple(map(tuple, seconds)), tuple(gauges))

    @override
    def fits(self, shard: Shard, result: RoundResult) -> bool:
        return len(result.seconds) == len(self.ready) and len(result.gauges) == len(self.gauges)

    def _gauge(self, work: Callable[[], object]) -> float:
        synchronise(self.device)
        began = time.perf_counter()
        work()
        synchronise(self.device)
        return time.perf_counter() - began


def draw_order(batches: Sequence[int], seed: int, number: int) -> list[int]:
    """The order in which contestants at these batch sizes take their turns in a round.

    Batch sizes follow one another in random order, and so do the contestants of each.
    """
    generator = np.random.default_rng([seed, number])
    sizes = generator.permutation(sorted(set(batches)))
    several = [np.flatnonzero(np.array(batches) == size) for size in sizes]
    return [int(one) for each in several for one in generator.permutation(each)]


@contextmanager
def _without_collector() -> Generator[None]:
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
