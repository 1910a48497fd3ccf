"""PyTorch itself, operator by operator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import nn
from typing_extensions import override

from vitscope.deploy.backend import BACKENDS, AbstractBackend, AbstractRunner, Shape, torch_runner


@BACKENDS.add("eager")
@final
@dataclass(frozen=True)
class Eager(AbstractBackend):
    """PyTorch runs the operators one by one, as it does by default."""

    name = "eager"
    eager = True

    @override
    def check(self, device: torch.device) -> None:
        """It runs wherever PyTorch does."""

    @override
    def prepare(self, module: nn.Module, shape: Shape, batches: Sequence[int], threads: int) -> AbstractRunner:
        return torch_runner(module, module)
