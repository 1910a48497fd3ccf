"""The weights of many shallow vision transformers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of one model for each trial: ``W_Q``, ``W_K``, ``W_V`` and ``W_O`` are trained, ``A`` is not."""

    query: Float[Tensor, "trials query_width dim"]
    key: Float[Tensor, "trials query_width dim"]
    value: Float[Tensor, "trials value_width dim"]
    output: Float[Tensor, "trials neurons value_width"]
    top: Float[Tensor, "trials neurons tokens"]

    @property
    def trained(self) -> tuple[Float[Tensor, "trials _ _"], ...]:
        """What a step changes: query, key, value, output."""
        return self.query, self.key, self.value, self.output

    @property
    def all(self) -> tuple[Float[Tensor, "trials _ _"], ...]:
        """Every field, in order."""
        return *self.trained, self.top

    def select(self, trials: Int64[Tensor, " chosen"]) -> "Weights":
        """A copy of these trials' weights."""
        return Weights(*(part.index_select(0, trials) for part in self.all))

    def to(self, dtype: torch.dtype, device: torch.device) -> "Weights":
        """The weights in this precision, on this device."""
        return Weights(*(part.to(device, dtype) for part in self.all))


def stack_trials(weights: Sequence[Weights]) -> Weights:
    """The weights of all trials, one after the other."""
    return Weights(*(torch.cat(parts) for parts in zip(*(one.all for one in weights), strict=True)))
