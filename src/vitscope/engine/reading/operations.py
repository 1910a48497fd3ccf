"""How many operations a forward pass takes: multiplications and additions in matrix products and convolutions."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass
class Operations:
    """The operations counted so far."""

    total: int = 0


@contextmanager
def count_operations() -> Generator[Operations]:
    """Count the operations in the block, without gradients, by PyTorch's own formulas.

    ``torch.utils.flop_counter`` also tracks which module runs, through hooks on gradients, and fails if a weight itself
    enters a module in inference mode, as the query of attention pooling does; this only counts. Fused attention is
    decomposed, since not all its kernels have a formula.
    """
    counter = _Counter()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            yield counter.found
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Counter(TorchDispatchMode):
    """Sees every operator that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Operations()

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 (an operator, which has no public type)
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 (an operator's values)
        named = dict(kwargs or {})
        formula = flop_registry.get(func._overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:
                made = func.decompose(*args, **named)
            if made is not NotImplemented:
                return made
        out = func(*args, **named)
        if formula is not None:
            self.found.total += formula(*args, **named, out_val=out)
        return out
