"""Effective rank of the tokens of one image by depth."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from vitscope.engine.reading.activation import ActivationKind, Every, FeatureMap
from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AbstractDiagnostic, Known, Scene, over_depth
from vitscope.engine.reading.fold import Means
from vitscope.measurement.quantity import Quantity
from vitscope.numerics.tokens import participation_rank

_RANK = Quantity(
    "rank",
    "Effective rank of the tokens",
    "dimensions",
    "In how many directions the patch tokens of one image differ.",
    "A fall to 1 or 2 in deep blocks is rank collapse; otherwise neither way is known to be better.",
)


@DIAGNOSTICS.add("token-rank")
@final
@dataclass(frozen=True)
class TokenRank(AbstractDiagnostic[FeatureMap]):
    r"""Effective rank (of order 2) of the centred patch tokens of one image, averaged over images.

    .. math:: r = \frac{(\sum_i \sigma_i^2)^2}{\sum_i \sigma_i^4}

    with the singular values of the centred tokens: the participation ratio, the exponential of the Renyi entropy of
    order 2 of the squared spectrum. It is at most Roy and Vetterli's effective rank (order 1, EUSIPCO 2007) and needs
    no decomposition. From 1 (differences along one line) to min(N - 1, C); 0 if all tokens are equal. Read after the
    last unit of each block. Cost: one Gram matrix per image and block.
    """

    name = "token-rank"
    title = "Effective rank of tokens"
    question = "Does it smooth or sharpen?"
    reads = ActivationKind.FEATURES
    every = Every.BLOCK
    references = (
        "Dong, Cordonnier and Loukas, Attention is not all you need, ICML 2021",
        "Roy and Vetterli, The effective rank, EUSIPCO 2007",
    )

    def observe(self, activation: FeatureMap) -> Mapping[str, Float[Tensor, "batch ..."]]:
        """The rank of every image's tokens; a map of one cell has none."""
        return {"rank": participation_rank(activation.centred)} if activation.cells.shape[1] > 1 else {}

    def conclude(self, means: Means, scene: Scene) -> xr.Dataset:
        """The rank over depth."""
        return over_depth(means, scene, (_RANK,))

    @classmethod
    def known_answers(cls) -> tuple[Known[FeatureMap], ...]:
        """Tokens on a line, on a centred square, and on a rectangle of sides 1 and 2."""
        line = torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0], [4.0, 8.0]])
        square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        cells = torch.stack([line, square + 5.0, square * torch.tensor([1.0, 2.0])])
        return (Known("1, 2 and 25/17", FeatureMap(cells, (2, 2)), {"rank": torch.tensor([1.0, 2.0, 25 / 17])}),)
