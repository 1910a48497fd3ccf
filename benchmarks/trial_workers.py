"""Trials on two workers, compared with the same trials one after the other.

``python benchmarks/trial_workers.py`` trains 12 small models (3 learning rates by 4 seeds) on the embedded digits in
both ways, in turn, and prints seconds and the ratio of each round.
"""

import argparse
import time

import torch

import vitscope
from vitscope.engine.work.executor import InProcess, Processes
from vitscope.training.recipe import Recipe
from vitscope.training.trials import Grid


def main() -> None:
    """Time both ways, in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    recipe = Recipe("vit-micro", image=8, patch=2, channels=1, depth=2, epochs=arguments.epochs, batch=64)
    pictures = [vitscope.images("digits", split=split) for split in ("train", "test")]
    grid = Grid(recipe, pictures[0], {"learning_rate": (5e-4, 1e-3, 2e-3)}, pictures[1])
    print(f"12 trainings of {arguments.epochs} epochs on {len(pictures[0])} digits, {torch.get_num_threads()} threads")
    for number in range(arguments.rounds):
        seconds = []
        for executor in (InProcess(), Processes(arguments.workers)):
            began = time.perf_counter()
            vitscope.trials(grid, seeds=4, plan=vitscope.Plan(executor=executor))
            seconds.append(time.perf_counter() - began)
        alone, shared = seconds
        print(f"round {number + 1}: {alone:.1f} s alone, {shared:.1f} s on {arguments.workers}: {alone / shared:.2f}")


if __name__ == "__main__":
    main()
