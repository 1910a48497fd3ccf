"""Steps of ``vitscope train``, compared with a bare PyTorch loop, and fine-tuning DeiT-tiny, with timm's own parts.

    python benchmarks/training_steps.py [--steps 20] [--weights deit_tiny.safetensors --images cifar10/]

The two take turns step by step in one process, under the same load; figures are CPU time (``time.process_time``),
one ratio per step, the median over steps. ``vit-micro``: 32 x 32 pixels, batches of 128; vitscope with everything on
(padded crop, mirror, RandAugment, Mixup and CutMix, label smoothing, clipping, an average of the weights), and the same
without RandAugment; the bare loop has none of it: the same model with its drop path, forward pass, cross-entropy,
backward pass and AdamW, on a batch already in memory. DeiT-tiny: 96 pixels, batches of 64; timm's side is its model,
``create_transform`` on decoded pictures, its label-smoothing loss and ``create_optimizer_v2`` with layer-wise rates, as
its ``train.py`` combines them, with the same augmentation.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from timm.data.transforms_factory import create_transform
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from torch.nn import functional
from torchvision import transforms

import vitscope
from vitscope.data import Images
from vitscope.models.build import build_model
from vitscope.training.observer import Silent, Step


class Alternating(Silent):
    """Makes a step of the peer after each of vitscope's, and records the seconds of both."""

    def __init__(self, peer: Callable[[], None]) -> None:
        self.peer, self.seconds, self.since = peer, list[tuple[float, float]](), 0.0

    def begin(self, steps: int, done: int) -> None:
        """Start the clock."""
        self.since = time.process_time()

    def step(self, step: Step) -> None:
        """Record the step, and make the peer's."""
        own = time.process_time() - self.since
        start = time.process_time()
        self.peer()
        self.seconds.append((own, time.process_time() - start))
        self.since = time.process_time()


def bare() -> Callable[[], None]:
    """A step of the bare loop."""
    module = build_model("vit-micro", {"drop_path": 0.1}, None).train()
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(0)
    shown, labels = torch.randn(128, 3, 32, 32, generator=generator), torch.arange(128) % 10

    def step() -> None:
        functional.cross_entropy(module(shown), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def timms(weights: str, shown: Images) -> Callable[[], None]:
    """A step of timm's parts, whose transforms crop and resize the decoded pictures."""
    module = timm.create_model("deit_tiny_patch16_224", img_size=96, num_classes=10, checkpoint_path="").train()
    del weights  # the weights do not change the time of a step
    optimizer = create_optimizer_v2(module, "adamw", lr=1e-4, weight_decay=0.05, layer_decay=0.8)
    loss = LabelSmoothingCrossEntropy(0.1)
    tail = create_transform((3, 96, 96), is_training=True, no_aug=True)
    change = transforms.Compose(
        [transforms.Resize(96, 3), transforms.RandomCrop(96, 12), transforms.RandomHorizontalFlip(), *tail.transforms]
    )
    labels, place = np.asarray(shown.labels), 0

    def step() -> None:
        nonlocal place
        rows = np.arange(place, place + 64) % len(shown)
        place += 64
        batch = torch.stack([torch.as_tensor(change(shown.read(int(row)).convert("RGB"))) for row in rows])
        loss(module(batch), torch.from_numpy(labels[rows]).long()).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def show(name: str, seconds: list[tuple[float, float]], batch: int) -> None:
    """Print the medians, and the median ratio."""
    own, other = (statistics.median(one) for one in zip(*seconds, strict=True))
    ratios = [mine / theirs for mine, theirs in seconds]
    print(
        f"{name}: {batch / own:.0f} images per CPU second, the peer {batch / other:.0f}; time over the peer's "
        f"{statistics.median(ratios):.3f} (median of {len(ratios)} steps, quartiles "
        f"{', '.join(f'{one:.3f}' for one in statistics.quantiles(ratios, n=4)[::2])})",
        flush=True,
    )


def main() -> None:
    """Train a little, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--weights", help="weights of deit_tiny_patch16_224")
    parser.add_argument("--images", help="CIFAR-10")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    count = 128 * arguments.steps
    pictures = vitscope.images((generator.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count) % 10))
    with tempfile.TemporaryDirectory() as place:
        for magnitude, name in ((9, "vit-micro, everything on"), (0, "vit-micro, without RandAugment")):
            recipe = vitscope.Recipe(epochs=1, drop_path=0.1, ema=0.99, randaugment=magnitude, accelerator="cpu")
            watch = Alternating(bare())
            vitscope.train(recipe, pictures, Path(place) / name, observer=watch)
            show(name, watch.seconds[2:], 128)
        if arguments.weights is None or arguments.images is None:
            return
        shown = vitscope.images(arguments.images, split="train", limit=64 * arguments.steps)
        start = vitscope.load("timm/deit_tiny_patch16_224", weights=arguments.weights)
        recipe = vitscope.Recipe(
            image=96, epochs=1, batch=64, crop="padded", randaugment=0, mixup=0.0, cutmix=0.0, layer_decay=0.8,
            accelerator="cpu",
        )  # fmt: skip
        watch = Alternating(timms(arguments.weights, shown))
        vitscope.train(recipe, shown, Path(place) / "deit", start=start, observer=watch)
        show("DeiT-tiny", watch.seconds[2:], 64)


if __name__ == "__main__":
    main()
