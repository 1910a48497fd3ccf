"""The trials that one thread trains at once: they step and are evaluated together, and enter and leave one by one."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from vitscope.labs.shallow.attention import AttentionProfile, attention_received, profile
from vitscope.labs.shallow.pool import Pool
from vitscope.labs.shallow.shallow_vit import mean_error, mean_hinge
from vitscope.labs.shallow.token_model import TokenSample
from vitscope.labs.shallow.trial import BATCHES, DATA, INITIAL, KEEP, TESTS, ShallowTrial, TrialOutcome
from vitscope.labs.shallow.weights import Weights, stack_trials


@final
@dataclass(frozen=True, eq=False)
class _Running:
    """A trial in progress: its place among the trials, its slot in the pools, images, generator and values so far."""

    place: int
    trial: ShallowTrial
    slot: int
    images: TokenSample
    tests: TokenSample
    chance: torch.Generator
    hinge: list[float] = field(default_factory=list[float])
    error: list[float] = field(default_factory=list[float])
    profiles: list[AttentionProfile] = field(default_factory=list[AttentionProfile])

    def draws(self, images: int) -> Int64[Tensor, "steps batch"]:
        """Rows of the pool for the steps up to the next evaluation."""
        shape = (self.trial.criterion.every, self.trial.batch)
        return self.slot * images + torch.randint(0, self.trial.samples, shape, generator=self.chance)


@final
class BatchTrainer:
    """Trains trials of one form in slots, with up to ``samples`` images each."""

    def __init__(self, slots: int, samples: int, dtype: torch.dtype, device: torch.device) -> None:
        self._free = list(range(slots))
        self._slots, self._samples, self._dtype, self._device = slots, samples, dtype, device
        self._pools: tuple[Pool, Pool] | None = None
        self._running: list[_Running] = []
        self._kept: dict[int, Bool[Tensor, "images tokens"]] = {}  # of the test images, by slot
        self._weights: Weights | None = None
        _keep_freed_memory()

    def train(self, waiting: deque[tuple[int, ShallowTrial]], finished: Callable[[int, TrialOutcome], None]) -> None:
        """Train until no trial is waiting or in progress."""
        while True:
            entered = self._enter(waiting)
            if self._weights is None or not self._running:
                return
            self._choose_tokens(entered)
            self._evaluate()
            self._leave(finished)
            if self._running:
                self._advance()

    def _enter(self, waiting: deque[tuple[int, ShallowTrial]]) -> set[int]:
        """Fill the free slots, and return those that were filled."""
        entering: list[_Running] = []
        weights = [] if self._weights is None else [self._weights]
        while self._free and (following := _next(waiting)) is not None:
            place, trial = following
            tests = trial.data if trial.test_data is None else trial.test_data
            initial = trial.model.initial(trial.data.places, trial.data.vectors, trial.generator(INITIAL))
            entering.append(
                _Running(
                    place,
                    trial,
                    self._free.pop(),
                    trial.data.draw(trial.samples, trial.generator(DATA)),
                    tests.draw(trial.tests, trial.generator(TESTS)),
                    trial.generator(BATCHES),
                )
            )
            weights.append(initial.to(self._dtype, self._device))
        if entering:
            self._running += entering
            self._weights = stack_trials(weights)
        return {one.slot for one in entering}

    def _choose_tokens(self, entered: set[int]) -> None:
        """Write to the pools the images of trials that entered, and of those whose kept tokens depend on attention."""
        for number, running in enumerate(self._running):
            if running.slot in entered or running.trial.keep.attends:
                self._put(running, self._of(number))

    def _put(self, running: _Running, weights: Weights) -> None:
        trial, chance = running.trial, running.trial.generator(KEEP)
        for which, sample in enumerate((running.images, running.tests)):
            tokens = sample.tokens.to(self._device, self._dtype).unsqueeze(0)
            attended = attention_received(trial.model, weights, tokens)[0].cpu() if trial.keep.attends else None
            kept = trial.keep.keep_mask(sample, attended, chance)
            seen = trial.model.mixing.prepare(tokens, kept.to(self._device).unsqueeze(0), weights.top)
            if self._pools is None:
                self._pools = Pool(self._slots, self._samples, seen), Pool(self._slots, trial.tests, seen)
            labels = sample.labels.to(self._device, self._dtype)
            self._pools[which].put(running.slot, seen, labels.unsqueeze(0))
            self._kept[running.slot] = kept

    def _evaluate(self) -> None:
        assert self._weights is not None, "there are trials"
        assert self._pools is not None, "their images were put in place"
        tests = self._pools[1]
        trial = self._running[0].trial
        first = torch.tensor([one.slot * trial.tests for one in self._running], device=self._device).unsqueeze(1)
        outputs, labels = [], []
        for start in range(0, trial.tests, 2 * trial.batch):
            stop = min(start + 2 * trial.batch, trial.tests)
            seen, wanted = tests.take(first + torch.arange(start, stop, device=self._device))
            outputs.append(trial.model.mixing.outputs(self._weights, seen))
            labels.append(wanted)
        found, right = torch.cat(outputs, 1), torch.cat(labels, 1)
        values = zip(mean_hinge(found, right).tolist(), mean_error(found, right).tolist(), strict=True)
        for number, (running, (hinge, error)) in enumerate(zip(self._running, values, strict=True)):
            running.hinge.append(hinge)
            running.error.append(error)
            if running.trial.watched:
                running.profiles.append(self._profile(running, self._of(number)))

    def _profile(self, running: _Running, weights: Weights) -> AttentionProfile:
        few = running.trial.watched
        tokens = running.tests.tokens[:few].to(self._device, self._dtype)
        roles, kept = running.tests.roles[:few].to(self._device), self._kept[running.slot][:few].to(self._device)
        return profile(running.trial.model, weights, *(part.unsqueeze(0) for part in (tokens, roles, kept)))

    def _leave(self, finished: Callable[[int, TrialOutcome], None]) -> None:
        """Hand over the trials that have ended, and remove them."""
        staying: list[int] = []
        for number, running in enumerate(self._running):
            if not running.trial.criterion.stops(running.hinge, running.error):
                staying.append(number)
                continue
            values = tuple(running.hinge), tuple(running.error), tuple(running.profiles)
            finished(running.place, TrialOutcome(running.trial, *values, self._of(number)))
            self._free.append(running.slot)
        if self._weights is not None and len(staying) < len(self._running):
            self._weights = self._weights.select(torch.tensor(staying, dtype=torch.int64, device=self._device))
            self._running = [self._running[number] for number in staying]

    def _advance(self) -> None:
        """Take the steps up to the next evaluation, all trials together."""
        assert self._weights is not None, "there are trials"
        assert self._pools is not None, "their images were put in place"
        images, weights = self._pools[0], self._weights
        mixing = self._running[0].trial.model.mixing
        rows = torch.stack([one.draws(self._samples) for one in self._running], 1).to(self._device)
        rates = weights.top.new_tensor([one.trial.rate for one in self._running])[:, None, None]
        for chosen in rows:
            for part, slope in zip(weights.trained, mixing.gradient(weights, *images.take(chosen)), strict=True):
                part.sub_(slope.mul_(rates))

    def _of(self, number: int) -> Weights:
        """A copy of one trial's weights."""
        assert self._weights is not None, "there are trials"
        return self._weights.select(torch.tensor([number], device=self._device))


def _next(waiting: deque[tuple[int, ShallowTrial]]) -> tuple[int, ShallowTrial] | None:
    """The next trial of the queue, which threads share; None if it is empty."""
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _keep_freed_memory() -> None:
    """Make glibc's malloc keep what a step frees for the next one.

    It sets its thresholds by the largest block of up to 32 MiB that was freed; without this, every step requests fresh
    pages from the system, which costs as much as the arithmetic. The block is not touched, so it takes no memory.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
