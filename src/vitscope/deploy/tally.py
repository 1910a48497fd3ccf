"""Tallies of a pass: how many operators run, how many bytes they move, and which of them take the time."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from vitscope.deploy.backend import synchronise
from vitscope.engine.reading.operations import count_operations

_REPEATS = 5
"""Timed passes, of which the median counts."""
_STARTS = 300
"""Operators whose start is timed together."""


@final
@dataclass(frozen=True)
class PassTally:
    """A pass of one batch, operator by operator. Views, which move no numbers, are not counted."""

    operators: int
    """How many operators run."""
    traffic: int
    """Bytes that they read and write in all: what would move if nothing stayed in a cache."""
    products: float
    """The share of their time that matrix products, convolutions and attention take."""


def count_multiply_adds(function: Callable[[Tensor], Any], images: Tensor) -> float:
    """Multiplications, each with its addition, in the products and convolutions of a pass over these images.

    Attention counts as its two products, ``2 n² d`` for ``n`` tokens of width ``d``, fused or not. Cost: a pass.
    """
    with count_operations() as found:
        function(images)
    return found.total / 2


def tally(function: Callable[[Tensor], Any], images: Tensor) -> PassTally:
    """Tally a pass over these images. Cost: six passes, and some 10 µs more for each operator.

    The time of each operator is its median over passes, so that an interruption counts for nothing.
    """
    found: list[_Watching] = []
    with torch.no_grad():
        function(images)  # so that what happens once is over
        for _ in range(_REPEATS):
            with _Watching(images.device) as watching:
                function(images)
            found.append(watching)
    first = found[0]
    each = zip(*(one.seconds for one in found), strict=False)  # a pass may run other operators for other numbers
    seconds = [statistics.median(several) for several in each]
    products = sum(second for second, product in zip(seconds, first.products, strict=False) if product)
    return PassTally(len(first.seconds), first.traffic, products / (sum(seconds) or 1.0))


class _Watching(TorchDispatchMode):
    """Counts and times every operator that runs."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.traffic = 0
        self.seconds: list[float] = []
        """Seconds of each operator."""
        self.products: list[bool] = []
        """Whether each is a product."""

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 (an operator, which has no public type)
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 (an operator's values)
        named = dict(kwargs or {})
        synchronise(self.device)
        began = time.perf_counter()
        out = func(*args, **named)
        synchronise(self.device)
        taken = time.perf_counter() - began
        if not _is_view(func, args, out):
            self.seconds.append(taken)
            self.products.append(_is_product(func))
            self.traffic += _bytes((args, named)) + _bytes(out)
        return out


def _is_product(func: Any) -> bool:  # noqa: ANN401 - an operator
    """Whether its multiply-adds are counted. Fused attention has a different name on each device."""
    packet = func._overloadpacket
    name = str(packet)
    return packet in flop_registry or "scaled_dot_product" in name or "mkldnn" in name or "linear" in name


def _is_view(func: Any, args: object, out: object) -> bool:  # noqa: ANN401 - an operator
    """Whether it moves no numbers: it returns its input's own memory, or fresh memory with nothing in it."""
    if func._schema.is_mutable:
        return False
    held, found = ({one.untyped_storage().data_ptr() for one in _tensors(values)} for values in (args, out))
    return found <= held or "empty" in str(func._overloadpacket)


def _bytes(values: object) -> int:
    return sum(one.numel() * one.element_size() for one in _tensors(values))


def _tensors(values: object) -> list[Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, Tensor)]


@final
@dataclass(frozen=True, eq=False)
class Gauges:
    """Work of known size, which shows what a device manages at most at the moment, in one type of number.

    Cost: 30 ms and 128 MB on a CPU of two cores, 1 GB on a GPU.
    """

    like: Tensor

    @cached_property
    def works(self) -> tuple[Callable[[], object], ...]:
        """A product of two square matrices, a copy of a large tensor, and many operators on single numbers."""
        kind, device = self.like.dtype, self.like.device
        square, single = (torch.ones(n, n, dtype=kind, device=device) for n in (self._side, 1))
        long = torch.ones(self._bytes // 4, device=device)
        target = torch.empty_like(long)
        return (
            lambda: torch.mm(square, square),
            lambda: target.copy_(long),
            lambda: [torch.add(single, single) for _ in range(_STARTS)],
        )

    @property
    def amounts(self) -> tuple[float, float, float]:
        """The size of each work: multiply-adds, bytes read and written, operators started."""
        return float(self._side**3), 2.0 * self._bytes, float(_STARTS)

    @property
    def _side(self) -> int:
        return 768 if self.like.device.type == "cpu" else 8192

    @property
    def _bytes(self) -> int:
        return 2**26 if self.like.device.type == "cpu" else 2**29
