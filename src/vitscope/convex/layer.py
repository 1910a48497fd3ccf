"""Heads of one term as plain torch modules: parameters in the layout of Sahiner et al. (2022) and the gate.

They need no part of the solver, so they can be trained further, traced, scripted and exported like any module.
"""

from abc import ABC, abstractmethod
from typing import Final

from torch import Tensor, nn
from torch.nn import functional


class AbstractHeads(nn.Module, ABC):
    """The heads of one term: parameters ``W_1`` (heads first) and ``W_2`` (heads, inner, outputs), and their gate.

    ``gate`` has the shape of one ``W_1``. If it is None everything passes, or with ``relu`` what is positive. Gates are
    decided in float64, as in training, so none flips between precisions.
    """

    gate: Tensor | None
    pooled: Final[bool]
    relu: Final[bool]

    def __init__(self, W_1: Tensor, W_2: Tensor, gate: Tensor | None, pooled: bool, relu: bool) -> None:
        super().__init__()
        self.W_1 = nn.Parameter(W_1.clone())
        self.W_2 = nn.Parameter(W_2.clone())
        self.register_buffer("gate", None if gate is None else gate.clone())
        self.pooled = pooled
        self.relu = relu

    @abstractmethod
    def activity(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """The activity before the gate, linear in the weights: ``(batch, heads, ...)``."""

    def gate_activity(self, tokens: Tensor, gate: Tensor) -> Tensor:
        """The activity of the gate's weights: ``(batch, 1, ...)``."""
        return self.activity(tokens, gate.unsqueeze(0))

    def sigma(self, tokens: Tensor) -> Tensor:
        """The activity of ``W_1`` under the activation."""
        activity, gate = self.activity(tokens, self.W_1), self.gate
        if self.relu:
            return functional.relu(activity)
        if gate is None:
            return activity
        passes = self.gate_activity(tokens.double(), gate.double()) >= 0
        return activity * passes.to(activity.dtype)


class AbstractNeurons(AbstractHeads):
    """Heads whose rows have one entry: hidden neurons, read out by ``W_2``."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Batch, rows, outputs."""
        hidden = self.sigma(tokens)
        if self.pooled:
            hidden = hidden.mean(2, keepdim=True)
        return hidden.transpose(1, 2) @ self.W_2.squeeze(1)
