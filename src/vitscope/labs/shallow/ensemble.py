"""Ensembles: many trials trained as one batched computation, each with its own randomness, settings and end."""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from vitscope.labs.shallow.batch_trainer import BatchTrainer
from vitscope.labs.shallow.trial import ShallowTrial, TrialOutcome

Finished = Callable[[int, TrialOutcome], None]
"""Called with the place of a trial and its outcome when it ends, from any thread."""

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Budget:
    """The resources that an ensemble may use.

    ``memory`` bounds the images of all trials in progress, in bytes. ``cache`` bounds the intermediate results of a
    step, for each thread; on a CPU steps are fastest if those stay in its cache. Neither changes any result by more
    than rounding. At least one trial is always in progress.
    """

    memory: int = 1024 * MEBIBYTE
    cache: int = 8 * MEBIBYTE
    threads: int = 1
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    def slots(self, trials: Sequence[ShallowTrial]) -> int:
        """How many of these trials, all of one form, a thread trains at once."""
        first = trials[0]
        size = torch.finfo(self.dtype).bits // 8
        images = max(trial.samples for trial in trials) + first.tests
        scratch = first.batch * first.model.mixing.scratch(first.data.places, first.dim, first.model.neurons)
        held = images * (first.data.places * (first.dim + 2) + first.model.neurons)
        room = min(self.cache // (size * scratch), self.memory // (size * held * self.threads))
        return max(1, min(room, -(-len(trials) // self.threads)))


def train(
    trials: Sequence[ShallowTrial], budget: Budget | None = None, finished: Finished | None = None
) -> tuple[TrialOutcome, ...]:
    """The outcomes of the trials, in their order.

    Trials that differ in seed, rate, samples, distribution, initial errors, rule of keeping or end are trained
    together; those of other shapes, attention or batch size one group after the other. A trial that has ended leaves
    its place to the next one. An outcome is the same, to rounding, whatever the budget and the other trials. With
    several ``threads`` each trains its own trials, and torch's own threads are set to one meanwhile.
    """
    budget = Budget() if budget is None else budget
    groups: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for place, trial in enumerate(trials):
        groups[trial.form].append(place)
    outcomes: dict[int, TrialOutcome] = {}

    def keep(place: int, outcome: TrialOutcome) -> None:
        outcomes[place] = outcome
        if finished is not None:
            finished(place, outcome)

    with torch.no_grad():
        for places in groups.values():
            _train_group([(place, trials[place]) for place in places], budget, keep)
    return tuple(outcomes[place] for place in range(len(trials)))


def _train_group(group: Sequence[tuple[int, ShallowTrial]], budget: Budget, finished: Finished) -> None:
    trials = [trial for _, trial in group]
    slots, samples = budget.slots(trials), max(trial.samples for trial in trials)
    waiting = deque(group)

    def work() -> None:
        with torch.no_grad():
            BatchTrainer(slots, samples, budget.dtype, torch.device(budget.device)).train(waiting, finished)

    if budget.threads == 1:
        return work()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(budget.threads) as pool:
            for future in [pool.submit(work) for _ in range(budget.threads)]:
                future.result()
    finally:
        torch.set_num_threads(before)
