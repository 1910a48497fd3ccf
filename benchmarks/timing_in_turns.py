"""Two copies of one model: how far a timing loop and ``vitscope.bench`` think that they are apart.

``python benchmarks/timing_in_turns.py [--model timm/deit_tiny_patch16_224] [--batch 1] [--times 8] [--rounds 12]``

The loop times all passes of one copy and then all of the other; the bench lets them take turns. Both do it ``times``
over with about as many passes, alternating. The true ratio is 1.

``--edits`` instead compares the model with edits of itself: half of its patches from unit 7 on, half of its weights 0.
"""

import argparse
import copy
import statistics
import time

import torch

import vitscope
from vitscope.cli.threads import wait_passively
from vitscope.interventions.token_keep import TokenKeep
from vitscope.interventions.weight_prune import WeightPrune
from vitscope.models.compact import compact


def loop(modules, images, passes):
    """Seconds of a pass of each module, the median of a loop of its own."""
    found = []
    with torch.no_grad():
        for module in modules:
            for _ in range(3):
                module(images)
            times = []
            for _ in range(passes):
                began = time.perf_counter()
                module(images)
                times.append(time.perf_counter() - began)
            found.append(statistics.median(times))
    return found


def turns(pair, batch, rounds):
    """The ratio of a bench, and its 95 % interval."""
    run = vitscope.bench(pair, batch, rounds=rounds, memory=False)
    found = run.tree["time-ratio"].to_dataset().isel(model=1, backend=0, batch_size=0)
    return [float(found[name]) for name in ("time_ratio", "time_ratio_low", "time_ratio_high")]


def compare_edits(subject, rounds):
    """What a bench says of fewer tokens, and of weights that are zero."""
    edited = [TokenKeep(0.5, layer=7)(subject), WeightPrune(0.5)(subject)]
    labels = ["all", "half of the patches", "half of the weights"]
    for claim in vitscope.bench([subject, *edited], rounds=rounds, memory=False, labels=labels).claims:
        print(f"{claim.sentence} {claim.figure}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="timm/deit_tiny_patch16_224")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--times", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--edits", action="store_true")
    given = parser.parse_args()
    subject = vitscope.load(given.model)
    if given.edits:
        return compare_edits(subject, given.rounds)
    pair = [subject, vitscope.load(copy.deepcopy(subject.module), name="copy")]
    modules, images = [compact(one) for one in pair], torch.randn(given.batch, *subject.preprocessing.shape)
    looped, took, covered = [], [], 0
    for number in range(given.times):
        first, second = loop(modules, images, 4 * given.rounds)
        ratio, low, high = turns(pair, given.batch, given.rounds)
        looped.append(second / first)
        took.append(ratio)
        covered += low <= 1 <= high
        print(f"{number + 1}: loop {second / first:.3f}, in turns {ratio:.3f} ({low:.3f} to {high:.3f})", flush=True)
    for name, ratios in (("loop", looped), ("in turns", took)):
        print(f"{name}: ratios {min(ratios):.3f} to {max(ratios):.3f}, median {statistics.median(ratios):.3f}")
    print(f"{covered} of {given.times} intervals of the bench hold 1")


if __name__ == "__main__":
    wait_passively()
    main()
