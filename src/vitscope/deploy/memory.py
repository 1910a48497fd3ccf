"""Peak memory of a contestant above its weights, measured in a process of its own."""

import ctypes
import gc
import json
import statistics
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, final

import torch
from typing_extensions import override

from vitscope.deploy.backend import AbstractRunner, synchronise
from vitscope.deploy.contestant import AbstractContestant
from vitscope.engine.work.executor import AbstractExecutor, Processes
from vitscope.engine.work.work import AbstractResult, AbstractWork, Advance, Amount, Finished, Result, Shard
from vitscope.measurement.text import reason

EACH = 10
"""Seconds that a contestant's process takes, roughly; most of it goes into starting."""
_BLOCK = 1
"""The block of these shards, which separates their parts from those of rounds."""
_PASSES, _REPEATS = 2, 3


@final
@dataclass(frozen=True, eq=False)
class MemoryResult(AbstractResult):
    """The peak in bytes at each batch size, None if it was not measured, and the reason for that."""

    peaks: tuple[int | None, ...]
    why: str = ""

    @property
    @override
    def done(self) -> int:
        return 1

    @override
    def to_bytes(self) -> bytes:
        return json.dumps([self.peaks, self.why]).encode()


@final
@dataclass(frozen=True, eq=False)
class MemoryWork(AbstractWork[MemoryResult]):
    """The contestants, one per shard. Each is prepared once in its process, and then runs at every batch size."""

    contestants: Mapping[int, AbstractContestant]
    """By their numbers."""
    batches: tuple[int, ...]
    threads: int

    @override
    def shards(self) -> tuple[Shard, ...]:
        return tuple(Shard(number, number + 1, _BLOCK) for number in self.contestants)

    @override
    def passes(self, shard: Shard) -> Amount:
        return EACH

    def of(self, shard: Shard) -> "MemoryWork":
        """The work of one contestant, which is all that its process receives."""
        return replace(self, contestants={shard.start: self.contestants[shard.start]})

    @override
    def fold(self, shard: Shard, advance: Advance) -> MemoryResult:
        """The peaks of one contestant; if it cannot run, the reason."""
        contestant, threads = self.contestants[shard.start], torch.get_num_threads()
        torch.set_num_threads(self.threads)
        _use_no_semaphores()
        try:
            found = self._peaks(contestant)
        except Exception as error:
            found = MemoryResult((None,) * len(self.batches), reason(error))
        finally:
            torch.set_num_threads(threads)
        advance(EACH)
        return found

    def _peaks(self, contestant: AbstractContestant) -> MemoryResult:
        if why := why_unmeasured(contestant.device):
            return MemoryResult((None,) * len(self.batches), why)
        fixed = contestant.fixed_batch
        batches = [one for one in self.batches if fixed in (None, one)]
        runner = contestant.prepare(batches, self.threads)
        peaks = {batch: measure_peak(runner, torch.zeros(batch, *contestant.shape)) for batch in batches}
        return MemoryResult(tuple(peaks.get(batch) for batch in self.batches))

    @override
    def read(self, content: bytes) -> MemoryResult:
        peaks, why = json.loads(content)
        return MemoryResult(tuple(peaks), str(why))

    @override
    def fits(self, shard: Shard, result: MemoryResult) -> bool:
        return len(result.peaks) == len(self.batches) and not result.why  # what failed is tried again


@final
@dataclass(frozen=True)
class Apart(AbstractExecutor):
    """Every shard in a worker process of its own, one after the other."""

    @override
    def fold(self, work: AbstractWork[Result], shards: Iterable[Shard], advance: Advance) -> Finished[Result]:
        for shard in shards:
            alone = cast("AbstractWork[Result]", work.of(shard)) if isinstance(work, MemoryWork) else work
            yield from Processes(1).fold(alone, [shard], advance)


def _use_no_semaphores() -> None:
    """Give tqdm, which compilers use, a lock of threads: its own would outlive a worker, which is ended by a signal."""
    with suppress(ImportError):
        from tqdm import tqdm  # pyright: ignore[reportMissingModuleSource]

        tqdm.set_lock(threading.RLock())


def why_unmeasured(device: torch.device) -> str:
    """The reason why the peak cannot be measured on this device; empty if it can."""
    if device.type == "cuda" or (device.type == "cpu" and sys.platform == "linux" and _forget_peak()):
        return ""
    return f"peak memory is measured on CUDA devices and of processes on Linux, not of {device.type} on {sys.platform}"


def measure_peak(runner: AbstractRunner, images: torch.Tensor) -> int:
    """The peak memory in bytes of passes over these images, above what the process holds before them.

    It is resident memory on a CPU, and memory allocated by PyTorch on a GPU. Weights, libraries, images and anything
    created once by the first pass are held before. Call it only in a process that does nothing else.
    """
    placed = runner.place(images)
    runner.run(placed)
    synchronise(runner.device)
    if runner.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(runner.device)
        held = torch.cuda.memory_allocated(runner.device)
        _pass_over(runner, placed)
        return torch.cuda.max_memory_allocated(runner.device) - held
    return statistics.median_low(_peak_of_process(runner, placed) for _ in range(_REPEATS))


def _peak_of_process(runner: AbstractRunner, placed: object) -> int:
    """The peak of resident memory during two passes, less what is resident before them."""
    runner.release()
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that the process keeps would hide what a pass needs
    _forget_peak()
    held = _read("VmRSS")
    _pass_over(runner, placed)
    return max(_read("VmHWM") - held, 0)


def _pass_over(runner: AbstractRunner, placed: object) -> None:
    for _ in range(_PASSES):
        runner.run(placed)
    synchronise(runner.device)


def _forget_peak() -> bool:
    """Reset the kernel's peak of resident memory; False if this is not allowed."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _read(name: str) -> int:
    """One of the kernel's memory figures of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024
