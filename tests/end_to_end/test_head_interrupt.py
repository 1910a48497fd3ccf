"""A fit interrupted from outside: a process of its own on a terminal, and control-C as a terminal sends it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vitscope.cli import app
from vitscope.convex import load
from vitscope.runs.store import RunFolder, read_run

pty = pytest.importorskip("pty", reason="there are no pseudo-terminals on this system")
QUICK = ("--limit", "200", "--test-limit", "100", "--pool", "2", "--width", "6", "--gates", "2")
PATIENCE = 120


def listening_to_control_c() -> None:
    """Whoever runs the tests in the background has it ignored, and its children with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted_once_it_shows(shown: bytes, arguments: tuple[str, ...]) -> tuple[int, str]:
    """The exit code, and all that the terminal showed, of a command interrupted when the terminal shows some words."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from vitscope.cli import main; main()", "head", *arguments]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment, preexec_fn=listening_to_control_c
    )
    os.close(theirs)
    seen, sent, began = b"", False, time.monotonic()
    try:
        while time.monotonic() - began < PATIENCE:
            try:
                read = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not read:
                break
            seen += read
            if shown in seen and not sent:
                sent = True
                process.send_signal(signal.SIGINT)
        return process.wait(PATIENCE), seen.decode()
    finally:
        process.kill()
        os.close(ours)


def test_control_c_keeps_the_head_shows_the_way_on_and_resume_goes_on_from_it(tmp_path: Path) -> None:
    places = ("--features", str(tmp_path / "features"), "--out", str(tmp_path / "head"))
    arguments = ("fit", "digits", "--images", "digits", *QUICK, "--beta", "0.01", "--tol", "1e-4", *places)
    code, seen = interrupted_once_it_shows(b" heads ", arguments)
    assert code == 130
    assert "objective" in seen
    assert "holds its best point" in seen
    assert "--resume" in seen
    assert "Traceback" not in seen
    head = load(tmp_path / "head")
    assert head.interrupted_
    assert head.certificate_.dual <= head.certificate_.primal
    assert "interrupted" in (tmp_path / "head" / "page.html").read_text()
    assert RunFolder(str(tmp_path / "head")).read() is None
    again = CliRunner().invoke(app, ["head", *arguments, "--resume"], prog_name="vitscope")
    assert again.exit_code == 0
    assert not load(tmp_path / "head").interrupted_
    assert "continued from its best point" in read_run(str(tmp_path / "head")).notes[0]


def test_control_c_on_a_path_keeps_its_finished_points(tmp_path: Path) -> None:
    places = ("--features", str(tmp_path / "features"), "--out", str(tmp_path / "path"))
    arguments = ("path", "digits", "--images", "digits", *QUICK, "--kind", "mlp", "--betas", "12", *places)
    code, seen = interrupted_once_it_shows(b"1/12", arguments)
    assert code == 130
    kept = re.search(r"interrupted; (\d+) of 12 points are saved", seen)
    assert kept
    assert 1 <= int(kept[1]) < 12
    (folder,) = (tmp_path / "path" / "partial").iterdir()
    assert len(list(folder.iterdir())) == int(kept[1])
    again = CliRunner().invoke(app, ["head", *arguments, "--resume"], prog_name="vitscope")
    assert again.exit_code == 0
    assert read_run(str(tmp_path / "path"))["convex-path"].shape == (12,)
