"""Evaluation between epochs: an objective's figures on images."""

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from vitscope.training.batches import as_batch
from vitscope.training.objective import AbstractObjective
from vitscope.training.parameters import evaluating
from vitscope.training.pixels import Pixels


def evaluate(
    module: nn.Module,
    pixels: Pixels,
    classes: tuple[str, ...],
    objective: AbstractObjective,
    batch: int,
    fabric: Fabric,
) -> dict[str, float]:
    """The mean of each of the objective's figures, with its standard error and count; devices share the images.

    The module is in evaluation mode meanwhile; afterwards each of its parts is back in its own mode.
    """
    names: tuple[str, ...] = ()
    wide = torch.float64 if fabric.device.type != "mps" else torch.float32
    sums, rows = torch.zeros(0, 2, dtype=wide), np.arange(fabric.global_rank, len(pixels), fabric.world_size)
    count = torch.tensor(float(len(rows)), dtype=wide, device=fabric.device)
    with evaluating(module), torch.inference_mode(), fabric.autocast():
        for start in range(0, max(len(rows), 1), batch):
            indices = rows[start : start + batch]
            found = objective.evaluate(module, as_batch(pixels, indices, classes, fabric.device))
            names = tuple(found)
            values = torch.stack([one.to(wide) for one in found.values()])
            here = torch.stack([values.sum(1), values.square().sum(1)], 1)
            sums = here if len(sums) == 0 else sums + here
    total, counted = (fabric.all_reduce(one, reduce_op="sum") for one in (sums, count))
    assert isinstance(total, Tensor)
    assert isinstance(counted, Tensor)
    row: dict[str, float] = {}
    for name, (first, second) in zip(names, total.tolist(), strict=True):
        number = float(counted)
        mean = first / number
        variance = max(0.0, second / number - mean**2)
        row |= {name: mean, f"{name}_error": (variance / max(1.0, number - 1)) ** 0.5, f"{name}_count": number}
    return row
