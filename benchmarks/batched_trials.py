"""Several models of one shape trained in one computation (``torch.func.vmap``), compared with one after the other.

``python benchmarks/batched_trials.py`` times forward and backward passes of small ViTs for 2 and 4 seeds in both ways,
in turn, at the sizes of CIFAR-10 and of the embedded digits.
"""

import argparse
import time

import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional

from vitscope.models.own.vit import Vit, VitConfig

SIZES = {
    "CIFAR-10": VitConfig(image=32, channels=3, patch=4, dim=96, depth=6, heads=3),
    "digits": VitConfig(image=8, channels=1, patch=2, dim=48, depth=2, heads=3),
}


def main() -> None:
    """Time both ways, in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    for name, config in SIZES.items():
        for seeds in (2, 4):
            ratios = [compare(config, seeds, arguments.batch) for _ in range(arguments.rounds)]
            print(f"{name}, {seeds} models: one by one over batched {', '.join(f'{one:.2f}' for one in ratios)}")


def compare(config: VitConfig, seeds: int, batch: int, steps: int = 8) -> float:
    """Time of ``steps`` steps one by one, divided by that of the same steps in one computation."""
    models = [Vit(config) for _ in range(seeds)]
    images = torch.randn(seeds, batch, config.channels, config.image, config.image)
    labels = torch.randint(config.classes, (seeds, batch))
    skeleton = models[0]

    def loss(parameters: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor):
        return functional.cross_entropy(functional_call(skeleton, (parameters, buffers), (x,)), y)

    parameters, buffers = stack_module_state(models)
    together = vmap(grad(loss), randomness="different")

    def batched() -> None:
        together(parameters, buffers, images, labels)

    def alone() -> None:
        for model, x, y in zip(models, images, labels, strict=True):
            step(model, x, y)

    return timed(alone, steps) / timed(batched, steps)


def step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """A forward and a backward pass."""
    model.zero_grad()
    functional.cross_entropy(model(x), y).backward()


def timed(run, steps: int) -> float:
    """Seconds of ``steps`` steps, after one that is not counted."""
    run()
    began = time.perf_counter()
    for _ in range(steps):
        run()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
