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
"""How often a shard is tried before its workers' deaths are taken to be its own fault."""


class AbstractExecutor(ABC):
    """Folds shards somewhere; yields each as it is done, in any order."""

    @abstractmethod
    def fold(self, work: AbstractWork[Result], shards: Iterable[Shard], advance: Advance) -> Finished[Result]:
        """The shards' results, begun in their order; ``advance`` is told of what is done."""


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
    """``count`` worker processes on this machine, its cores shared out among them."""

    count: int

    def fold(self, work: AbstractWork[Result], shards: Iterable[Shard], advance: Advance) -> Finished[Result]:
        """The shards' results; the shard of a worker that died is done again by a new one.

        Workers end with this process, however it ends, and leave nothing behind. Raises what was raised while a shard
        was folded, and ``UserError`` if workers die of the same shard again and again, or as they begin.
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
    """A worker imports the script that started it; one that starts workers as it is imported would wait for ever."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError("Worker processes import the script: put what it does under if __name__ == '__main__'.")


def _refuse_deadly(shard: Shard | None, deaths: int) -> None:
    if deaths < ATTEMPTS:
        return
    if shard is None:
        raise UserError(
            f"{deaths} worker processes one after the other ended as they began; what is finished is kept. Try fewer "
            "--workers, then --resume; a script of one's own needs if __name__ == '__main__'."
        )
    raise UserError(
        f"Workers died {deaths} times at batches {shard.start} to {shard.stop}; what is finished is kept. Try fewer "
        "--workers or a smaller --batch-size, then --resume."
    )
