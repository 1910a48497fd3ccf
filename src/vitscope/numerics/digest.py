"""The bytes of tensors and their SHA-256, in one place: equal tensors have equal digests on every device."""

import hashlib

import torch
from torch import Tensor


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor's entries in row-major order. Cost: a copy, unless they lie so on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of :func:`tensor_bytes`, in hexadecimal. Shape and type are not part of it."""
    return hashlib.sha256(tensor_bytes(tensor)).hexdigest()
