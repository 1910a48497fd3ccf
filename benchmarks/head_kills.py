"""``vitscope head`` killed at random moments and resumed, compared with undisturbed runs.

    OMP_NUM_THREADS=1 python benchmarks/head_kills.py [--rounds 20] [--seed 0] [--only fit]

Each round kills one command (SIGKILL, at a uniformly random moment of its undisturbed duration, tokens
included) and runs it again with ``--resume``. The run's numbers, except times, and the weights of a saved head must be
equal to the last bit to those of an undisturbed run; the folders must hold the run, its page, the head and finished
tokens, and nothing else. Commands run in forked processes that have imported everything already, so kills
hit the work and not the imports.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import timm  # noqa: F401 - imported once, for all processes forked from here
import torch
from safetensors.torch import load_file

import vitscope.convex.runs.compare
import vitscope.convex.runs.fit
import vitscope.convex.runs.path
import vitscope.report.page  # noqa: F401
from vitscope.cli import app
from vitscope.data import images
from vitscope.runs.store import read_run

SMALL = ("digits", "--images", "digits", "--limit", "300", "--test-limit", "150", "--pool", "2", "--width", "6")
VERBS = {
    "fit": (*SMALL, "--gates", "3", "--beta", "3e-3", "--tol", "1e-4"),
    "path": (*SMALL, "--gates", "2", "--betas", "8", "--kind", "mlp", "--tol", "1e-3"),
    "compare": (*SMALL, "--gates", "2", "--betas", "3", "--kinds", "linear,mlp,fno", "--tol", "1e-2"),
}
EXPECTED = {"run.nc", "page.html", "head.safetensors"}
FINISHED = {"tokens.npy", "labels.npy", "projection.safetensors", "features.json"}


def start(verb: str, folder: Path, *more: str) -> int:
    """Start the command in its own process; return the process's number."""
    places = ("--features", str(folder / "features"), "--out", str(folder / "out"))
    child = os.fork()
    if child:
        return child
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    code = 1
    try:
        app(["head", verb, *VERBS[verb], *places, *more], prog_name="vitscope", standalone_mode=False)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def finish(child: int, folder: Path) -> None:
    """Wait for the process, which must succeed."""
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"The command failed:\n{(folder / 'log.txt').read_text()}")


def numbers(folder: Path) -> dict[str, np.ndarray]:
    """All content of a run and its head, except times."""
    run = read_run(folder / "out")
    found = {
        f"{group.path}/{name}": array.values
        for group in run.tree.subtree
        for name, array in group.to_dataset().variables.items()
        if "seconds" not in str(name)
    }
    found |= {"claims": np.array([claim.figure for claim in run.claims]), "notes": np.array(run.notes)}
    head = folder / "out" / "head.safetensors"
    return found | ({f"head/{name}": part.numpy() for name, part in load_file(head).items()} if head.exists() else {})


def differences(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """The names of values that differ in any bit."""
    different = sorted(one.keys() ^ other.keys())
    for name in sorted(one.keys() & other.keys()):
        same = one[name].shape == other[name].shape and one[name].dtype.kind == other[name].dtype.kind
        numeric = one[name].dtype.kind == "f"
        if not same or not np.array_equal(one[name], other[name], equal_nan=numeric):
            different.append(name)
    return different


def left_behind(folder: Path) -> list[str]:
    """Files that should not be there."""
    stray = [path.name for path in (folder / "out").iterdir() if path.name not in EXPECTED]
    stores = [*(folder / "features").iterdir()]
    return stray + [f"{one.name}/{path.name}" for one in stores for path in one.iterdir() if path.name not in FINISHED]


def main() -> None:
    """Print a line for each command, and exit with the number of rounds that went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=VERBS, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    images("digits")
    chance, wrong = random.Random(given.seed), 0
    for verb in [given.only] if given.only else VERBS:
        with tempfile.TemporaryDirectory() as name:
            begun = time.perf_counter()
            finish(start(verb, Path(name)), Path(name))
            takes, expected = time.perf_counter() - begun, numbers(Path(name))
        killed = good = 0
        for place in range(given.rounds):
            with tempfile.TemporaryDirectory() as name:
                folder, moment = Path(name), chance.random() * takes
                child = start(verb, folder)
                time.sleep(moment)
                os.kill(child, signal.SIGKILL)
                killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
                finish(start(verb, folder, "--resume"), folder)
                faults = differences(expected, numbers(folder)) + left_behind(folder)
                good += not faults
                if faults:
                    print(f"{verb}, round {place}, killed after {moment:.2f} s: {', '.join(faults)}", flush=True)
        wrong += given.rounds - good
        print(f"{verb}: {good} of {given.rounds} equal, {killed} of them killed, within {takes:.1f} s", flush=True)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
