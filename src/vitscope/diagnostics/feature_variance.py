"""Spatial variance of feature maps by depth."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from vitscope.engine.reading.activation import ActivationKind, FeatureMap
from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AbstractDiagnostic, Known, Scene, over_depth
from vitscope.engine.reading.fold import Means
from vitscope.measurement.quantity import Quantity
from vitscope.numerics.tokens import spatial_variance

_VARIANCE = Quantity(
    "variance",
    "Feature-map variance",
    "1",
    "How much a channel varies over the positions of one image. Averaging lowers it.",
)

_CHANGE = Quantity(
    "log_change",
    "Change of the log variance across the unit",
    "log",
    "Below 0 the unit lowers the variance, above 0 it raises it. Computed image by image, so its error is that of the "
    "change; the logarithm makes the units of a network comparable.",
)


@DIAGNOSTICS.add("feature-variance")
@final
@dataclass(frozen=True)
class FeatureVariance(AbstractDiagnostic[FeatureMap]):
    r"""Variance of a feature map over its positions, averaged over channels, then over images.

    .. math:: \frac1C \sum_c \frac{1}{N-1} \sum_{i=1}^{N} (x_{ic} - \bar x_c)^2

    Prefix tokens are dropped. At least 0, in squared units of the activations, so levels are comparable within a model
    but not between models. Cost: two passes over the map.
    """

    name = "feature-variance"
    title = "Feature-map variance"
    question = "Does it smooth or sharpen?"
    reads = ActivationKind.FEATURES
    references = ("Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figure 9",)
    changes = MappingProxyType({"log_variance": "log_change"})

    def observe(self, activation: FeatureMap) -> Mapping[str, Float[Tensor, "batch ..."]]:
        """The variance of every image's map; a map of one cell has none."""
        if activation.cells.shape[1] < 2:
            return {}
        variance = spatial_variance(activation.centred)
        return {"variance": variance, "log_variance": torch.where(variance > 0, variance.log(), torch.nan)}

    def conclude(self, means: Means, scene: Scene) -> xr.Dataset:
        """The variance over depth."""
        return over_depth(means, scene, (_VARIANCE, _CHANGE))

    @classmethod
    def known_answers(cls) -> tuple[Known[FeatureMap], ...]:
        """One channel with cells 1, 2, 3, 4 and one constant channel."""
        cells = torch.stack([torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.full((4,), 7.0)], -1)[None]
        return (
            Known("variances 5/3 and 0 average to 5/6", FeatureMap(cells, (2, 2)), {"variance": torch.tensor([5 / 6])}),
        )
