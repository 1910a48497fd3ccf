"""How often the model is right, and how large its loss is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vitscope.engine.reading.activation import ActivationKind, Predictions
from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AbstractDiagnostic, Known, Scene, scalars
from vitscope.engine.reading.fold import Means
from vitscope.measurement.quantity import Quantity

_TOP1 = Quantity(
    "top1",
    "Top-1 accuracy",
    "1",
    "Share of images whose most probable class is the true one.",
    "Larger is better.",
    is_share=True,
)
_TOP5 = Quantity(
    "top5",
    "Top-5 accuracy",
    "1",
    "Share of images whose true class is among the five most probable.",
    "Larger is better.",
    is_share=True,
)
_AMONG = Quantity(
    "top1_present",
    "Top-1 accuracy among the classes that occur",
    "1",
    "Share of images whose true class is the most probable of the classes that occur in these images.",
    "Larger is better; fewer classes make it easier.",
    is_share=True,
)
_NLL = Quantity(
    "nll", "Negative log-likelihood", "nats", "Minus the log probability of the true class.", "Smaller is better."
)
_BRIER = Quantity(
    "brier",
    "Brier score",
    "1",
    "Squared distance between the predicted probabilities and the true class, 0 to 2.",
    "Smaller is better.",
)


@DIAGNOSTICS.add("accuracy")
@final
@dataclass(frozen=True)
class Accuracy(AbstractDiagnostic[Predictions]):
    r"""Top-1 and top-5 accuracy, negative log-likelihood and Brier score.

    .. math:: \text{NLL} = -\log p_y, \qquad \text{Brier} = \sum_c (p_c - 1\{c = y\})^2

    If images are augmented with soft labels, the NLL is the cross-entropy with these labels. A tie for the largest
    logit goes to the lower class. With fewer than six classes there is no top-5 accuracy. If only some of the model's
    classes occur in the images, top-1 accuracy among those is given too. An image whose logits are not finite counts
    as wrong and is left out of the losses.
    """

    name = "accuracy"
    title = "Accuracy"
    question = "Is it right, and does it know?"
    reads = ActivationKind.PREDICTIONS
    references = ("Brier, Verification of Forecasts Expressed in Terms of Probability, Monthly Weather Review 1950",)

    def observe(self, activation: Predictions) -> Mapping[str, Float[Tensor, "batch ..."]]:
        """Whether each image is classified correctly, and its losses."""
        log_probabilities, labels = activation.log_probabilities, activation.labels
        classes = log_probabilities.shape[1]
        truth = functional.one_hot(labels, classes).to(log_probabilities)
        found = {
            "top1": activation.right.float(),
            "nll": activation.loss,
            "brier": (log_probabilities.exp() - truth).square().sum(1),
        }
        if activation.present is not None:
            among = activation.present[log_probabilities[:, activation.present].argmax(1)]
            found["top1_present"] = ((among == labels) & activation.finite).float()
        if classes > 5:
            within = (log_probabilities.topk(5).indices == labels[:, None]).any(1)
            found["top5"] = (within & activation.finite).float()
        return found

    def conclude(self, means: Means, scene: Scene) -> xr.Dataset:
        """The means over all images."""
        return scalars(means, (_TOP1, _TOP5, _AMONG, _NLL, _BRIER))

    @classmethod
    def known_answers(cls) -> tuple[Known[Predictions], ...]:
        """Probabilities 3/4 and 1/4, logits that are not finite, and a class that does not occur."""
        logits = torch.tensor([[math.log(3.0), 0.0], [math.log(3.0), 0.0]])
        answer = {
            "top1": torch.tensor([1.0, 0.0]),
            "nll": torch.tensor([math.log(4 / 3), math.log(4)]),
            "brier": torch.tensor([0.125, 1.125]),
        }
        nothing = torch.tensor([[math.nan, 0.0], [0.0, math.log(3.0)]])
        three = torch.tensor([[0.0, 2.0, 1.0], [1.0, 2.0, 0.0]])
        among = Predictions(three, torch.tensor([2, 2]), torch.tensor([0, 2]))
        return (
            Known("3/4 right, 3/4 wrong", Predictions(logits, torch.tensor([0, 1])), answer),
            Known(
                "logits that are not finite are wrong, whatever the label",
                Predictions(nothing, torch.tensor([0, 1])),
                {"top1": torch.tensor([0.0, 1.0]), "nll": torch.tensor([math.nan, math.log(4 / 3)])},
            ),
            Known(
                "class 1 wins both times but does not occur; without it the first is right",
                among,
                {"top1": torch.zeros(2), "top1_present": torch.tensor([1.0, 0.0])},
            ),
        )
