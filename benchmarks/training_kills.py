"""Trainings killed at random moments and resumed: final weights compared with those of an undisturbed training.

    python benchmarks/training_kills.py [--kills 20] [--seed 0]

``vitscope train`` on the embedded digits, with drop path, an average of the weights, label noise and a validation split
that chooses the epoch, is started in its own folder, killed with SIGKILL after a random time, and resumed,
possibly killed again, until it finishes. A folder counts if its weights, figures and predictions are
bitwise those of the undisturbed training and nothing is left behind (temporary files, locks).
The exit code is the number of folders that do not count.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import xarray as xr

from vitscope.models.checkpoint import read_checkpoint
from vitscope.runs.store import read_run

COMMAND = (
    "train vit-micro --images digits --limit 400 --epochs 8 --batch 32 --image 8 --patch 4 --depth 2 --channels 1 "
    "--drop-path 0.1 --ema 0.9 --label-noise 0.1 --validation 0.2 --randaugment 3 --save-every 3 --accelerator cpu"
)
FILES = {"metrics.nc", "model.safetensors", "page.html", "recipe.json", "run.nc", "state.pt"}


def begin(folder: Path) -> subprocess.Popen[bytes]:
    """Start the command in its own process group; it resumes what the folder holds."""
    code = "from vitscope.cli import main; main()"
    command = [sys.executable, "-c", code, *COMMAND.split(), "--out", str(folder), "--resume"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def finish(folder: Path, longest: float, generator: random.Random) -> int:
    """Train in the folder, killed at random moments of its duration; return how often it was killed."""
    kills = 0
    while True:
        process = begin(folder)
        try:
            process.wait(None if kills >= 3 else generator.uniform(0.2, 1.0) * longest)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        if process.returncode:
            raise SystemExit(f"the training in {folder} ended with {process.returncode} after {kills} kills")
        return kills


def differences(folder: Path, whole: Path) -> list[str]:
    """The differences from the undisturbed training."""
    found: list[str] = []
    weights = [read_checkpoint(one / "model.safetensors").weights for one in (folder, whole)]
    if any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[1]):
        found.append("weights")
    figures = [xr.load_dataset(one / "metrics.nc", engine="h5netcdf").drop_vars("seconds") for one in (folder, whole)]
    if not figures[0].equals(figures[1]):
        found.append("metrics")
    predictions = [read_run(one).tree["predictions"].to_dataset() for one in (folder, whole)]
    if not predictions[0].equals(predictions[1]):
        found.append("predictions")
    if left := {path.name for path in folder.iterdir()} - FILES:
        found.append(f"left behind: {', '.join(sorted(left))}")
    return found


def main() -> int:
    """Kill, resume, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="trainings that are killed at least once")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator, wrong, killed = random.Random(arguments.seed), 0, 0
    with tempfile.TemporaryDirectory() as place:
        whole, started = Path(place) / "whole", time.perf_counter()
        finish(whole, 1e6, generator)
        longest = time.perf_counter() - started
        print(f"left alone: {longest:.1f} s", flush=True)
        trainings = spared = 0
        while trainings < arguments.kills:
            folder = Path(place) / f"{trainings + spared}"
            kills = finish(folder, longest, generator)
            if not kills:
                spared += 1
                continue
            trainings, killed = trainings + 1, killed + kills
            if found := differences(folder, whole):
                wrong += 1
                print(f"{folder.name}: {'; '.join(found)}", flush=True)
    print(f"{arguments.kills - wrong} of {arguments.kills} as if never killed, after {killed} kills")
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
