"""Oversmoothing: how alike the tokens of one image become with depth."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from vitscope.engine.reading.activation import ActivationKind, FeatureMap
from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AbstractDiagnostic, Known, Scene, over_depth
from vitscope.engine.reading.fold import Means
from vitscope.measurement.quantity import Quantity
from vitscope.numerics.tokens import token_cosine

_COSINE = Quantity(
    "cosine",
    "Mean cosine between patch tokens",
    "1",
    "1: all patch tokens point the same way, and the image's positions can no longer be distinguished.",
    "Near 1 in deep units is oversmoothing, which costs dense tasks most; a low value alone is no merit.",
)


@DIAGNOSTICS.add("token-similarity")
@final
@dataclass(frozen=True)
class TokenSimilarity(AbstractDiagnostic[FeatureMap]):
    r"""Mean cosine similarity between different patch tokens of one image, averaged over images.

    .. math:: \frac{1}{N(N-1)} \sum_{i \ne j} \frac{x_i \cdot x_j}{|x_i||x_j|}

    From -1/(N-1) to 1. Prefix tokens are dropped; the others are not centred. Cost: linear in the tokens, through the
    sum of the unit vectors.
    """

    name = "token-similarity"
    title = "Token similarity"
    question = "Does it smooth or sharpen?"
    reads = ActivationKind.FEATURES
    references = ("Wang et al., Anti-Oversmoothing in Deep Vision Transformers via the Fourier Domain, ICLR 2022",)

    def observe(self, activation: FeatureMap) -> Mapping[str, Float[Tensor, "batch ..."]]:
        """The mean cosine of every image; a map of one cell has none."""
        return {"cosine": token_cosine(activation.cells)} if activation.cells.shape[1] > 1 else {}

    def conclude(self, means: Means, scene: Scene) -> xr.Dataset:
        """The mean cosine over depth."""
        return over_depth(means, scene, (_COSINE,))

    @classmethod
    def known_answers(cls) -> tuple[Known[FeatureMap], ...]:
        """Orthogonal tokens, equal tokens, and two against one."""
        orthogonal, equal = torch.eye(4), torch.full((4, 4), 0.5)
        mixed = torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 5.0, 0, 0]])
        cells = torch.stack([orthogonal, equal, mixed])
        return (
            Known(
                "0, 1, and 2 equal pairs of 6", FeatureMap(cells, (2, 2)), {"cosine": torch.tensor([0.0, 1.0, 1 / 3])}
            ),
        )
