"""The second stage of a study of pruned models, compared with the earlier way to cut it: blocks of 16 prunings.

    python benchmarks/study_subjects.py [--images 128] [--batch 4] [--model vit_tiny_patch16_224]

Both cuts read the same images through the same pruned models of random weights. Before, every shard of four batches
made each of its 16 models anew; now each is made once for a stretch of images. The table has CPU seconds, taken in
turns so that a busy machine slows both, the number of models made, and whether all numbers are equal to the last bit.
"""

import argparse
import time
from collections.abc import Iterator
from functools import reduce

import numpy as np
import torch

import vitscope
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.engine import studying
from vitscope.engine.grid import Setting
from vitscope.engine.reading.fold import Means
from vitscope.engine.reading.shard import ShardResult, batch_shards
from vitscope.engine.studying import StudyWork, apply_setting
from vitscope.interventions.weight_prune import WeightPrune
from vitscope.models.subject import Subject

MODULES_PER_BLOCK = 16


class Counting:
    """Counts the models made, and the CPU seconds of a share of the work."""

    def __init__(self) -> None:
        self.made, self.seconds = 0, 0.0

    def subject(self, subject: Subject, setting: Setting) -> Subject:
        """Make a model, and count it."""
        self.made += 1
        return apply_setting(subject, setting)


def before(work: StudyWork, counting: Counting) -> Iterator[list[ShardResult]]:
    """Each setting's result with its changes, shard by shard, in the earlier blocks of 16."""
    count = work.images.batch_count(work.batch_size)
    for start in range(0, len(work.settings), MODULES_PER_BLOCK):
        for shard in batch_shards(count):
            batches = list(
                work.images.batches(work.subject.preprocessing.transform, work.batch_size, shard.start, shard.stop)
            )
            intact = [work._observe((work.subject,), batch)[0][0] for batch in batches]
            results: list[ShardResult] = []
            for setting in work.settings[start : start + MODULES_PER_BLOCK]:
                subject, states = counting.subject(work.subject, setting), [(Means(), Means())]
                for batch, seen in zip(batches, intact, strict=True):
                    states = work._update(states, work._observe((subject,), batch)[0][0], seen)
                results.append(ShardResult(sum(map(len, batches)), (), tuple(one for pair in states for one in pair)))
            yield results


def now(work: StudyWork) -> Iterator[list[ShardResult]]:
    """Each setting's result with its changes, shard by shard, as the study does it now."""
    for shard in work.shards():
        found = work.fold(shard, lambda _: None)
        yield [ShardResult(found.images, (), found.states[2:])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--settings", type=int, default=8)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    subject = vitscope.load(f"timm/{given.model}")
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (given.images, 256, 256, 3), np.uint8)
    images = vitscope.images((pictures, generator.integers(0, subject.class_count, given.images)))
    shares = np.linspace(0.1, 0.9, given.settings).tolist()
    settings: tuple[Setting, ...] = tuple((WeightPrune(share),) for share in shares)
    work = StudyWork(subject, images, settings, (Accuracy(),), given.batch)
    counts = {"before": Counting(), "now": Counting()}
    studying.apply_setting = counts["now"].subject
    cuts = {"before": before(work, counts["before"]), "now": now(work)}
    found: dict[str, list[list[ShardResult]]] = {"before": [], "now": []}
    share = {"before": 1, "now": min(MODULES_PER_BLOCK, given.settings)}
    while cuts:
        for name in list(cuts):
            began = time.process_time()
            for _ in range(share[name]):
                one = next(cuts[name], None)
                if one is None:
                    del cuts[name]
                    break
                found[name].append(one)
            counts[name].seconds += time.process_time() - began
    shards = len(batch_shards(work.images.batch_count(given.batch)))
    print(f"{given.model}: {given.settings} prunings of {given.images} images in batches of {given.batch}\n")
    print(f"{'':8}{'models made':>12}{'CPU s':>9}")
    for name, counting in counts.items():
        print(f"{name:8}{counting.made:>12}{counting.seconds:>9.1f}")
    old = [reduce(ShardResult.merge, (one[i] for one in found["before"])) for i in range(given.settings)]
    new = [
        reduce(ShardResult.merge, (one[0] for one in found["now"][i * shards :][:shards]))
        for i in range(given.settings)
    ]
    same = all(one.to_bytes() == other.to_bytes() for one, other in zip(old, new, strict=True))
    print(f"\nevery number the same to the last bit: {same}")


if __name__ == "__main__":
    main()
