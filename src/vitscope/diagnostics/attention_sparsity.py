"""How few keys hold most of the attention."""

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
from vitscope.measurement.bounds import COUNT, Bounds, bounded_field
from vitscope.measurement.quantity import Quantity
from vitscope.numerics.attention import keys_for_mass

_SHARE = Quantity(
    "keys_share",
    "Share of keys that hold the mass",
    "1",
    "The smallest share of a query's keys that together hold 90 % (or the chosen mass) of its attention.",
    "Small means that many tokens get hardly any attention, a hint that they could be dropped; it is not proof.",
    axis="head",
)
_TOP = Quantity(
    "top_mass",
    "Mass of the largest weights",
    "1",
    "Share of a query's attention that its 10 (or the chosen number of) largest weights hold.",
    axis="head",
)


@DIAGNOSTICS.add("attention-sparsity")
@final
@dataclass(frozen=True)
class AttentionSparsity(AbstractDiagnostic[AttentionRows]):
    r"""Share of keys that hold 90 % of a query's attention, and the mass of its top-k keys.

    .. math:: s_q = \frac1K \min\{m : \textstyle\sum_{i \le m} A_{q(i)} \ge \mu\}, \qquad
              t_q = \textstyle\sum_{i \le k} A_{q(i)}

    with the weights of a row in descending order. Averaged over patch queries, then over images, for each head. Both
    lie in (0, 1]; uniform attention has s = mu and t = k / K. Cost: one sort of at most ``queries`` evenly spread rows
    of each window.
    """

    name = "attention-sparsity"
    title = "Attention sparsity"
    question = "Where does it look?"
    reads = ActivationKind.ATTENTION
    references = (
        "Li et al., A Theoretical Understanding of Shallow Vision Transformers, ICLR 2023 (sparse attention)",
    )

    mass: float = bounded_field(0.9, Bounds(above=0, most=1))
    """The attention mass that the counted keys must hold."""
    top: int = bounded_field(10, COUNT)
    """How many of the largest weights are summed."""
    queries: int = bounded_field(70, COUNT)
    """Most rows of a window, evenly spread, that are sorted; 65 of the 196 of a ViT at 224 pixels."""

    def observe(self, activation: AttentionRows) -> Mapping[str, Float[Tensor, "batch ..."]]:
        """The share of keys and the top mass for each head."""
        sample, keys = activation.sample(self.queries), activation.weights.shape[-1]
        share = keys_for_mass(sample.ordered, self.mass).to(sample.weights) / keys
        top = sample.ordered[..., -self.top :].sum(-1)
        return {"keys_share": sample.over_queries(share), "top_mass": sample.over_queries(top)}

    def conclude(self, means: Means, scene: Scene) -> xr.Dataset:
        """Both quantities over depth and head."""
        return over_depth(means, scene, (_SHARE, _TOP))

    @classmethod
    def known_answers(cls) -> tuple[Known[AttentionRows], ...]:
        """Sixteen keys: attention to one, to all alike, and 0.85 to one with 0.01 to each of the others."""
        alone, alike = torch.eye(16), torch.full((16, 16), 1 / 16)
        one = torch.full((16, 16), 0.01)
        one[:, 3] = 0.85
        weights = torch.stack([alone, alike, one])[None, None]
        answer = {
            "keys_share": torch.tensor([[1 / 16, 15 / 16, 6 / 16]]),
            "top_mass": torch.tensor([[1.0, 10 / 16, 0.94]]),
        }
        return (Known("1, 15 and 6 of 16 keys; 0.85 + 9 x 0.01", rows_with(weights, (4, 4)), answer),)
