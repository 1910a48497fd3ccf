"""The steps of a bench: it measures memory, prepares contestants, times them in rounds, and counts operations."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.data import Images
from vitscope.deploy.backend import AbstractRunner
from vitscope.deploy.bench_results import BenchFigures
from vitscope.deploy.contestant import AbstractContestant, SubjectContestant
from vitscope.deploy.memory import EACH, Apart, MemoryWork
from vitscope.deploy.pictures import Transform, first_batch, make_noise, read_times
from vitscope.deploy.rounds import ReadyContestant, RoundResult, RoundWork, fit_turn, warm_up
from vitscope.deploy.tally import Gauges, PassTally, count_multiply_adds, tally
from vitscope.deploy.timing import Timed, in_rows
from vitscope.engine.plan import Plan, fold_work
from vitscope.engine.work.executor import InProcess
from vitscope.engine.work.work import Amount
from vitscope.measurement.bounds import COUNT, SEED, Bounds, check_number
from vitscope.measurement.duration import format_duration
from vitscope.measurement.errors import UserError
from vitscope.measurement.estimate import rate_of
from vitscope.measurement.median import values_needed
from vitscope.measurement.text import reason
from vitscope.models.own_forward import distance
from vitscope.runs.spec import Spec

MOST_ROUNDS = 200
"""Rounds, at most, unless told otherwise."""
_UNSTEADY = 1.3
"""If nine passes of ten do not stay within so many medians, something else uses the machine."""
_GAUGES = 0.05
"""Seconds that the gauges of a round take, about."""


@contextmanager
def threads_of(count: int) -> Generator[None]:
    """Let PyTorch compute with this many threads for the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@final
@dataclass(frozen=True, eq=False)
class BenchSettings:
    """How contestants are timed. If ``rounds`` is None, there are as many as last about ``seconds``."""

    batches: tuple[int, ...] = (1, 32)
    rounds: int | None = None
    seconds: float | int = 60.0
    threads: int = field(default_factory=torch.get_num_threads)
    images: Images | None = None
    memory: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.batches or len(set(self.batches)) != len(self.batches):
            raise UserError(f"The batch sizes are {self.batches}; give one or several, each once.")
        for batch in self.batches:
            check_number("A batch size", batch, COUNT)
        check_number("threads", self.threads, Bounds(1, 1024))
        check_number("seconds", self.seconds, Bounds(above=0, most=1e6), whole=False)
        check_number("seed", self.seed, SEED)
        if self.rounds is not None:
            check_number("rounds", self.rounds, Bounds(2, 100_000))
        if self.images is not None and not len(self.images):
            raise UserError(f"{self.images.name} has no images to time the models on.")


