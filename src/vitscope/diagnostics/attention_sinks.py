"""Attention that goes to prefix tokens and to patch tokens of high norm."""

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
from vitscope.measurement.bounds import Bounds, bounded_field
from vitscope.measurement.quantity import Quantity

_PREFIX = Quantity(
    "prefix_mass",
    "Attention to prefix tokens",
    "1",
    "Share of the patch queries' attention that goes to class, distillation and register tokens.",
    axis="head",
)
_HIGH = Quantity(
    "high_norm_mass",
    "Attention to high-norm patch tokens",
    "1",
    "Share of the patch queries' attention that goes to patches of outlier norm, which hold no local information.",
    "A large mass on a few such tokens is an artefact in attention maps; registers are the published remedy.",
    axis="head",
)
_TOKENS = Quantity(
    "high_norm_share",
    "Share of patch tokens of high norm",
    "1",
    "How many of the unit's patch keys have a norm above the threshold.",
)


@DIAGNOSTICS.add("attention-sinks")
@final
@dataclass(frozen=True)
class AttentionSinks(AbstractDiagnostic[AttentionRows]):
    """Attention mass of patch queries on prefix tokens, and on patch tokens of high norm.

    A patch token has high norm if its norm at the unit's input is more than ``factor`` times the median over its
    image's patch tokens. Darcet et al. use an absolute cut for one model; a ratio is used here because norms have no
    common scale between models. Averaged over queries, then over images, for each head; each lies in [0, 1]. A model
    without prefix tokens has no prefix mass. Cost: none beyond the mean row of each head.
    """

    name = "attention-sinks"
    title = "Attention sinks"
    question = "Where does it look?"
    reads = ActivationKind.ATTENTION
    references = (
        "Darcet et al., Vision Transformers Need Registers, ICLR 2024",
        "Xiao et al., Efficient Streaming Language Models with Attention Sinks, ICLR 2024",
    )

    factor: float = bounded_field(2.0, Bounds(above=0, most=1e6))
    """A norm above this many times the median is high."""

    def observe(self, activation: AttentionRows) -> Mapping[str, Float[Tensor, "batch ..."]]:
        """Both masses for each head, and the share of high-norm tokens."""
        attention, mean_row = activation.attention, activation.mean_row
        norms = activation.token_norms
        median = norms[:, attention.prefix :].median(dim=1, keepdim=True).values
        high = (norms > self.factor * median) & (torch.arange(norms.shape[1], device=norms.device) >= attention.prefix)
        high_keys = high[:, attention.key_tokens.clamp(min=0)] & activation.geometry.patch_keys
        share = high_keys.to(mean_row).sum((1, 2)) / activation.geometry.patch_keys.sum()
        found = {
            "high_norm_mass": (mean_row * high_keys[:, :, None]).sum(-1).mean(1),
            "high_norm_share": share,
        }
        if attention.prefix == 0:
            return found
        prefix = (attention.key_tokens >= 0) & (attention.key_tokens < attention.prefix)
        return {"prefix_mass": (mean_row * prefix[:, None]).sum(-1).mean(1), **found}

    def conclude(self, means: Means, scene: Scene) -> xr.Dataset:
        """Masses over depth and head, the share of tokens over depth."""
        return over_depth(means, scene, (_PREFIX, _HIGH, _TOKENS))

    @classmethod
    def known_answers(cls) -> tuple[Known[AttentionRows], ...]:
        """A class token with 0.6 of the mass, and the second of four patches, of more than twice the norm, with 0.3."""
        row = torch.tensor([0.6, 0.05, 0.3, 0.03, 0.02])
        weights = torch.full((1, 1, 1, 5, 5), 0.2)
        weights[0, 0, 0, 1:] = row
        norms = torch.tensor([[9.0, 1.0, 2.15, 1.0, 1.1]])  # median 1 of the patches, 1.1 of all tokens
        answer = {
            "prefix_mass": torch.tensor([[0.6]]),
            "high_norm_mass": torch.tensor([[0.3]]),
            "high_norm_share": torch.tensor([0.25]),
        }
        return (Known("0.6, 0.3, one of four", rows_with(weights, (2, 2), 1, token_norms=norms), answer),)
