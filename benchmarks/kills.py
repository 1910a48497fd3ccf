"""Trials and contrasts killed at random moments and resumed, compared with the same ones left alone.

``python benchmarks/kills.py trials contrast --times 20`` runs each once to its end. It then repeats each 20 times,
killing it at random moments (SIGKILL, to the whole process group) and resuming it until it ends, and compares
every array of the run and every weight that it wrote. It prints a line for each, and exits with the number that differ.
Anything that a killed command leaves behind (temporary files, processes) counts as a difference.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from safetensors.numpy import load_file

VITSCOPE = "from vitscope.cli import main; main()"
CONTRAST = """
import sys
from vitscope import Plan, contrast, images, load
from vitscope.interventions.lesion import Lesion
before, plan = load("digits"), Plan(4, folder=sys.argv[2], resume="--resume" in sys.argv)
contrast(before, Lesion((3,))(before), images("digits", split="test"), ["accuracy", "calibration"], plan)
"""
TRIALS = (
    "train vit-micro --images digits --image 8 --channels 1 --patch 4 --depth 1 --batch 32 --epochs 3 --save-every 5 "
    "--limit 256 --grid learning_rate=5e-4,1e-3 --seeds 2 --validation 0.2"
)
COMMANDS = {"trials": [VITSCOPE, *TRIALS.split()], "contrast": [CONTRAST]}
PLAIN = {"seconds", "fit_seconds"}
"""Times, which differ between any two runs."""


def main() -> None:
    """Kill and resume each command ``--times`` times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="+", choices=COMMANDS)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance, wrong = random.Random(arguments.seed), 0
    for name in arguments.commands:
        with tempfile.TemporaryDirectory() as place:
            began = time.perf_counter()
            whole = Path(place, "whole")
            run(COMMANDS[name], whole, place)
            seconds = time.perf_counter() - began
            equal = 0
            for number in range(arguments.times):
                folder = Path(place, str(number))
                kills = killed(COMMANDS[name], folder, place, chance, seconds)
                why = difference(whole, folder, place)
                equal += not why
                wrong += bool(why)
                print(f"{name} {number + 1}: killed {kills} times, {why or 'equal'}", flush=True)
            print(f"{name}: {equal} of {arguments.times} equal, {seconds:.1f} s when left alone", flush=True)
    sys.exit(wrong)


def command(words: list[str], folder: Path, *more: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-c", *words, "--out", str(folder), *more]


def run(words: list[str], folder: Path, place: str, *more: str) -> None:
    """Run the command to its end."""
    done = subprocess.run(command(words, folder, *more), cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr[-2000:]}")


def killed(words: list[str], folder: Path, place: str, chance: random.Random, seconds: float) -> int:
    """Kill the command at one to three random moments, then let it end; return how often it was killed.

    A command that ends before its first kill is started anew, and killed earlier.
    """
    wanted, number = chance.randint(1, 3), 0
    while number < wanted:
        process = subprocess.Popen(
            command(words, folder, *(["--resume"] if number else [])),
            cwd=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(chance.uniform(0.2, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            number += 1
            continue
        if number:
            return number
        shutil.rmtree(folder)
        seconds *= 0.8
    run(words, folder, place, "--resume")
    return number


def difference(whole: Path, folder: Path, place: str) -> str:
    """The first difference between two folders; empty if they are equal."""
    found = [{str(path.relative_to(each)) for path in each.rglob("*") if path.is_file()} for each in (whole, folder)]
    if found[0] != found[1]:
        return f"other files: {sorted(found[0] ^ found[1])[:5]}"
    for name in sorted(found[0]):
        if name.endswith(".safetensors") and (why := tensors_differ(whole / name, folder / name)):
            return f"{name}: {why}"
        if name.endswith(".nc") and (why := numbers_differ(whole / name, folder / name)):
            return f"{name}: {why}"
    processes = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True, check=False).stdout
    return f"processes left: {processes.split()}" if processes else ""


def tensors_differ(one: Path, other: Path) -> str:
    """The first tensor that differs."""
    first, second = load_file(one), load_file(other)
    same = {name for name in first.keys() & second.keys() if np.array_equal(first[name], second[name])}
    return next(iter(sorted((first.keys() | second.keys()) - same)), "")


def numbers_differ(whole: Path, resumed: Path) -> str:
    """The first array that differs, except times."""
    trees = [xr.open_datatree(path, engine="h5netcdf").load().to_dict() for path in (whole, resumed)]
    if trees[0].keys() != trees[1].keys():
        return f"other groups: {sorted(trees[0].keys() ^ trees[1].keys())}"
    for name, node in trees[0].items():
        for variable in node.data_vars:
            plain = str(variable).removesuffix("_error").removesuffix("_count") in PLAIN
            other = trees[1][name]
            if not plain and (variable not in other or not node[variable].identical(other[variable])):
                return f"{name}/{variable}"
    return ""


if __name__ == "__main__":
    main()