@final
@dataclass(eq=False)
class Benching:
    """A bench under way. It collects in ``skipped`` and ``notes`` what the run must report."""

    contestants: tuple[AbstractContestant, ...]
    settings: BenchSettings
    spec: Spec
    plan: Plan
    total: Amount
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])
    apart: dict[int, float] = field(default_factory=dict[int, float])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What the contestants are called."""
        return BenchFigures(self.contestants, self.settings.batches, {}, np.empty((0, 3))).names

    def measure(self) -> BenchFigures:
        """All figures."""
        peaks = self._peaks() if self.settings.memory else {}
        ready = self._prepare()
        gauges = Gauges(self._like)
        results = self._rounds(ready, gauges)
        timed = {
            (one.contestant, one.batch): Timed(
                one.contestant, one.batch, in_rows([result.seconds[number] for result in results]), self.settings.seed
            )
            for number, one in enumerate(ready)
        }
        rates = np.array(gauges.amounts) / np.array([one.gauges for one in results])
        adds, tallies = self._tally(ready)
        reading = self._reading()
        found = BenchFigures(
            self.contestants, self.settings.batches, timed, rates, peaks, adds, tallies, self.apart, reading
        )
        self._note(found)
        return found

    @property
    def _like(self) -> Tensor:
        """A tensor of the first contestant's device and type."""
        function = self.contestants[0].function
        return torch.empty(0) if function is None else function[1]

    def _peaks(self) -> dict[tuple[int, int], int]:
        """Each contestant's memory at each batch size. It comes first, so that a script without a guard ends soon."""
        self.plan.tell("Measuring memory, each contestant in a process of its own")
        batches = self.settings.batches
        work = MemoryWork(dict(enumerate(self.contestants)), batches, self.settings.threads)
        try:
            folded = fold_work(work, self.spec, replace(self.plan, executor=Apart()), self.total)
        except Exception as error:  # the module cannot be sent, or a script has no guard; times need no processes
            self.skipped["memory"] = reason(error)
            return {}
        results = {shard.start: result for shard, result in folded.items()}
        for number, result in results.items():
            if result.why:
                self.skipped[f"memory of {self.names[number]}"] = result.why
        return {
            (number, batch): peak
            for number, result in results.items()
            for batch, peak in zip(batches, result.peaks, strict=True)
            if peak is not None
        }

    def _prepare(self) -> list[ReadyContestant]:
        """All contestants that run, warmed up, at each batch size that they take."""
        found: list[ReadyContestant] = []
        for number, contestant in enumerate(self.contestants):
            name = self.names[number]
            self.plan.tell(f"Preparing {name}")
            batches = [batch for batch in self.settings.batches if contestant.fixed_batch in (None, batch)]
            for batch in self.settings.batches:
                if batch not in batches:
                    why = f"it was exported for batches of {contestant.fixed_batch} and takes no others"
                    self._leave_out(number, f"{name} at batch {batch}", why)
            with self._unless_it_fails(number, name):
                runner = contestant.prepare(batches, self.settings.threads)
                for batch in batches:
                    with self._unless_it_fails(number, f"{name} at batch {batch}"):
                        found.append(self._warm(number, contestant, runner, batch))
        return found

    @contextmanager
    def _unless_it_fails(self, number: int, what: str) -> Generator[None]:
        """Leave a contestant out if the block fails: compilers and exporters raise errors of their own."""
        try:
            yield
        except (MemoryError, UserError):
            raise
        except Exception as error:
            self._leave_out(number, what, reason(error), error)

    def _leave_out(self, number: int, what: str, why: str, error: Exception | None = None) -> None:
        if number == 0:
            raise UserError(
                f"{what} cannot run ({why}), and the others are compared with it; give another first."
            ) from error
        self.skipped[what] = why

    def _warm(self, number: int, contestant: AbstractContestant, runner: AbstractRunner, batch: int) -> ReadyContestant:
        images = self._images(contestant, batch)
        placed = runner.place(images)
        if number not in self.apart:
            self._compare(number, contestant, runner.logits(runner.run(placed)), images)
        ready = ReadyContestant(number, batch, runner, placed)
        expected = warm_up(ready)
        passes, leads_in = fit_turn(expected)
        return replace(ready, passes=passes, leads_in=leads_in, expected=expected)

    def _compare(self, number: int, contestant: AbstractContestant, logits: Tensor, images: Tensor) -> None:
        """Record the distance of a subject's logits on another backend from those of its module."""
        if isinstance(contestant, SubjectContestant) and not contestant.eager:
            function, like = contestant.function
            with torch.no_grad():
                own = function(images.to(like.device, like.dtype)).float().cpu()
            self.apart[number] = distance(logits, own)

    def _images(self, contestant: AbstractContestant, batch: int) -> Float[Tensor, "batch channels height width"]:
        """The images that a contestant runs on: the first of the given images, or noise."""
        transform = self._transform(contestant)
        if self.settings.images is None or transform is None:
            return make_noise(batch, contestant.shape)
        return first_batch(self.settings.images, transform, batch)

    def _transform(self, contestant: AbstractContestant) -> Transform | None:
        """How pictures become its input. A file takes the transform of a subject of the same shape, if there is one."""
        if isinstance(contestant, SubjectContestant) and contestant.subject is not None:
            return contestant.subject.preprocessing.transform
        alike = (
            one for one in self.contestants if isinstance(one, SubjectContestant) and one.shape == contestant.shape
        )
        return next((one.subject.preprocessing.transform for one in alike if one.subject is not None), None)

    def _rounds(self, ready: Sequence[ReadyContestant], gauges: Gauges) -> list[RoundResult]:
        """The times of all rounds, including those that an interrupted attempt saved."""
        settings = self.settings
        each = _GAUGES + sum(one.expected * one.turn for one in ready)
        tests = sum(one.contestant > 0 for one in ready)
        least = values_needed(rate_of(tests))
        rounds = settings.rounds or min(max(int(settings.seconds / each), least), MOST_ROUNDS)
        sizes = " and ".join(map(str, settings.batches))
        count = len({one.contestant for one in ready})
        self.plan.say(
            f"Timing, {count} {'contestant' if count == 1 else 'contestants'} at batch {sizes}, {settings.threads} "
            f"threads: {rounds} rounds, about {format_duration(rounds * each)}"
        )
        before = EACH * len(self.contestants) if settings.memory else 0
        work = RoundWork(
            tuple(ready), gauges.works, self._like.device, rounds, settings.seconds / rounds, settings.seed
        )
        folded = fold_work(work, self.spec, replace(self.plan.after(before), executor=InProcess()), self.total)
        return list(folded.values())

    def _tally(self, ready: Sequence[ReadyContestant]) -> tuple[dict[int, float], dict[tuple[int, int], PassTally]]:
        """Multiply-adds of an image by contestant, and a tally of each pass that runs operator by operator."""
        self.plan.tell("Counting operations")
        adds: dict[int, float] = {}
        tallies: dict[tuple[int, int], PassTally] = {}
        for one in ready:
            contestant = self.contestants[one.contestant]
            if (found := contestant.function) is None:
                continue
            function, like = found
            if one.contestant not in adds:
                count = contestant.fixed_batch or 1
                with suppress(NotImplementedError, RuntimeError):  # PyTorch has no formulas for quantised layers
                    adds[one.contestant] = count_multiply_adds(function, _noise_like(contestant, count, like)) / count
            if contestant.eager:
                tallies[one.contestant, one.batch] = tally(function, _noise_like(contestant, one.batch, like))
        return adds, tallies

    def _reading(self) -> dict[tuple[int, int], Sequence[float]]:
        """Seconds to read each of several batches, by the first contestant of each model."""
        images, found = self.settings.images, dict[tuple[int, int], Sequence[float]]()
        if images is None:
            return found
        self.plan.tell("Reading pictures")
        seen: set[str] = set()
        for number, contestant in enumerate(self.contestants):
            if isinstance(contestant, SubjectContestant) and contestant.model not in seen:
                seen.add(contestant.model)
                transform = self._transform(contestant)
                assert transform is not None, "a subject has one"
                found |= {(number, batch): read_times(images, transform, batch) for batch in self.settings.batches}
        return found

    def _note(self, found: BenchFigures) -> None:
        """Note what a reader must know besides the numbers."""
        images = self.settings.images
        subjects = (one.subject for one in self.contestants if isinstance(one, SubjectContestant))
        told = [f"{one.name}: {note}" for one in subjects if one is not None for note in one.notes]
        self.notes += [*dict.fromkeys(told), *(() if images is None else images.notes)]
        steadiness = {one.batch: one.p90.value / one.median.value for at, one in found.timed.items() if at[0] == 0}
        worst = max(steadiness, key=steadiness.__getitem__)
        if steadiness[worst] > _UNSTEADY:
            self.notes.append(
                f"Times vary: at batch {worst} one pass of ten takes {steadiness[worst]:.2g} times the median or more. "
                "Something else uses the machine. Ratios are taken round by round and tolerate it; single times do not."
            )
        if images is not None and any(self._transform(one) is None for one in self.contestants):
            self.notes.append("Exported files without a model of the same input beside them ran on noise.")
        adds, moved, started = np.median(found.gauges, axis=0)
        self.notes.append(
            f"In the same rounds a large matrix product ran at {adds / 1e9:.3g} billion multiply-adds a second and a "
            f"large copy at {moved / 1e9:.3g} GB a second (read and written); {started / 1e6:.2g} million small "
            "operators started a second."
        )


def _noise_like(contestant: AbstractContestant, batch: int, like: Tensor) -> Tensor:
    return make_noise(batch, contestant.shape).to(like.device, like.dtype)
