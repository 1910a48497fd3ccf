"""What a candidate is judged by: what it says of each image, and what a forward pass costs."""

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from vitscope.data import Images
from vitscope.engine.measure import measure
from vitscope.engine.plan import Plan
from vitscope.engine.reading.operations import count_operations
from vitscope.engine.reading.scores import SCORES
from vitscope.measurement.estimate import Estimate
from vitscope.measurement.exact import PairedShare
from vitscope.measurement.paired import change_of_means, change_of_shares
from vitscope.models.compact import compact
from vitscope.models.feed import zero_image
from vitscope.models.subject import Subject


@dataclass(frozen=True, eq=False)
class Figures:
    """Which images are right, their negative log-likelihood and the confidence; operations an image, and weights.

    Operations are multiplications and additions in matrix products and convolutions, fused attention included.
    """

    right: Bool[np.ndarray, " images"]
    loss: Float[np.ndarray, " images"]
    confidence: Float[np.ndarray, " images"]
    operations: int
    weights: int

    def change_of_accuracy(self, before: "Figures") -> PairedShare:
        """The change of top-1 accuracy from ``before``, image by image."""
        return change_of_shares(before.right, self.right)

    def change_of_loss(self, before: "Figures") -> Estimate:
        """The change of the mean negative log-likelihood from ``before``, image by image, in nats."""
        return change_of_means(before.loss, self.loss)

    def to_bytes(self) -> bytes:
        """As an ``.npz`` file."""
        file = io.BytesIO()
        np.savez_compressed(file, **vars(self))
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Figures":
        """The figures whose ``to_bytes`` these are."""
        with np.load(io.BytesIO(content), allow_pickle=False) as held:
            right, loss, confidence = (held[name] for name in ("right", "loss", "confidence"))
            return cls(right, loss, confidence, int(held["operations"]), int(held["weights"]))


def judge_on(subject: Subject, images: Images, batch_size: int) -> Figures:
    """The subject's figures on these images. Cost: one pass over them, and two forward passes to count its cost."""
    scores = measure(subject, images, "accuracy", Plan(batch_size)).tree[SCORES].to_dataset()
    made = compact(subject)
    with count_operations() as found:
        made(zero_image(made.module, subject.preprocessing.shape))
    return Figures(
        right=(scores["predicted"] == scores["label"]).values,
        loss=scores["loss"].values.astype(np.float64),
        confidence=scores["confidence"].values.astype(np.float64),
        operations=found.total,
        weights=sum(one.numel() for one in made.parameters()),
    )


def expected_calibration_error(figures: Figures, bins: int = 15) -> float:
    """The mean over equally filled bins of the distance between confidence and accuracy (Guo et al., ICML 2017)."""
    order = np.argsort(figures.confidence, kind="stable")
    parts = np.array_split(order, bins)
    apart = [
        abs(figures.right[part].mean() - figures.confidence[part].mean()) * len(part) for part in parts if len(part)
    ]
    return float(sum(apart) / len(order))
