"""Worker processes on this machine that fold shards, one at a time; the death of one costs only its shard."""

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import final

import torch

from vitscope.engine.work.parcel import pack_error, unpack, unpack_error
from vitscope.engine.work.work import Shard

CONTEXT: SpawnContext | ForkServerContext = multiprocessing.get_context("spawn")
"""Workers start afresh: a fork of this process would inherit the locks that its threads happen to hold."""

_PATIENCE = 5.0
"""Seconds that a terminated worker has to end before it is killed."""


class Died(Exception):
    """A worker's process has ended."""


@final
@dataclass(eq=False)
class Worker:
    """A worker process and its current shard; None before it is ready and between two shards."""

    process: BaseProcess
    line: Connection
    begun: bool = False
    shard: Shard | None = None

    @property
    def idle(self) -> bool:
        """Whether it has its work but no shard."""
        return self.begun and self.shard is None

    @classmethod
    def hire(cls, threads: int) -> "Worker":
        """Start a worker, which imports what it needs and then reports that it is ready."""
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_serve, args=(theirs, threads), daemon=True)
        with _deaf_to_interrupts():
            process.start()
        theirs.close()  # so that its death closes the pipe
        return cls(process, ours)

    def begin(self, parcel: bytes) -> None:
        """Send it the work, once it is ready to read it: a pipe to a process that has not started would block."""
        self.begun = True
        self._send(parcel)

    def give(self, shard: Shard) -> None:
        """Let it fold a shard."""
        self.shard = shard
        self._send(json.dumps(asdict(shard)).encode())

    def answer(self) -> bytes | None:
        """The bytes of the finished shard's result; None if the worker reports that it is ready.

        Raises :class:`Died` if the process has ended, and whatever folding the shard raised.
        """
        try:
            kind, content = self.line.recv_bytes(1), self.line.recv_bytes()
        except (EOFError, OSError) as error:
            raise Died from error
        if kind == _FAILED:
            raise unpack_error(content)
        if kind == _READY:
            return None
        self.shard = None
        return content

    def dismiss(self) -> None:
        """End it, whatever it is doing."""
        self.line.close()
        self.process.terminate()
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()

    def _send(self, content: bytes) -> None:
        with suppress(OSError):  # it is dead, and its pipe will report so
            self.line.send_bytes(content)


def first_of(workers: Mapping[Connection, Worker]) -> Worker:
    """The first worker that has answered or died."""
    return workers[wait(list(workers))[0]]  # pyright: ignore[reportArgumentType] - a Connection, as was given


_READY, _DONE, _FAILED = b"r", b"d", b"f"


def _serve(line: Connection, threads: int) -> None:
    """Fold shards until the pipe closes. Results travel as bytes: tensors would take a file handle each."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with suppress(EOFError, OSError):  # the parent is gone
        _say(line, _READY, b"")
        work = unpack(line.recv_bytes())
        while True:
            shard = Shard(**json.loads(line.recv_bytes()))
            try:
                kind, content = _DONE, work.fold(shard, lambda _: None).to_bytes()
            except MemoryError:
                os._exit(1)  # frees its memory, and the shard is tried again
            except Exception as error:
                kind, content = _FAILED, pack_error(error)
            _say(line, kind, content)


def _say(line: Connection, kind: bytes, content: bytes) -> None:
    line.send_bytes(kind)
    line.send_bytes(content)


def _end_with_parent() -> None:
    """End this worker, whatever it is doing, when its parent is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _deaf_to_interrupts() -> Generator[None]:
    """Processes started in the block never see Ctrl-C, which a terminal sends to all: their parent ends them."""
    resource_tracker.ensure_running()  # starting it in the block would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
