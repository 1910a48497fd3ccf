"""Keep zeros: what was pruned stays pruned."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import final

import torch
from torch import nn

from vitscope.measurement.errors import UserError
from vitscope.training.hook import HOOKS, AbstractHook


@HOOKS.add("keep-zeros")
@final
@dataclass(frozen=True)
class KeepZeros(AbstractHook):
    """Weights that are exactly zero when the training begins are zero after each of its steps.

    This keeps the mask of a pruned subject (Han et al. 2015). It covers only matrices and kernels, whose weights are
    never initialised to zero. Raises ``UserError`` if none of them has a zero. Cost: one product per step.
    """

    weights: tuple[str, ...] = ("*weight",)
    """Patterns of the names of the weights that it covers."""

    name = "keep-zeros"

    def begin(self, module: nn.Module) -> Callable[[], None]:
        """Multiply by the mask after each step."""
        looked = {
            name: parameter
            for name, parameter in module.named_parameters()
            if parameter.ndim >= 2 and any(fnmatchcase(name, pattern) for pattern in self.weights)
        }
        masked = [(one, (one.detach() != 0).to(one.dtype)) for one in looked.values() if bool((one == 0).any())]
        if not masked:
            raise UserError("keep-zeros has nothing to keep: no weight of the start is zero; prune it first.")

        def keep() -> None:
            with torch.no_grad():
                for parameter, mask in masked:
                    parameter.mul_(mask.to(parameter.device))

        return keep
