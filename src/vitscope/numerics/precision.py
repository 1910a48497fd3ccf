"""The precision of measurements, whatever the precision and device of the model."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

WITHOUT_DOUBLE = frozenset({"mps"})
"""Kinds of devices that have no float64."""


def to_float64(values: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The values in float64, on their own device if it has that, else on the CPU."""
    return values.cpu().double() if values.device.type in WITHOUT_DOUBLE else values.double()


def at_least_float32(values: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """The values in float32 if they are in half precision, else as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
