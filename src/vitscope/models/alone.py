"""Whether an image's logits depend on the other images in its batch."""

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.measurement.errors import UserError
from vitscope.models.feed import quantised_layers
from vitscope.models.own_forward import allowed_gap, distance, probe_images
from vitscope.models.subject import Subject, Unwatched

_TOLERANCE = 1e-3
"""Largest difference, relative to the largest logit, that counts as rounding."""


def notes_on_batches(subject: Subject, images: Float[Tensor, "batch channels height width"]) -> tuple[str, ...]:
    """Notes if an image's logits depend on the rest of its batch, tested with the first image and noise.

    Quantised layers may scale their input by its range over the batch; a note says so. Raises ``UserError`` for any
    other such module, because its numbers would depend on the batch size. Both batches have two images, so that the
    same kernels run: a network of random weights can amplify their rounding without limit. Cost: two walks of two.
    """
    alone = images[:1]
    beside = probe_images((alone.shape[1], alone.shape[2], alone.shape[3]))[1:].to(alone)
    with torch.no_grad():
        logits = subject.anatomy.walk(torch.cat([alone, alone]), Unwatched())[:1]
        together = subject.anatomy.walk(torch.cat([alone, beside]), Unwatched())[:1]
    apart = distance(together, logits)
    if apart <= max(_TOLERANCE, allowed_gap(subject.module)):
        return ()
    if quantised_layers(subject.module):
        return (
            f"The logits of an image depend on what else is in its batch (by {apart:.2g} of the largest), because "
            "quantised layers scale by the range of a batch; they change with the batch size.",
        )
    raise UserError(
        f"{subject.name} gives an image other logits when another image is in its batch (they differ by {apart:.2g} of "
        "the largest), so its numbers would depend on the batch size; use statistics of each image, or fixed ones "
        "(BatchNorm with running statistics, attention with batch_first=True), and load it again."
    )
