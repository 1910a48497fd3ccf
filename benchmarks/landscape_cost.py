"""Forward passes of a 21 x 21 loss landscape, compared with loss-landscapes 3.0.6 and Landscaper over all the data.

    python benchmarks/landscape_cost.py [--error 0.15] [--grid 21]

Every contestant draws the landscape of the same small convolutional network, trained for a few seconds on the embedded
digits, over the training and test images together. A hook counts the images through the network, including
the pilot's; the two libraries always take all images to every point. For vitscope the largest standard error
over the grid is shown, and how far its landscape is from the one over all images (which is not counted). The libraries
take part if they are installed:

    pip install --target PEERS --no-deps loss-landscapes landscaper topopy drawsvg treelib coloraide gudhi
    PYTHONPATH=PEERS python benchmarks/landscape_cost.py
"""

import argparse
import contextlib
import copy
import importlib.util
import io
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import vitscope
from vitscope.data import Images
from vitscope.engine.study import study
from vitscope.engine.studying import apply_setting
from vitscope.interventions.studies.loss_landscape import LossLandscape
from vitscope.models.pixels import PixelInput


class Block(nn.Module):
    """A convolution with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.GroupNorm(1, width), nn.Conv2d(width, width, 3, padding=1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The map after the block."""
        return x + self.layers(x)


class Network(nn.Module):
    """A network from 8 x 8 grey pixels to ten classes."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm, self.head = nn.LayerNorm(4 * width), nn.Linear(4 * width, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The logits of images."""
        x = functional.adaptive_avg_pool2d(self.blocks(self.stem(pixels)), 2)
        return self.head(self.norm(x.flatten(1)))


class Counter:
    """Counts the images that go through a network."""

    def __init__(self, module: nn.Module) -> None:
        self.images, self.began = 0, time.process_time()
        self.handle = module.register_forward_hook(lambda *passed: self.add(passed[1][0].shape[0]))

    def add(self, images: int) -> None:
        """Count a batch; a copy of the network counts here too."""
        self.images += images

    def stop(self) -> tuple[int, float]:
        """How many images went through, and the CPU seconds since the beginning."""
        self.handle.remove()
        return self.images, time.process_time() - self.began


def trained(pixels: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    torch.manual_seed(0)
    module = Network()
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for step in range(600):
        rows = torch.randint(len(pixels), (64,), generator=torch.Generator().manual_seed(step))
        functional.cross_entropy(module(pixels[rows]), labels[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return module.eval()


def digits() -> Images:
    parts = [vitscope.images("digits", split=split) for split in ("train", "test")]
    pixels = np.concatenate([[np.asarray(part.read(i)) for i in range(len(part))] for part in parts])
    return vitscope.images((pixels, np.concatenate([part.labels for part in parts if part.labels is not None])))


def loss_landscapes(module: nn.Module, pixels: torch.Tensor, labels: torch.Tensor, side: int) -> None:
    from loss_landscapes import random_plane
    from loss_landscapes.metrics import Loss

    with torch.no_grad():
        random_plane(module, Loss(functional.cross_entropy, pixels, labels), 1, side, "filter", deepcopy_model=True)


def landscaper(module: nn.Module, pixels: torch.Tensor, labels: torch.Tensor, side: int) -> None:
    from landscaper.compute import compute_loss_landscape
    from landscaper.utils import generate_random_orthogonal_directions

    directions = generate_random_orthogonal_directions(module, 2)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        compute_loss_landscape(
            module,
            (pixels, labels),
            directions,
            lambda model, data: float(functional.cross_entropy(model(data[0]), data[1])),
            steps=side,
            distance=1.0,
            dim=2,
            device="cpu",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--error", type=float, default=0.15)
    parser.add_argument("--grid", type=int, default=21)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    images, given = digits(), PixelInput(8, 1, (0.5,), (0.5,))
    batch = next(iter(images.batches(given, len(images))))
    assert batch.labels is not None
    module = trained(batch.pixels, batch.labels)
    subject = vitscope.load(module, input=given, units=["blocks.0", "blocks.1"])
    full = asked.grid**2 * len(images)
    print(f"{len(images)} images, {asked.grid} x {asked.grid} points: {full} passes over all the data\n")
    print(f"{'':28}{'passes':>10}{'share':>9}{'CPU s':>9}")

    def shown(name: str, counted: tuple[int, float]) -> None:
        print(f"{name:28}{counted[0]:>10}{counted[0] / full:>9.3f}{counted[1]:>9.1f}")

    for name, draw in (("loss_landscapes", loss_landscapes), ("landscaper", landscaper)):
        if importlib.util.find_spec(name) is None:
            print(f"{name:28}  not installed")
            continue
        peer = copy.deepcopy(module)
        counter = Counter(peer)
        draw(peer, batch.pixels, batch.labels, asked.grid)
        shown(name, counter.stop())
    counter = Counter(module)
    asked_for = LossLandscape(asked.grid, error=asked.error)
    run = study(subject, images, asked_for, plan=vitscope.Plan(batch_size=256))
    shown(f"vitscope, error {asked.error:g}", counter.stop())
    found = run.tree["loss-landscape-accuracy"].to_dataset()
    grid = asked_for.grid(subject, images, vitscope.Plan())
    moved = [apply_setting(subject, setting).module for setting in grid.settings if setting is not None]
    with torch.no_grad():
        losses = [float(functional.cross_entropy(one(batch.pixels), batch.labels)) for one in moved]
    whole = np.array(losses).reshape(grid.shape)
    count = int(found.nll_count.max())
    errors, away = found.nll_error.values * (1 - count / len(images)) ** 0.5, np.abs(found.nll.values - whole)
    print(f"\n{count} of {len(images)} images at every point; mean loss {whole.min():.3f} to {whole.max():.2f} nats")
    print(
        f"largest standard error of the mean loss of all images: {errors.max():.4f} nats; {asked.error:g} was requested"
    )
    print(f"from the landscape over all images: {np.sqrt((away**2).mean()):.4f} rms, {away.max():.4f} at most")


if __name__ == "__main__":
    main()
