"""Where shards are folded: in this process, or in worker processes whose death costs only their shard."""

import multiprocessing
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from vitscope.engine.parcel import packed, unpacked
from vitscope.engine.work import AbstractResult, AbstractWork, Advance, Finished, Result, Shard
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
        """The shards' results; the shards of a worker that died are done again by a new one."""
        _refuse_unguarded()
        left = dict.fromkeys(shards, 0)
        with tempfile.NamedTemporaryFile(prefix="vitscope-") as parcel:  # a pipe to a worker that dies would block
            parcel.write(packed(work))
            parcel.flush()
            while left:
                with self._pool(parcel.name) as pool:
                    try:
                        futures = {pool.submit(_fold_in_worker, shard): shard for shard in left}
                        for shard, result in _completed(futures):
                            del left[shard]
                            advance(work.passes(shard) * result.done)
                            yield shard, result
                    except BrokenProcessPool:
                        left = {shard: tries + 1 for shard, tries in left.items()}
                        _refuse_deadly(left)
                    finally:
                        pool.shutdown(wait=False, cancel_futures=True)

    def _pool(self, parcel: str) -> ProcessPoolExecutor:
        threads = max(1, torch.get_num_threads() // self.count)
        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.count, spawn, initializer=_begin_worker, initargs=(parcel, threads))


def _completed(futures: dict["Future[Any]", Shard]) -> Iterator[tuple[Shard, Any]]:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            yield futures[future], future.result()


def _refuse_unguarded() -> None:
    """A worker imports the script that started it; one that starts workers as it is imported would wait for ever."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError("Worker processes import the script: put what it does under if __name__ == '__main__'.")


def _refuse_deadly(left: dict[Shard, int]) -> None:
    deadly = next((shard for shard, tries in left.items() if tries >= ATTEMPTS), None)
    if deadly is not None:
        raise UserError(
            f"Workers died {ATTEMPTS} times on the way to batches {deadly.start} to {deadly.stop}; "
            "what is finished is kept. Try fewer --workers or a smaller --batch-size, then --resume; "
            "a script of one's own needs if __name__ == '__main__'."
        )


_work: AbstractWork[AbstractResult] | None = None  # a worker process's only state: what it was started for


def _begin_worker(parcel: str, threads: int) -> None:
    global _work
    torch.set_num_threads(threads)
    _work = unpacked(Path(parcel).read_bytes())


def _fold_in_worker(shard: Shard) -> AbstractResult:
    assert _work is not None, "the pool starts every worker with its work"
    return _work.fold(shard, lambda _: None)
