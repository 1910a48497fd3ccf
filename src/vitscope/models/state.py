"""A module's weights and buffers: what a forward pass writes into them is detected and undone."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class TensorSnapshot:
    """A weight or buffer as it was: its submodule's table, the tensor itself, and a copy of its numbers."""

    path: str
    table: dict[str, Tensor | None]
    tensor: Tensor | None
    numbers: Tensor | None

    def put_back(self) -> bool:
        """Put the tensor back with the numbers it had; return whether the tensor or its numbers had changed."""
        name = self.path.rpartition(".")[2]
        replaced = self.table.get(name) is not self.tensor
        self.table[name] = self.tensor
        if self.tensor is None or self.numbers is None or _same(self.tensor, self.numbers):
            return replaced
        with torch.no_grad():
            self.tensor.copy_(self.numbers)
        return True


def buffers_of(module: nn.Module) -> tuple[TensorSnapshot, ...]:
    """All buffers as they are now. Cost: a copy of each."""
    return tuple(_snapshot(module, "_buffers"))


def weights_and_buffers_of(module: nn.Module) -> tuple[TensorSnapshot, ...]:
    """All weights and buffers as they are now. Cost: a copy of each."""
    return (*_snapshot(module, "_parameters"), *_snapshot(module, "_buffers"))


def _snapshot(module: nn.Module, kind: str) -> Iterator[TensorSnapshot]:
    for path, part in module.named_modules():
        own = getattr(part, kind)
        table: dict[str, Tensor | None] = own if isinstance(own, dict) else dict(own.items())  # TorchScript has no dict
        for name, tensor in table.items():
            numbers = None if tensor is None else tensor.detach().clone()
            yield TensorSnapshot(f"{path}.{name}" if path else name, table, tensor, numbers)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether all numbers are equal, NaN being equal to NaN."""
    if one.shape != other.shape or torch.equal(one, other):
        return one.shape == other.shape
    return one.is_floating_point() and bool(((one == other) | (one.isnan() & other.isnan())).all())


@contextmanager
def buffers_kept(module: nn.Module) -> Generator[None]:
    """Undo what forward passes do to buffers meanwhile: writing into them, or replacing them."""
    before = buffers_of(module)
    try:
        yield
    finally:
        for held in before:
            held.put_back()
