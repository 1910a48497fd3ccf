"""A folder is worked in by one at a time: whoever comes second is told, and nothing of the first is lost or mixed."""

import multiprocessing
import os
import re
import signal
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

from vitscope.measurement.errors import UserError
from vitscope.runs.hold import LOCK, hold_folder
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec
from vitscope.runs.store import RunFolder, find_runs, read_run
from vitscope.runs.whole import atomic_file, local_path, sweep, write_whole

RACES = 50
FORK = multiprocessing.get_context("fork")


def question(number: int) -> Spec:
    return Spec("measure", {"name": f"model {number}"}, {"name": "cats", "count": 4}, {})


def answer(number: int) -> Run:
    root = xr.Dataset(attrs={"spec": question(number).text, "provenance": "{}", "images": 4})
    return Run(xr.DataTree.from_dict({"/": root, "numbers": xr.Dataset({"one": ("n", np.full(64, number))})}))


def command(folder: str, number: int, start, said) -> None:
    """What a command does: it keeps pieces, then its run with a file that belongs to it, and removes the pieces."""
    place = RunFolder(folder)
    start.wait()
    try:
        with place.hold():
            for piece in range(3):
                place.write_part(question(number), f"piece-{piece}", bytes([number]) * 100)
            assert set(place.parts(question(number))) == {"piece-0", "piece-1", "piece-2"}
            place.write(answer(number), beside={"head": bytes([number]) * 1000})
        said.put((number, "done"))
    except UserError as error:
        said.put((number, str(error)))


def test_of_two_processes_one_takes_the_folder_and_the_other_is_told(tmp_path):
    """Fifty races of two that ask different questions, begun at the same moment."""
    told = []
    for race in range(RACES):
        folder, start, said = tmp_path / f"{race}", FORK.Barrier(2), FORK.SimpleQueue()
        racers = [FORK.Process(target=command, args=(str(folder), number, start, said)) for number in (1, 2)]
        for racer in racers:
            racer.start()
        answers = dict(said.get() for _ in racers)
        for racer in racers:
            racer.join()
        (winner,) = (number for number, text in answers.items() if text == "done")
        told.append(answers[3 - winner])
        assert sorted(path.name for path in folder.iterdir()) == ["head", "run.nc"]
        assert read_run(folder).spec == question(winner)
        assert (folder / "head").read_bytes() == bytes([winner]) * 1000
    assert all("is in use by another vitscope (process " in text or "already holds a run" in text for text in told)


def test_of_two_threads_one_takes_the_folder(tmp_path):
    with hold_folder(tmp_path), hold_folder(tmp_path), ThreadPoolExecutor(1) as pool:
        second = pool.submit(lambda: hold_folder(tmp_path).__enter__())
        with pytest.raises(UserError, match="in use by another vitscope"):
            second.result()
    assert list(tmp_path.iterdir()) == []
    with hold_folder(tmp_path):
        assert (tmp_path / LOCK).exists()


def test_a_killed_process_holds_nothing_and_its_unfinished_files_are_removed(tmp_path):
    folder = tmp_path / "run"

    def half(ready) -> None:
        place = RunFolder(str(folder))
        with place.hold(), atomic_file(folder / "run.nc") as one:
            one.write(b"half")
            place.write_part(question(1), "piece", b"whole")
            with atomic_file(folder / "partial" / question(1).address / "other") as other:
                other.write(b"half")
                ready.set()
                time.sleep(60)

    ready = FORK.Event()
    process = FORK.Process(target=half, args=(ready,))
    process.start()
    assert ready.wait(30)
    with pytest.raises(UserError, match=rf"is in use by another vitscope \(process {process.pid}\); wait"):
        hold_folder(folder).__enter__()
    sweep(folder)
    assert len(list(folder.glob(".run.nc.*.part"))) == 1, "what a living process writes is left alone"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    place = RunFolder(str(folder))
    with place.hold():
        assert [path.name for path in folder.rglob("*.part")] == []
        assert place.parts(question(1)) == {"piece": b"whole"}
        place.write(answer(1))
    assert [path.name for path in folder.iterdir()] == ["run.nc"]


def test_unfinished_files_of_others_are_theirs_and_new_files_have_the_permissions_that_new_files_have(tmp_path):
    (tmp_path / ".thesis.docx.part").write_text("mine")
    with hold_folder(tmp_path):
        write_whole(tmp_path / "run.nc", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".thesis.docx.part", "run.nc"]
    before = os.umask(0o077)
    try:
        write_whole(tmp_path / "private", b"whole")
        os.umask(0o002)
        write_whole(tmp_path / "shared", b"whole")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("private", "shared")] == [0o600, 0o664]


