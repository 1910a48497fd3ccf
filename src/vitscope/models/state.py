"""A module's weights and buffers: what a forward pass writes into them is found, and put back."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Held:
    """A weight or buffer as it was: the table of its submodule that it stands in, the very tensor, and its numbers."""

    path: str
    table: dict[str, Tensor | None]
    tensor: Tensor | None
    numbers: Tensor | None

    def put_back(self) -> bool:
        """Put the tensor back where it stood, with the numbers it had; whether either was another one since."""
        name = self.path.rpartition(".")[2]
        replaced = self.table.get(name) is not self.tensor
        self.table[name] = self.tensor
        if self.tensor is None or self.numbers is None or _same(self.tensor, self.numbers):
            return replaced
        with torch.no_grad():
            self.tensor.copy_(self.numbers)
        return True


def buffers_of(module: nn.Module) -> tuple[Held, ...]:
    """All buffers as they are now. Cost: a copy of each."""
    return tuple(_held(module, "_buffers"))


def weights_and_buffers_of(module: nn.Module) -> tuple[Held, ...]:
    """All weights and buffers as they are now. Cost: a copy of each."""
    return (*_held(module, "_parameters"), *_held(module, "_buffers"))


def _held(module: nn.Module, kind: str) -> Iterator[Held]:
    for path, part in module.named_modules():
        own = getattr(part, kind)
        table: dict[str, Tensor | None] = own if isinstance(own, dict) else dict(own.items())  # TorchScript has no dict
        for name, tensor in table.items():
            numbers = None if tensor is None else tensor.detach().clone()
            yield Held(f"{path}.{name}" if path else name, table, tensor, numbers)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether all numbers are equal, NaN being equal to NaN."""
    if one.shape != other.shape or torch.equal(one, other):
        return one.shape == other.shape
    return one.is_floating_point() and bool(((one == other) | (one.isnan() & other.isnan())).all())


@contextmanager
def buffers_kept(module: nn.Module) -> Generator[None]:
    """What forward passes write into buffers meanwhile is undone, and so is putting another tensor in one's place."""
    before = buffers_of(module)
    try:
        yield
    finally:
        for held in before:
            held.put_back()
