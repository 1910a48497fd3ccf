"""Classification: the cross-entropy between the targets and the model's probabilities."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vitscope.measurement.quantity import Quantity
from vitscope.training.objective import OBJECTIVES, AbstractObjective, Forward, TrainingBatch

ACCURACY = Quantity("accuracy", "accuracy", "1", "Share of the images whose class is predicted.", "Larger is better.")
NLL = Quantity(
    "nll",
    "negative log-likelihood",
    "nat",
    "Mean cross-entropy of the images' classes, without augmentation.",
    "Smaller is better.",
)


def class_figures(logits: Float[Tensor, "batch classes"], labels: Tensor) -> dict[str, Float[Tensor, " batch"]]:
    """Whether each image's class is predicted, and its cross-entropy."""
    right = (logits.argmax(1) == labels).to(logits)
    return {"accuracy": right, "nll": functional.cross_entropy(logits, labels, reduction="none")}


@OBJECTIVES.add("classification")
@final
@dataclass(frozen=True)
class Classification(AbstractObjective):
    r"""Cross-entropy of the images' classes.

    .. math:: L = -\frac1B \sum_i \sum_c t_{ic} \log p_{ic}

    with the targets t after Mixup, CutMix and label smoothing. Images need labels.
    """

    name = "classification"
    figures = (ACCURACY, NLL)
    larger = True

    def loss(self, forward: Forward, batch: TrainingBatch) -> Float[Tensor, ""]:
        """The mean cross-entropy of the targets."""
        assert batch.targets is not None, "images without labels are refused earlier"
        return functional.cross_entropy(forward(batch.images), batch.targets)

    def evaluate(self, forward: Forward, batch: TrainingBatch) -> Mapping[str, Float[Tensor, " batch"]]:
        """Accuracy and negative log-likelihood."""
        assert batch.labels is not None, "images without labels are refused earlier"
        return class_figures(forward(batch.images).float(), batch.labels)
