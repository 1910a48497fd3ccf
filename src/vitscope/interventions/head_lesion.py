"""Head lesions: single attention heads left out."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from vitscope.data import Images
from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.interventions.bypass import Mean, refuse_unknown, show_batches
from vitscope.measurement.errors import UserError
from vitscope.models.attention import Attention
from vitscope.models.edit import with_edit
from vitscope.models.feed import zero_image
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractAnatomy, AbstractEdit, AbstractObserver, Composition, Subject
from vitscope.models.unit import AbstractAttentionUnit
from vitscope.models.written import WRITTEN
from vitscope.numerics.precision import to_float64

Heads = tuple[tuple[int, tuple[int, ...]], ...]
"""Layers, each with some of its heads (from 0)."""


@INTERVENTIONS.add("head-lesion")
@WRITTEN.add("head-lesion")
@final
@dataclass(frozen=True)
class HeadLesion(AbstractIntervention, AbstractEdit):
    r"""Attention heads whose context, the weights times the values, is replaced by zero or by its mean over data.

    ``heads`` names layers, each with some of its heads (from 0): ``((1, (0, 2)),)``. With ``means``, one for each
    layer, a head gives its mean context over images, for every window and query; see :func:`mean_contexts`. The
    attention weights stay as they were, and diagnostics see them so. If a model mixes heads after the softmax (CaiT),
    a head is one of those that reach the projection.
    """

    heads: Heads
    means: tuple[Mean, ...] = ()
    name: ClassVar[str] = "head-lesion"
    title: ClassVar[str] = "Attention heads left out"
    references: ClassVar[tuple[str, ...]] = (
        "Michel, Levy and Neubig, Are Sixteen Heads Really Better than One?, NeurIPS 2019",
        "Bhojanapalli et al., Understanding Robustness of Transformers for Image Classification, ICCV 2021",
    )

    def __post_init__(self) -> None:
        if len({layer for layer, _ in self.heads}) != len(self.heads) or len(self.means) not in (0, len(self.heads)):
            raise UserError(
                f"A lesion of the heads {self.heads} with {len(self.means)} means: name each layer once and give "
                "one mean for each, or none."
            )

    def __call__(self, subject: Subject) -> Subject:
        """The subject without these heads."""
        if self.heads:
            counts = head_counts(subject)
            refuse_unknown(tuple(layer for layer, _ in self.heads), subject)
            for layer, heads in self.heads:
                _refuse_absent(subject.places[layer - 1].name, heads, counts.get(layer, 0))
        return with_edit(subject, self)

    def apply(self, anatomy: AbstractAnatomy) -> AbstractAnatomy:
        """The anatomy with these heads left out."""
        if not self.heads:
            return anatomy
        if not isinstance(anatomy, Composition):
            raise UserError(
                "The attention of a model without an adapter cannot be read, so no head can be left out; "
                "leave out whole blocks of it."
            )
        units = list(anatomy.units)
        for (layer, heads), mean in zip(self.heads, self.means or (None,) * len(self.heads), strict=True):
            unit = units[layer - 1]
            if not isinstance(unit, AbstractAttentionUnit):
                raise UserError(f"{unit.place.name} is not, or no longer, an attention unit, so it has no heads.")
            units[layer - 1] = WithoutHeads(unit.place, unit, heads, mean)
        return replace(anatomy, units=tuple(units))

    def only(self, layer: int, head: int) -> "HeadLesion":
        """The lesion of one of its heads, with its mean."""
        which = next(index for index, (known, _) in enumerate(self.heads) if known == layer)
        place = self.heads[which][1].index(head)
        means = (Mean(self.means[which].value[:, place : place + 1]),) if self.means else ()
        return HeadLesion(((layer, (head,)),), means)

    @classmethod
    def examples(cls) -> "tuple[HeadLesion, ...]":
        """One head of the first unit."""
        return (cls(((1, (1,)),)),)

    @classmethod
    @override
    def nothing(cls) -> "tuple[HeadLesion, ...]":
        return (cls(()),)


@final
@dataclass(frozen=True)
class WithoutHeads(AbstractAttentionUnit):
    """An attention unit whose ``heads`` contribute zero, or their mean."""

    unit: AbstractAttentionUnit
    heads: tuple[int, ...]
    mean: Mean | None

    @property
    @override
    def bypass(self) -> Callable[[Stream], Stream] | None:
        return self.unit.bypass

    @override
    def project(self, stream: Stream) -> Attention:
        return self.unit.project(stream)

    def branch(self, attention: Attention, context: Float[Tensor, "batch windows heads queries width"]) -> Tensor:
        """What the upstream attention module returns for the context without these heads."""
        _refuse_absent(self.place.name, self.heads, context.shape[2])
        context = context.clone()
        chosen = context[:, :, list(self.heads)]
        instead = 0.0 if self.mean is None else self.mean.like(chosen.shape[1:], chosen, self.place.name)
        context[:, :, list(self.heads)] = instead
        return self.unit.branch(attention, context)

    @override
    def finish(self, stream: Stream, branch: Tensor) -> Stream:
        return self.unit.finish(stream, branch)


def _refuse_absent(name: str, heads: tuple[int, ...], count: int) -> None:
    absent = next((head for head in heads if not 0 <= head < count), None)
    if absent is not None:
        have = f"heads 0 to {count - 1}" if count else "no attention that can be read"
        raise UserError(f"{name} has {have}; there is no head {absent} to leave out.")


def head_counts(subject: Subject) -> dict[int, int]:
    """How many heads each attention unit has, by layer. Cost: one forward pass of one image of zeros."""
    if not isinstance(subject.anatomy, Composition):
        return {}
    counts = _Counts()
    with torch.no_grad():
        subject.anatomy.walk(zero_image(subject.module, subject.preprocessing.shape), counts)
    return counts.found


@dataclass
class _Counts(AbstractObserver):
    found: dict[int, int] = field(default_factory=dict[int, int])

    def stream(self, layer: int, stream: Stream) -> None:
        pass

    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        self.found[layer] = attention.queries.shape[2]
        return attention.context()


def mean_contexts(subject: Subject, images: Images, heads: Heads, batch_size: int = 32) -> HeadLesion:
    """The lesion that replaces these heads by the means of their contexts over the images: one pass, in float64."""
    HeadLesion(heads)(subject)  # refuses heads that do not exist
    sums = _ContextSums(dict(heads))
    count = show_batches(subject, images, batch_size, lambda pixels: subject.anatomy.walk(pixels, sums))
    return HeadLesion(heads, tuple(Mean(sums.total[layer] / count) for layer, _ in heads))


@dataclass
class _ContextSums(AbstractObserver):
    """The sums over images of these heads' contexts."""

    heads: dict[int, tuple[int, ...]]
    total: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def stream(self, layer: int, stream: Stream) -> None:
        pass

    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        context = attention.context()
        if layer in self.heads:
            sums = to_float64(context[:, :, list(self.heads[layer])]).sum(0)
            self.total[layer] = self.total[layer] + sums if layer in self.total else sums
        return context
