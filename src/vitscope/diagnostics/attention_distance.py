"""Mean distance over which attention reaches, in pixels."""

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

_DISTANCE = Quantity(
    "distance",
    "Attention distance",
    "pixels",
    "How far from its own patch a query attends on average; small is local, like a convolution.",
    axis="head",
)
_UNIFORM = Quantity(
    "uniform_distance",
    "Attention distance of uniform attention",
    "pixels",
    "What the distance would be if every patch key of the window got the same weight.",
)


@DIAGNOSTICS.add("attention-distance")
@final
@dataclass(frozen=True)
class AttentionDistance(AbstractDiagnostic[AttentionRows]):
    r"""Mean distance in pixels between a patch query and the patch keys it attends to.

    .. math:: d_q = \frac{\sum_{k \in \text{patches}} A_{qk}\,|r_q - r_k|}{\sum_{k \in \text{patches}} A_{qk}}

    r is the centre of a patch in the model's input image. Attention to prefix tokens and padded keys is left out and
    the rest renormalised. Averaged over queries, then over images, for each head. Class-attention units have no patch
    query and so no distance. Cost: two passes over the weights.
    """

    name = "attention-distance"
    title = "Attention distance"
    question = "Where does it look?"
    reads = ActivationKind.ATTENTION
    references = (
        "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, figure 7",
        "Park et al., What Do Self-Supervised Vision Transformers Learn?, ICLR 2023",
    )

    def observe(self, activation: AttentionRows) -> Mapping[str, Float[Tensor, "batch ..."]]:
        """Mean distance for each head, and for uniform attention in the same windows."""
        geometry = activation.geometry
        if not bool(geometry.patch_queries.any()):
            return {}
        reached = torch.mul(activation.weights, geometry.distances[:, None], out=activation.scratch).sum(-1)
        mass = activation.patch_mass.clamp(min=torch.finfo(reached.dtype).tiny)
        uniform = geometry.distances.sum(-1) / geometry.patch_keys.sum(-1, keepdim=True).clamp(min=1)
        alike = activation.over_queries(uniform[:, None].expand(mass.shape))
        return {"distance": activation.over_queries(reached / mass), "uniform_distance": alike[:, 0]}

    def conclude(self, means: Means, scene: Scene) -> xr.Dataset:
        """Distance over depth and head."""
        return over_depth(means, scene, (_DISTANCE, _UNIFORM))

    @classmethod
    def known_answers(cls) -> tuple[Known[AttentionRows], ...]:
        """Attention to itself, uniform attention, and 3/4 to the class token with the rest to the neighbour."""
        uniform = (1 + 1 + 2**0.5) / 4 * 16
        plain = torch.stack([torch.eye(4), torch.full((4, 4), 0.25)])[None, None]
        swap = torch.tensor([[0, 1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1.0], [0, 0, 1.0, 0]])
        classed = torch.full((1, 1, 1, 5, 5), 0.2)
        classed[0, 0, 0, 1:] = torch.cat([torch.full((4, 1), 0.75), swap * 0.25], 1)
        return (
            Known(
                "16-pixel patches of a 2 x 2 grid: 0, and (16 + 16 + 16 sqrt 2) / 4",
                rows_with(plain, (2, 2), cell=16),
                {"distance": torch.tensor([[0.0, uniform]]), "uniform_distance": torch.tensor([uniform])},
            ),
            Known(
                "the class token's three quarters do not count; the rest goes one patch to the side",
                rows_with(classed, (2, 2), prefix=1, cell=8),
                {"distance": torch.tensor([[8.0]])},
            ),
        )
