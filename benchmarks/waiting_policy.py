"""How idle threads should wait: a checkup's passes with sleeping and with spinning threads, alone and beside others.

    python benchmarks/waiting_policy.py [--images 128] [--rounds 3]

OpenMP's threads wait for their next turn asleep (``OMP_WAIT_POLICY=passive``) or spinning (``active``). Bare forward
passes and a checkup of ``vit_tiny_patch16_224`` run in separate processes under either policy, on a quiet machine
and beside one busy process for every two cores. The figures are medians over the rounds.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from contextlib import contextmanager
from itertools import product
from pathlib import Path

PASSES = {"bare forward passes": "bare", "checkup": "checkup"}
POLICIES = ("passive", "active")
COMPETITOR = "while True: pass"
LONGEST = 600


@contextmanager
def competitors(count: int):
    """Processes that never sleep, while the block runs."""
    running = [subprocess.Popen([sys.executable, "-c", COMPETITOR]) for _ in range(count)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def seconds(name: str, policy: str, images: int) -> float:
    """Seconds of one contestant of ``checkup_cost.py`` under a policy; infinite if it takes more than ten minutes."""
    script = Path(__file__).with_name("checkup_cost.py")
    command = [sys.executable, str(script), "--one", name, "--images", str(images)]
    environment = {**os.environ, "OMP_WAIT_POLICY": policy}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return float("inf")
    return json.loads(done.stdout.splitlines()[-1])["seconds"]


def main() -> None:
    """Run every combination in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    busy = {"quiet": 0, "beside others": max(1, cores // 2)}
    found: dict[tuple[str, str, str], list[float]] = {key: [] for key in product(busy, PASSES, POLICIES)}
    for _ in range(arguments.rounds):
        for machine, passes, policy in found:
            with competitors(busy[machine]):
                found[machine, passes, policy].append(seconds(PASSES[passes], policy, arguments.images))
    print(f"vit_tiny_patch16_224, {arguments.images} images, {platform.machine()}, {cores} cores")
    print(f"{'':15} {'':20} {'asleep, s':>10} {'spinning, s':>12} {'spinning / asleep':>18}")
    for machine, passes in product(busy, PASSES):
        asleep, spinning = (statistics.median(found[machine, passes, policy]) for policy in POLICIES)
        print(f"{machine:15} {passes:20} {asleep:10.2f} {spinning:12.2f} {spinning / asleep:18.2f}")


if __name__ == "__main__":
    main()
