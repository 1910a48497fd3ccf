"""Numbers that are not finite: which weights hold them, in which images they turn up, and after which layer first."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from typing_extensions import override

from vitscope.data import Images
from vitscope.data.batch import Batch
from vitscope.data.gallery import evenly_spaced
from vitscope.engine.reading.failure import report_failures
from vitscope.measurement.errors import UserError
from vitscope.models.attention import Attention
from vitscope.models.feed import input_like
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractObserver, Subject, Unwatched


def wanting_weights(module: nn.Module) -> tuple[str, ...]:
    """Which weights hold numbers that are not finite, and how many. Cost: one pass over the weights.

    Weights are the parameters and the stored buffers, such as the statistics of batch norm; in buffers minus infinity
    is a mask.
    """
    stored, found = module.state_dict().keys(), list[str]()
    for name, weight in (*module.named_parameters(), *module.named_buffers()):
        if not weight.is_floating_point() or name not in stored:
            continue
        wrong = ~weight.detach().isfinite()
        if not isinstance(weight, nn.Parameter):
            wrong &= weight != -torch.inf
        if count := int(wrong.sum()):
            found.append(f"{count:,} of {weight.numel():,} numbers in {name}")
    return tuple(found)


def refuse_if_silent(subject: Subject, images: Images, weights: Sequence[str]) -> None:
    """Raise ``UserError`` if the logits of all of a few evenly spaced images predict nothing.

    ``weights`` describes the weights that are not finite. Cost: a forward pass of up to eight images.
    """
    some = images.take(np.array(evenly_spaced(len(images))))
    device, tried = input_like(subject.module).device, 0
    for batch in some.batches(subject.preprocessing.transform, len(some)):
        if len(batch.indices):
            with torch.no_grad(), report_failures(subject, some, batch):
                logits = subject.anatomy.walk(batch.pixels.to(device), Unwatched())
            if not bool(unpredicting(logits, subject.class_count).all()):
                return
            tried += len(batch.indices)
    if tried:
        more = f" and {len(weights) - 3} more weights" if len(weights) > 3 else ""
        many = f"none of the {tried} images tried has" if tried > 1 else "the only image has no"
        raise UserError(
            f"{subject.name} has weights that are not finite ({'; '.join(weights[:3])}{more}), and {many} finite "
            "logits; load the weights of an earlier step, or train again with a lower learning rate."
        )


def unpredicting(logits: Float[Tensor, "batch outputs"], classes: int) -> Bool[Tensor, " batch"]:
    """The images whose logits predict nothing: they hold a NaN, or their largest is not finite.

    A single logit of minus infinity is a masked class. Without a classifier every output must be finite.
    """
    values = logits.flatten(1).float()
    return ~values.logsumexp(1).isfinite() if classes else ~values.isfinite().all(1)


@dataclass(frozen=True)
class Wanting:
    """Images whose first numbers that are not finite come after the same ``layer``.

    Layer 0 is the stem; one past the last unit are the logits. ``silent`` says whether their logits predict nothing.
    """

    layer: int
    silent: bool
    images: int
    example: str

    def describe(self, subject: Subject) -> str:
        """A sentence on these images."""
        units = [f"after layer {i} ({place.name})" for i, place in enumerate(subject.places, start=1)]
        where = ["after the stem", *units, "in the logits"][self.layer]
        many = f"{self.images:,} image{'s' * (self.images > 1)} (such as {self.example})"
        consequence = (
            "give logits that are not finite: they count as wrong, and losses leave them out"
            if self.silent
            else "still give finite logits"
        )
        return f"{many} {consequence}; the first numbers that are not finite are {where}."


def merge_wanting(found: Iterable[Wanting]) -> tuple[Wanting, ...]:
    """Merge those of the same layer and consequence; most images first."""
    kinds: dict[tuple[int, bool], Wanting] = {}
    for one in found:
        held = kinds.get((one.layer, one.silent))
        total = one.images + (held.images if held else 0)
        kinds[one.layer, one.silent] = Wanting(one.layer, one.silent, total, held.example if held else one.example)
    return tuple(sorted(kinds.values(), key=lambda one: (-one.images, one.layer)))


@dataclass
class _First(AbstractObserver):
    """Records for each image the first layer after which a number is not finite."""

    layers: list[int | None]

    def stream(self, layer: int, stream: Stream) -> None:
        """Check each image's values."""
        for image, fine in enumerate(stream.values.flatten(1).isfinite().all(1).tolist()):
            if not fine and self.layers[image] is None:
                self.layers[image] = layer

    @override
    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        return attention.context()


def wanting(subject: Subject, images: Images, batch: Batch) -> tuple[Wanting, ...]:
    """Which images of a batch give numbers that are not finite, and after which layer first. Cost: a further walk."""
    device = input_like(subject.module).device
    names = [images.pictures.name(int(images.positions[index])) for index in batch.indices.tolist()]
    first = _First([None] * len(names))
    with torch.no_grad():
        silent = unpredicting(subject.anatomy.walk(batch.pixels.to(device), first), subject.class_count).tolist()
    last = len(subject.places) + 1
    return merge_wanting(
        Wanting(last if layer is None else layer, quiet, 1, name)
        for layer, quiet, name in zip(first.layers, silent, names, strict=True)
        if quiet or layer is not None
    )
