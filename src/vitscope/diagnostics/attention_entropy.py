"""Entropy of attention rows by layer and head."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from vitscope.engine.reading.activation import ActivationKind, AttentionRows, rows_with
from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AbstractDiagnostic, Known, Scene, over_depth
from vitscope.engine.reading.fold import Means
from vitscope.measurement.quantity import Quantity

_ENTROPY = Quantity(
    "entropy",
    "Attention entropy",
    "nats",
    "How widely a query spreads its attention: 0 is a single key, log(keys) is uniform.",
    axis="head",
)
_RELATIVE = Quantity(
    "relative_entropy",
    "Attention entropy / its maximum",
    "1",
    "Entropy as a share of log(keys), which makes windows of different size comparable; 1 is uniform averaging.",
    "Near 0 in many heads goes with unstable training (entropy collapse); otherwise neither way is known to be better.",
    axis="head",
)


@DIAGNOSTICS.add("attention-entropy")
@final
@dataclass(frozen=True)
class AttentionEntropy(AbstractDiagnostic[AttentionRows]):
    r"""Entropy of the attention of patch queries, in nats, averaged over queries, then over images.

    .. math:: H_q = -\sum_k A_{qk} \log A_{qk}, \qquad 0 \le H_q \le \log(\text{keys})

    All keys count, including prefix tokens. In a window, each query has the window's keys. Cost: four passes over the
    weights, without taking their logarithms.
    """

    name = "attention-entropy"
    title = "Attention entropy"
    question = "Where does it look?"
    reads = ActivationKind.ATTENTION
    references = ("Zhai et al., Stabilizing Transformer Training by Preventing Attention Entropy Collapse, ICML 2023",)

    def observe(self, activation: AttentionRows) -> Mapping[str, Float[Tensor, "batch ..."]]:
        """Mean entropy of each head, in nats and as a share of its maximum."""
        entropy = activation.mean_entropy.mean(1)
        keys = activation.weights.shape[-1]
        return {"entropy": entropy, "relative_entropy": entropy / math.log(keys)} if keys > 1 else {"entropy": entropy}

    def conclude(self, means: Means, scene: Scene) -> xr.Dataset:
        """Entropy over depth and head."""
        return over_depth(means, scene, (_ENTROPY, _RELATIVE))

    @classmethod
    def known_answers(cls) -> tuple[Known[AttentionRows], ...]:
        """Uniform attention, and attention of each token to itself."""
        weights = torch.stack([torch.full((4, 4), 0.25), torch.eye(4)])[None, None]
        expected = torch.tensor([[math.log(4), 0.0]])
        answer = {"entropy": expected, "relative_entropy": expected / math.log(4)}
        return (Known("log 4 nats and none", rows_with(weights, (2, 2)), answer),)