def test_a_forked_child_keeps_no_lock(tmp_path):
    """A data loader's workers are forked, and may outlive the process that holds the folder."""
    ours, theirs = FORK.Pipe()

    def hold() -> None:
        with hold_folder(tmp_path):
            child = os.fork()
            if child:
                theirs.send(child)
            time.sleep(60)

    process = FORK.Process(target=hold)
    process.start()
    child = ours.recv()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with hold_folder(tmp_path):
        os.kill(child, 0)  # it is alive
    os.kill(child, signal.SIGKILL)


def test_the_pieces_of_another_question_are_nobody_elses_to_remove(tmp_path):
    place = RunFolder(str(tmp_path))
    place.write_part(question(1), "piece", b"first")
    place.write_part(question(2), "piece", b"second")
    place.write_part(question(3), "piece", b"third")
    place.write(answer(2), steps=[question(3)])
    assert place.parts(question(1)) == {"piece": b"first"}
    assert place.parts(question(2)) == place.parts(question(3)) == {}
    assert (tmp_path / "partial" / question(1).address / "piece").exists()


def test_what_lies_beside_a_run_and_is_another_ones_is_refused(tmp_path):
    place = RunFolder(str(tmp_path))
    place.write(answer(1), beside={"head": b"its own"})
    assert place.read() is not None
    (tmp_path / "head").write_bytes(b"another")
    with pytest.raises(UserError, match=r"head does not belong to .*run\.nc beside it"):
        place.read()
    (tmp_path / "head").unlink()
    assert place.read() is not None, "a run by itself is whole"


def test_at_a_url_the_second_is_refused_and_the_first_stays():
    place = RunFolder("memory://held/one")
    with place.hold():
        place.write(answer(1))
    with pytest.raises(UserError, match="already holds a run"):
        place.write(answer(2))
    found = place.read()
    assert found is not None
    assert found.spec == question(1)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("foo://bucket/run", r"foo://bucket/run cannot be opened \(Protocol not known: foo\)"),
        ("a\0b", r"a\\x00b cannot hold a run"),
        ("{file}", "is a file, not a folder; give another --out"),
    ],
)
def test_places_that_are_none_are_refused_in_a_sentence(tmp_path: Path, url: str, said: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=said):
        RunFolder(url.format(file=tmp_path / "file")).hold().__enter__()


def test_a_protocol_that_is_not_installed_is_named(monkeypatch):
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UserError, match=r"s3://bucket/run cannot be opened \(Install s3fs to access S3\)"):
        RunFolder("s3://bucket/run").read()


@pytest.mark.parametrize(
    "url",
    [
        "github://a/b",
        "reference://a",
        "data://a",
        "zip://a",
        "https://127.0.0.1:1/a",
        "dask://a",
        "ftp://127.0.0.1:1/a",
    ],
)
def test_a_url_that_cannot_be_written_is_refused_before_anything_is_measured(url):
    with pytest.raises(UserError, match=re.escape(url)):
        RunFolder(url).hold().__enter__()
    with pytest.raises(UserError, match=re.escape(url)):
        RunFolder(url).write(answer(1))
    if not url.startswith("https"):  # whose listing of nothing is no failure
        with pytest.raises(UserError, match=re.escape(url)):
            list(find_runs(url))
    with pytest.raises(UserError, match=re.escape(url)):
        read_run(url)


def test_a_url_that_can_be_written_is_as_it_was():
    with RunFolder("memory://tried").hold():
        assert fsspec.filesystem("memory").find("/tried") == []


def test_ones_own_folder_goes_by_its_short_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunFolder("~/run").write(answer(1)) == str(tmp_path / "run" / "run.nc")
    assert read_run("~/run").spec == question(1)
    assert local_path("~/page.html") == tmp_path / "page.html"
    with pytest.raises(UserError, match="A page is written on this machine, but s3://a/b is a URL; give a path"):
        local_path("s3://a/b", "A page is")


def test_names_that_are_no_utf8_are_kept_as_escapes(tmp_path):
    run = answer(1)
    run.tree["numbers"] = xr.Dataset({"one": ("n", [1.0])}, {"picture": ("n", ["caf\udce9.png"])})
    RunFolder(str(tmp_path)).write(run)
    assert read_run(tmp_path).tree["numbers"]["picture"].values.tolist() == [r"caf\udce9.png"]
    assert read_run(tmp_path).tree["numbers"]["one"].values.tolist() == [1.0]


def test_a_full_disk_keeps_what_was_there_and_names_the_file(tmp_path, monkeypatch):
    place = RunFolder(str(tmp_path))
    place.write_part(question(1), "piece", b"whole")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        place.write(answer(1), beside={"head": b"head"})
    assert error.value.filename == str(tmp_path / "head")
    assert place.parts(question(1)) == {"piece": b"whole"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["partial"]
