"""Checks of a convex estimator's parameters; each error says what to do."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import torch

from vitscope.convex.block import AbstractBlock, Sizes
from vitscope.convex.gates import split
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
_GATES_A_NUMBER = 10


@dataclass(frozen=True)
class Whole:
    """A whole number of at least ``least``."""

    name: str
    value: object
    least: int = 1

    def check(self) -> None:
        """Raise ``UserError`` if the value is not one."""
        if isinstance(self.value, bool) or not isinstance(self.value, Integral) or int(self.value) < self.least:
            raise UserError(f"{self.name} is {self.value!r}; give a whole number, {self.least} or more.")


@dataclass(frozen=True)
class Positive:
    """A finite number above 0, and below ``below``."""

    name: str
    value: object
    below: float = math.inf
    instead: str = ""

    def check(self) -> None:
        """Raise ``UserError`` if the value is not one."""
        if isinstance(self.value, bool) or not isinstance(self.value, Real) or not 0 < float(self.value) < self.below:
            bounds = "above 0" if self.below == math.inf else f"between 0 and {self.below:g}"
            raise UserError(f"{self.name} is {self.value!r}; give a number {bounds}{self.instead}.")


def check_all(options: Sequence[Whole | Positive]) -> None:
    """Raise ``UserError`` for the first option that is wrong."""
    for option in options:
        option.check()


def check_precision(name: object) -> torch.dtype:
    """The torch type of that name."""
    if not isinstance(name, str) or name not in PRECISIONS:
        raise UserError(f"precision is {name!r}; give {' or '.join(map(repr, PRECISIONS))}.")
    return PRECISIONS[name]


def check_device(name: object) -> torch.device:
    """The device of that name, if this machine has it."""
    try:
        return torch.empty(0, device=str(name)).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"The device {name!r} cannot be used here ({reason(error)}); give another.") from error


def check_gates(gates: int, block: AbstractBlock, sizes: Sizes, rows: int, memory: int) -> None:
    """Raise ``UserError`` for more gates than are useful, or than fit into memory.

    An optimum needs no more heads than there are numbers that its outputs are fitted to (Caratheodory), so ten gates
    for each are already more than the numbers can distinguish. Every gate has at least one head in ``memory`` bytes.
    """
    numbers = rows * sizes.outputs
    if gates > _GATES_A_NUMBER * numbers:
        raise UserError(
            f"gates is {gates}, but only {numbers} numbers are fitted, which cannot distinguish so many gates; "
            f"give at most {_GATES_A_NUMBER * numbers} (8 to 64 are usual)."
        )
    head = 8 * sum(_weights(block, sizes, ins, outs) for ins, outs in _groups(block, sizes))
    if gates * head > memory:
        raise UserError(
            f"{gates} gates take {gates * head / 2**20:.3g} MiB with one head each, more than the "
            f"{memory / 2**20:.3g} MiB of memory allowed; give at most {max(1, memory // head)} gates, or more memory."
        )


def _groups(block: AbstractBlock, sizes: Sizes) -> Iterator[tuple[slice, slice]]:
    return zip(split(sizes.dim, block.groups()), split(sizes.outputs, block.groups()), strict=True)


def _weights(block: AbstractBlock, sizes: Sizes, ins: slice, outs: slice) -> int:
    part = Sizes(sizes.tokens, ins.stop - ins.start, outs.stop - outs.start)
    return block.left_size(part) + block.inner_size(part) * part.outputs
