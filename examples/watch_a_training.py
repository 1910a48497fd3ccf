"""A plain training loop with a monitor: attention and accuracy while a small ViT learns digits.

python examples/watch_a_training.py [FOLDER]
"""

import sys
import tempfile

import torch
from torch.nn import functional

import vitscope
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.diagnostics.attention_entropy import AttentionEntropy
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.runs.store import find_runs
from vitscope.training.watch import Monitor


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()
    torch.manual_seed(0)
    model = Vit(VitConfig(image=8, channels=1, patch=2, dim=32, depth=2, heads=2))
    (batch,) = vitscope.images("digits", split="train").batches(model.config.input, 1352)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)

    few = vitscope.images("digits", split="test", limit=64)
    monitor = Monitor(few, [Accuracy(), AttentionEntropy()], folder, every=30, budget=0.5)
    for step in range(121):
        monitor.step(model, step)
        rows = torch.randint(len(batch.labels), (64,))
        functional.cross_entropy(model(batch.pixels[rows]), batch.labels[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()

    for _, run in find_runs(folder):
        top1, entropy = float(run["accuracy"]), run["attention-entropy"].mean("head").values
        said = ", ".join(f"{nats:.2f}" for nats in entropy)
        print(f"step {run.tree.attrs['step']:3d}: accuracy {top1:.0%}, attention entropy by layer {said} nats")
    print(f"{monitor.pace.share(monitor.clock()):.0%} of the time went into watching; runs in {folder}")


if __name__ == "__main__":
    main()
