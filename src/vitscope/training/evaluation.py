"""Accuracy and likelihood on test images, between epochs."""

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from vitscope.training.parameters import evaluating
from vitscope.training.pixels import Pixels


def evaluate(module: nn.Module, pixels: Pixels, batch: int, fabric: Fabric) -> dict[str, float]:
    """``test_accuracy`` and ``test_nll`` with standard errors and counts; devices share the images.

    The module is in evaluation mode meanwhile, and each of its parts in the mode it was in afterwards.
    """
    sums = torch.zeros(4, dtype=torch.float64, device=fabric.device if fabric.device.type != "mps" else "cpu")
    rows = np.arange(fabric.global_rank, len(pixels), fabric.world_size)
    with evaluating(module), torch.inference_mode(), fabric.autocast():
        for start in range(0, len(rows), batch):
            indices = rows[start : start + batch]
            images = pixels.input.normalised(torch.from_numpy(pixels.read(indices)).to(fabric.device))
            labels = torch.from_numpy(pixels.labels[indices]).to(fabric.device)
            logits = module(images).float()
            nll = functional.cross_entropy(logits, labels, reduction="none").to(sums.device, torch.float64)
            right = (logits.argmax(1) == labels).sum()
            sums += torch.stack([right.to(sums), nll.sum(), nll.square().sum(), torch.tensor(float(len(nll))).to(sums)])
    reduced = fabric.all_reduce(sums, reduce_op="sum")
    assert isinstance(reduced, torch.Tensor)
    right, total, squares, count = reduced.tolist()
    accuracy, nll = right / count, total / count
    variances = {"test_accuracy": accuracy * (1 - accuracy), "test_nll": max(0.0, squares / count - nll**2)}
    row = {"test_accuracy": accuracy, "test_nll": nll}
    for name, variance in variances.items():
        row |= {f"{name}_error": (variance / max(1.0, count - 1)) ** 0.5, f"{name}_count": count}
    return row
