"""Inputs of noise, on which two forms of a model are compared."""

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.models.feed import input_like
from vitscope.models.subject import Subject


def probe(subject: Subject, dtype: torch.dtype, count: int = 2) -> Float[Tensor, "batch channels height width"]:
    """Inputs of Gaussian noise on the module's device, always the same."""
    device = input_like(subject.module).device
    shape = (count, *subject.preprocessing.shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device, dtype)
