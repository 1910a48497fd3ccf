"""A sweep of 64 uneven trials over worker processes, compared with the same sweep in one process, and with the floor.

    python benchmarks/lab_sweep.py [--workers 2] [--rounds 3] [--steps 8000] [--rate 0.1]

``vitscope sweep sample-complexity`` with 2 noises, with attention and without, 2 shares of relevant tokens, 4 numbers
of images and 2 seeds: 64 trials, each of which stops by its own criterion, at ``--steps`` at the latest. A worker
takes chunks of at most 16 trials; the most expensive start first.

Three times are shown, each a median over rounds in which the contestants take turns: one process, the workers from
their start to their end, and a sweep of trials that end before their first step, which is the cost of starting
workers. Runs are checked to have the same numbers to the last bit. The floor, which no scheduling of these chunks
can beat, is their times, measured one by one in this process, divided by the workers, and at least the longest. Wall
time is meaningful only on an idle machine; a worker's CPU time to start is meaningful on any. Torch
has one thread.
"""

import argparse
import multiprocessing
import os
import platform
import resource
import statistics
import time
from dataclasses import replace

import torch

from vitscope.engine.plan import Plan
from vitscope.engine.question import carry_out
from vitscope.engine.work.executor import InProcess, Processes
from vitscope.labs.experiment import Experiment, grid_of
from vitscope.labs.sample_complexity import SampleComplexity


def question(steps, rate, loss=0.01):
    """The sweep of 64 trials."""
    lab = SampleComplexity(alpha="0.2,0.4", samples="16:128", trials=2, steps=steps, rate=rate, loss=loss)
    return grid_of(lab, {"noise": "0.1,0.3"})


def children():
    """CPU seconds of the finished processes started here."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def answered(experiment, executor):
    """Wall seconds, CPU seconds of the workers, and the run."""
    start, before = time.perf_counter(), children()
    run = carry_out(Experiment(experiment.lab, experiment.grid), Plan(executor=executor))
    taken = time.perf_counter() - start
    for worker in multiprocessing.active_children():
        worker.join()
    return taken, children() - before, run


def chunk_seconds(experiment):
    """Seconds of each chunk alone, in starting order."""
    times = []
    for shard in experiment.work.shards():
        start = time.perf_counter()
        experiment.work.fold(shard, lambda _: None)
        times.append(time.perf_counter() - start)
    return times


def taken_in_order(times, workers):
    """The time at which the last worker ends, if each takes the next chunk when it becomes free."""
    busy = [0.0] * workers
    for one in times:
        busy[busy.index(min(busy))] += one
    return max(busy)


def assert_same(run, other):
    """Check that both runs have the same numbers to the last bit."""
    assert list(run.tree.children) == list(other.tree.children)
    for name, node in run.tree.children.items():
        assert node.to_dataset().equals(other.tree[name].to_dataset()), name


def main() -> None:
    """Time the sweeps in turn and print their times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8000, help="most steps of a trial")
    parser.add_argument("--rate", type=float, default=0.1, help="learning rate; a smaller one needs more steps")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    asked = question(arguments.steps, arguments.rate)
    idle = replace(asked, lab=replace(asked.lab, loss=1e9, steps=20), grid={})  # each trial ends before its first step
    several = Processes(arguments.workers)
    contestants = {"one process": (asked, InProcess()), "workers": (asked, several), "idle": (idle, several)}
    seconds = {name: [] for name in contestants}
    chunks, starts, runs = [], [], {}
    for _ in range(arguments.rounds):
        chunks.append(chunk_seconds(asked))
        for name, (experiment, executor) in contestants.items():
            taken, used, runs[name] = answered(experiment, executor)
            seconds[name].append(taken)
            starts += [used / arguments.workers] if name == "idle" else []
        assert_same(runs["workers"], runs["one process"])
    show(arguments, asked, {name: statistics.median(times) for name, times in seconds.items()}, chunks, min(starts))
    ratios = [one / many for one, many in zip(seconds["one process"], seconds["workers"], strict=True)]
    print(f"{statistics.median(ratios):.2f} times as fast, round by round {', '.join(f'{one:.2f}' for one in ratios)}")


def show(arguments, asked, medians, chunks, started):
    """Print the machine, the times, and the floor."""
    each = [statistics.median(column) for column in zip(*chunks, strict=True)]
    count = arguments.workers
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    print(f"{asked.total} trials in {len(each)} chunks, {count} workers, {arguments.rounds} rounds")
    print(f"one process            {medians['one process']:7.2f} s")
    print(f"{count} workers              {medians['workers']:7.2f} s, {medians['idle']:.2f} s of it to start them")
    print(f"to start one           {started:7.2f} s of CPU time")
    print(f"chunks in their order  {', '.join(f'{one:.2f}' for one in each)} s, sum {sum(each):.2f} s")
    print(f"floor                  {max(sum(each) / count, max(each)):7.2f} s: evenly distributed, or the longest")
    print(f"                       {taken_in_order(each, count):7.2f} s: taken in order by {count}")


if __name__ == "__main__":
    main()
