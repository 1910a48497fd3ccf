"""Rounds with a clock of their own: who takes turns when, and what the figures are if times are known."""

import itertools
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from vitscope.deploy import rounds
from vitscope.deploy.backend import AbstractRunner
from vitscope.deploy.rounds import ReadyContestant, RoundWork, draw_order, fit_turn, warm_up
from vitscope.deploy.timing import Timed, in_rows, ratio_of

CPU = torch.device("cpu")


@dataclass
class Clock:
    """Stands still unless a runner moves it."""

    now: float = 0.0
    log: list[str] = field(default_factory=list)

    def perf_counter(self) -> float:
        return self.now


@dataclass(frozen=True, eq=False)
class Taking(AbstractRunner):
    """Takes as long as it is told, pass by pass; the last time again and again."""

    clock: Clock
    name: str
    seconds: list[float]
    device = CPU

    def place(self, images):
        return images

    def run(self, placed):
        taken = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        self.clock.now += taken
        self.clock.log.append(self.name)

    def logits(self, output):
        return output


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(rounds.time, "perf_counter", found.perf_counter)
    return found


def ready(clock, name, seconds, contestant=0, batch=1, **settings):
    return ReadyContestant(contestant, batch, Taking(clock, name, seconds), None, **settings)


def work_of(entries, count, gauges=(), seed=0):
    return RoundWork(tuple(entries), gauges, CPU, count, 1.0, seed)


def results_of(work):
    return [work.fold(shard, lambda _: None) for shard in work.shards()]


@pytest.mark.parametrize("seed", range(5))
def test_everyone_has_one_turn_a_round_and_batch_sizes_stay_together(seed):
    batches = [1, 32, 1, 32, 1, 8]
    orders = [draw_order(batches, seed, number) for number in range(40)]
    for order in orders:
        assert sorted(order) == list(range(6))
        sizes = [batches[number] for number in order]
        assert sum(one != two for one, two in itertools.pairwise(sizes)) == 2
    assert len({tuple(order) for order in orders}) > 10
    assert orders == [draw_order(batches, seed, number) for number in range(40)]
    firsts = [next(number for number in order if batches[number] == 1) for order in orders]
    assert set(firsts) == {0, 2, 4}  # nobody is always first


def test_the_pass_that_leads_in_is_not_timed(clock):
    cold = ready(clock, "a", [9.0, 1.0, 1.0], passes=2)
    assert cold.take_turn() == [1.0, 1.0]
    assert cold.turn == 3
    assert ready(clock, "a", [9.0, 1.0], passes=1, leads_in=False).take_turn() == [9.0]


def test_warming_up_ends_when_two_passes_agree(clock):
    seconds = [8.0, 4.0, 2.0, 1.0, 1.02, 0.5]
    assert warm_up(ready(clock, "a", seconds)) == 1.0
    assert seconds == [0.5]
    assert (
        warm_up(ready(clock, "a", [float(2 ** (number % 2)) for number in range(100)])) == 1.0
    )  # never agree: 30, 20 s
    assert fit_turn(0.01) == (15, True)
    assert fit_turn(1e-5) == (30, True)
    assert fit_turn(3.0) == (1, False)


def test_a_machine_that_slows_down_changes_times_and_not_ratios(clock):
    """Every round is slower than the one before by a fifth; the second contestant takes 3/4 of the first's time."""
    slow = [1.2**number for number in range(12)]
    twice = [value for value in slow for _ in range(2)]
    pair = [ready(clock, "a", list(twice), passes=2, leads_in=False),
            ready(clock, "b", [0.75 * value for value in twice], contestant=1, passes=2, leads_in=False)]  # fmt: skip
    found = results_of(work_of(pair, 12))
    first, second = (Timed(number, 4, in_rows([one.seconds[number] for one in found]), seed=0) for number in range(2))
    ratio = ratio_of(second, first)
    assert np.allclose(ratio.values, 0.75)
    assert ratio.interval(0.01) == pytest.approx((0.75, 0.75))
    assert first.median.value == pytest.approx((slow[5] + slow[6]) / 2)
    assert first.p90.value == pytest.approx(np.quantile(twice, 0.9))
    assert first.throughput.value == pytest.approx(4 / first.median.value)
    assert first.median.low < first.median.value < first.median.high
    assert first.throughput.low == pytest.approx(4 / first.median.high)
    assert first.count == 24


def test_gauges_are_timed_in_every_round(clock):
    def gauge():
        clock.now += 0.25

    work = work_of([ready(clock, "a", [1.0])], 3, (gauge,))
    assert [one.gauges for one in results_of(work)] == [(0.25,)] * 3


def test_a_round_is_read_as_it_was_written(clock):
    work = work_of([ready(clock, "a", [0.1, 0.2], passes=2), ready(clock, "b", [0.3])], 2)
    result = results_of(work)[0]
    again = work.read(result.to_bytes())
    assert (again.seconds, again.gauges, again.done) == (result.seconds, result.gauges, 1)
    assert work.fits(work.shards()[0], again)
    assert not replace(work, ready=work.ready[:1]).fits(work.shards()[0], again)
