"""Whether the model's confidence matches its accuracy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vitscope.engine.reading.activation import ActivationKind, Predictions
from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AbstractDiagnostic, Known, Scene, scalars
from vitscope.engine.reading.fold import Means
from vitscope.measurement.bounds import Bounds, bounded_field
from vitscope.measurement.quantity import Quantity, label_quantity

_ECE = Quantity(
    "ece",
    "Expected calibration error",
    "1",
    "Mean distance between confidence and accuracy, over bins.",
    "Smaller is better.",
)
_SIGNED = Quantity(
    "overconfidence",
    "Mean confidence - accuracy",
    "1",
    "Positive: the model is more confident than accurate; negative: it is right more often than its confidence says.",
    "Closer to 0 is better.",
)
_ACCURACY = Quantity(
    "bin_accuracy",
    "Accuracy by confidence",
    "1",
    "Accuracy of the images in a bin of confidence.",
    "Closer to the bin's confidence is better.",
)
_CONFIDENCE = Quantity(
    "bin_confidence", "Mean confidence in the bin", "1", "Mean largest probability of the bin's images."
)
_SHARE = Quantity(
    "bin_share",
    "Share of images in the bin",
    "1",
    "Share of the images whose confidence falls into the bin.",
    is_share=True,
)


@DIAGNOSTICS.add("calibration")
@final
@dataclass(frozen=True)
class Calibration(AbstractDiagnostic[Predictions]):
    r"""Expected calibration error with its reliability bins.

    .. math:: \text{ECE} = \sum_b \left| \frac1n \sum_{i \in b} (c_i - a_i) \right|

    with the confidence c (largest probability) and a = 1 if the prediction is right, else 0, over bins of equal width.
    From 0 to 1. The standard error is that of the delta method at the signs of the bins. Sampling biases the estimate
    upwards, more so the fewer images a bin holds. The same sum without absolute values is the overconfidence. Images
    whose logits are not finite are left out.
    """

    name = "calibration"
    title = "Calibration"
    question = "Is it right, and does it know?"
    reads = ActivationKind.PREDICTIONS
    nonlinear = frozenset({"ece", "bin_accuracy", "bin_confidence"})
    references = ("Guo et al., On Calibration of Modern Neural Networks, ICML 2017",)

    bins: int = bounded_field(10, Bounds(1, 10_000))
    """Bins of equal width over confidence 0 to 1."""

    def observe(self, activation: Predictions) -> Mapping[str, Float[Tensor, "batch ..."]]:
        """Each image's bin, and its confidence, correctness and their difference in that bin."""
        best = activation.log_probabilities.max(1)
        confidence, right = best.values.exp(), activation.right.float()
        index = (confidence.nan_to_num() * self.bins).ceil().long().sub(1).clamp(0, self.bins - 1)
        member = functional.one_hot(index, self.bins).to(confidence)
        member = torch.where(activation.finite[:, None], member, torch.nan)
        return {
            "overconfidence": confidence - right,
            "bin_share": member,
            "gap": member * (confidence - right)[:, None],
            "bin_confidence": torch.where(member > 0, confidence[:, None], torch.nan),
            "bin_accuracy": torch.where(member > 0, right[:, None], torch.nan),
        }

    def conclude(self, means: Means, scene: Scene) -> xr.Dataset:
        """The error, the overconfidence, and the reliability bins."""
        gap, error, count = means.mean(0, "gap"), means.error(0, "gap"), means.count(0, "gap")
        # The bins are disjoint: cov(g_b, g_c) = -mean_b mean_c, so only the variances need to be stored.
        signed = np.abs(gap)
        variance = (error**2).sum() - (signed.sum() ** 2 - (signed**2).sum()) / max(count[0] - 1, 1)
        middles = (np.arange(self.bins) + 0.5) / self.bins
        ece = (np.asarray(signed.sum()), np.asarray(math.sqrt(max(variance, 0.0))), np.asarray(count[0]))
        result = label_quantity(_ECE, (), *ece, {}).assign(scalars(means, (_SIGNED,)))
        for quantity in (_ACCURACY, _CONFIDENCE, _SHARE):
            parts = means.parts(0, quantity.name)
            result = result.assign(label_quantity(quantity, ("confidence_bin",), *parts, {"confidence_bin": middles}))
        return result

    @classmethod
    def known_answers(cls) -> tuple[Known[Predictions], ...]:
        """Four predictions of confidence 3/4 in one bin, three right and one wrong."""
        logits = torch.tensor([[math.log(3.0), 0.0]]).repeat(4, 1)
        labels = torch.tensor([0, 0, 0, 1])
        gap = torch.zeros(4, 10)
        gap[:, 7] = torch.tensor([-0.25, -0.25, -0.25, 0.75])
        return (
            Known(
                "3/4 sure and 3/4 right: gaps in the bin (0.7, 0.8] cancel", Predictions(logits, labels), {"gap": gap}
            ),
        )
