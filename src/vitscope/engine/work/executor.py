"""Where shards are folded: in this process, or in worker processes whose death costs only their shard."""

import multiprocessing
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import final

import torch

from vitscope.engine.work.crew import Died, Worker, first_of
from vitscope.engine.work.parcel import pack
from vitscope.engine.work.work import AbstractWork, Advance, Finished, Result, Shard
from vitscope.measurement.errors import UserError

ATTEMPTS = 3
"""How often a shard is tried before it is blamed for its workers' deaths."""


class AbstractExecutor(ABC):
    """Folds shards somewhere; yields each as it is done, in any order."""

    @abstractmethod
    def fold(self, work: AbstractWork[Result], shards: Iterable[Shard], advance: Advance) -> Finished[Result]:
        """The shards' results, started in order; ``advance`` is called with the work done."""


@final
@dataclass(frozen=True)
class InProcess(AbstractExecutor):
    """One shard after the other, in this process."""

    def fold(self, work: AbstractWork[Result], shards: Iterable[Shard], advance: Advance) -> Finished[Result]:
        """The shards' results, in order."""
        for shard in shards:
            yield shard, work.fold(shard, advance)


@final
@dataclass(frozen=True)
class Processes(AbstractExecutor):
    """``count`` worker processes on this machine, which share its cores."""

    count: int

    def fold(self, work: AbstractWork[Result], shards: Iterable[Shard], advance: Advance) -> Finished[Result]:
        """The shards' results; if a worker dies, a new one repeats its shard.

        Workers end with this process, however it ends, and leave nothing behind. Raises whatever folding a shard
        raised, and ``UserError`` if workers die repeatedly on the same shard, or as they start.
        """
        _refuse_unguarded()
        waiting = deque(shards)
        if not waiting:
            return
        parcel, threads = pack(work), max(1, torch.get_num_threads() // self.count)
        tries, stillborn = Counter[Shard](), 0
        workers: dict[Connection, Worker] = {}
        try:
            while waiting or any(worker.shard for worker in workers.values()):
                for worker in workers.values():
                    if worker.idle and waiting:
                        worker.give(waiting.popleft())
                begin = sum(not worker.begun for worker in workers.values())
                if begin < len(waiting) and len(workers) < self.count:
                    hired = Worker.hire(threads)
                    workers[hired.line] = hired
                    continue
                worker = first_of(workers)
                shard = worker.shard
                try:
                    content = worker.answer()
                except Died:
                    del workers[worker.line]
                    worker.dismiss()
                    stillborn = stillborn + 1 if shard is None else 0
                    if shard is not None:
                        tries[shard] += 1
                        waiting.appendleft(shard)
                    _refuse_deadly(shard, tries[shard] if shard else stillborn)
                    continue
                if content is None or shard is None:
                    worker.begin(parcel)
                else:
                    result = work.read(content)
                    advance(work.passes(shard) * result.done)
                    yield shard, result
        finally:
            for worker in workers.values():
                worker.dismiss()


def _refuse_unguarded() -> None:
    """Raise ``UserError`` in a worker whose imported script starts workers itself: it would wait for ever."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError("Worker processes import the script: put its code under if __name__ == '__main__'.")


def _refuse_deadly(shard: Shard | None, deaths: int) -> None:
    if deaths < ATTEMPTS:
        return
    if shard is None:
        raise UserError(
            f"{deaths} worker processes in a row ended as they started; finished work is saved. Try fewer --workers, "
            "with --resume; a script of your own needs if __name__ == '__main__'."
        )
    raise UserError(
        f"Workers died {deaths} times at batches {shard.start} to {shard.stop}; finished work is saved. Try fewer "
        "--workers or a smaller --batch-size, with --resume."
    )
