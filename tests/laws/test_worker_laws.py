"""The laws of worker processes: a death costs one shard, and neither they nor their errors outlive who asked."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitscope.engine.work import crew
from vitscope.engine.work.executor import ATTEMPTS, InProcess, Processes
from vitscope.engine.work.work import AbstractResult, AbstractWork, Advance, Shard
from vitscope.measurement.errors import UserError

DEATHS: Counter[int] = Counter()
"""How often a shard may still kill who folds it, in the tests that have threads for processes."""


@dataclass(frozen=True)
class Number(AbstractResult):
    value: int

    @property
    def done(self) -> int:
        return 1

    def to_bytes(self) -> bytes:
        return str(self.value).encode()


@dataclass(frozen=True)
class Squares(AbstractWork[Number]):
    """Squares of numbers; one of them may be wrong."""

    count: int
    wrong: int = -1

    def shards(self) -> tuple[Shard, ...]:
        return tuple(Shard(number, number + 1) for number in range(self.count))

    def fold(self, shard: Shard, advance: Advance) -> Number:
        if shard.start == self.wrong:
            raise UserError("The picture is none; leave it out.")
        if DEATHS[shard.start]:
            DEATHS[shard.start] -= 1
            raise SystemExit  # no Exception: it ends the worker, and nobody says why
        advance(1)
        return Number(shard.start**2)

    def read(self, content: bytes) -> Number:
        return Number(int(content))


class Stand(BaseProcess):
    """A thread that a worker's line is served by, with the face of a process."""

    def __init__(self, thread: threading.Thread) -> None:
        self.thread = thread

    def terminate(self) -> None:
        pass

    kill = close = terminate

    def __repr__(self) -> str:
        return "Stand()"

    def join(self, timeout: float | None = None) -> None:
        self.thread.join(timeout)

    def is_alive(self) -> bool:
        return self.thread.is_alive()


@dataclass
class Hiring:
    """Hires threads; the first ``stillborn`` of them end as they begin."""

    stillborn: int = 0
    hired: list[Stand] = field(default_factory=list)

    def __call__(self, threads: int) -> crew.Worker:
        ours, theirs = multiprocessing.Pipe()
        born = len(self.hired) >= self.stillborn

        def serve() -> None:
            try:
                if born:
                    crew._serve(theirs, threads)
            except SystemExit:
                pass
            finally:
                theirs.close()

        stand = Stand(threading.Thread(target=serve, daemon=True))
        self.hired.append(stand)
        stand.thread.start()
        return crew.Worker(stand, ours)


@pytest.fixture
def hiring(monkeypatch):
    found = Hiring()
    monkeypatch.setattr(crew.Worker, "hire", found)
    DEATHS.clear()
    return found


def answers(work, executor) -> dict[int, int]:
    return {shard.start: result.value for shard, result in executor.fold(work, work.shards(), lambda _: None)}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, ATTEMPTS), min_size=1, max_size=8), st.integers(1, 4))
def test_deaths_anywhere_end_nothing_and_only_a_shard_that_always_kills_is_named(deaths, count):
    """Whatever dies, every other shard is done, each told of once; the blamed one killed so many by itself."""
    with pytest.MonkeyPatch.context() as patch:
        hiring = Hiring()
        patch.setattr(crew.Worker, "hire", hiring)
        DEATHS.clear()
        DEATHS.update(dict(enumerate(deaths)))
        work, told, found = Squares(len(deaths)), [], {}
        folded = Processes(count).fold(work, work.shards(), told.append)
        if max(deaths) < ATTEMPTS:
            found = {shard.start: result.value for shard, result in folded}
            assert found == {number: number**2 for number in range(len(deaths))}
            assert sum(told) == len(deaths)
        else:
            with pytest.raises(UserError, match=rf"Workers died {ATTEMPTS} times at batches") as error:
                list(folded)
            assert deaths[int(str(error.value).split(" at batches ")[1].split()[0])] == ATTEMPTS
        assert len(hiring.hired) <= sum(deaths) + count
        assert not any(stand.is_alive() for stand in hiring.hired)


def test_workers_that_end_as_they_begin_are_told_apart(hiring):
    hiring.stillborn = ATTEMPTS - 1
    assert answers(Squares(2), Processes(1)) == {0: 0, 1: 1}
    hiring.stillborn = 99
    with pytest.raises(UserError, match=rf"{ATTEMPTS} worker processes in a row ended as they started"):
        answers(Squares(2), Processes(1))


def test_an_error_in_a_worker_arrives_as_the_same_sentence(hiring):
    said = []
    for executor in (InProcess(), Processes(2)):
        with pytest.raises(UserError) as error:
            answers(Squares(3, wrong=1), executor)
        said.append(str(error.value))
    assert said == ["The picture is none; leave it out."] * 2


def test_whoever_stops_asking_leaves_no_worker(hiring):
    folded = Processes(2).fold(Squares(20), Squares(20).shards(), lambda _: None)
    next(folded)
    folded.close()
    assert hiring.hired
    assert not any(stand.is_alive() for stand in hiring.hired)


SCRIPT = """
import os, resource, signal, sys, time
from dataclasses import dataclass
from vitscope.engine.work.executor import Processes
from vitscope.engine.reading.shard import ShardResult
from vitscope.engine.reading.scores import Scores
from vitscope.engine.work.work import AbstractWork, Shard
import torch

@dataclass(frozen=True)
class Many(AbstractWork):
    mark: str

    def shards(self):
        return tuple(Shard(number, number + 1) for number in range(201))

    def fold(self, shard, advance):
        if shard.start == 3 and not os.path.exists(self.mark):
            open(self.mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            raise RuntimeError("control-C, which a terminal sends to all, would end this worker by a traceback")
        while shard.start == 200:
            time.sleep(1)
        numbers = [torch.rand(4).double() for _ in range(2)]
        whole = [torch.arange(4) for _ in range(3)] + numbers + [torch.arange(4)]
        return ShardResult(4, (), (), Scores(*whole))

    def read(self, content):
        return ShardResult.from_bytes(content)

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    work = Many(sys.argv[1])
    found = []
    for shard, result in Processes(1).fold(work, work.shards(), lambda _: None):
        found.append(result)
        if len(found) == 200:
            print(sum(result.images for result in found), flush=True)
"""


def test_a_killed_parent_leaves_nothing_a_killed_worker_costs_its_shard_and_handles_do_not_grow(tmp_path):
    """800 images' scores come under a limit of 64 open files, beside a death; then the parent itself is killed."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    before = set(os.listdir(tempfile.gettempdir()))
    command = [sys.executable, str(script), str(tmp_path / "mark")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "800\n"
    assert (tmp_path / "mark").exists()
    workers = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
    assert workers
    parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/fd").exists() and _runs(pid) for pid in workers):
        assert time.monotonic() < until, "a worker has outlived its parent"
        time.sleep(0.1)
    assert parent.communicate()[1] == ""
    assert {name for name in set(os.listdir(tempfile.gettempdir())) - before if name.startswith("vitscope")} == set()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
