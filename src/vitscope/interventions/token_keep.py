"""Only a share of the patch tokens continues; the others are removed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import final

from jaxtyping import Float, Int, Num
from torch import Tensor
from typing_extensions import override

from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.interventions.token_ranking import PIXELS, AbstractRanking, AtRandom, ByAttention, ByNorm, Reads, Worst
from vitscope.interventions.token_unit import (
    AbstractTokenUnit,
    attention_among,
    attention_from,
    first_highest,
    innermost,
    refuse_keeping_after_merging,
    refuse_map,
    refuse_whole_grid,
    take_patches,
)
from vitscope.measurement.bounds import COUNT, bounded_field
from vitscope.measurement.errors import UserError
from vitscope.models.attention import Attention
from vitscope.models.edit import with_edit
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractAnatomy, AbstractEdit, Composition, Subject
from vitscope.models.unit import AbstractAttentionUnit
from vitscope.models.written import WRITTEN


@INTERVENTIONS.add("token-keep")
@WRITTEN.add("token-keep")
@final
@dataclass(frozen=True)
class TokenKeep(AbstractIntervention):
    """From a unit on, only a share of the patch tokens continues; the others are removed and computed no further.

    If ``n`` patches enter unit ``layer`` (numbered from 1), ``max(1, round(keep n))`` are kept: those of the largest
    score ``by`` a ranking, among equals the first; they stay in their order. Prefix tokens (class, distillation,
    registers) always stay. Positions stay with their tokens: embeddings were added before, rotary angles and relative
    position biases are taken at the cells that are kept. If the model averages patches at its end, it averages those
    that are left.

    With ``ByAttention()`` patches are ranked by the first attention unit at or after ``layer``, applied to all tokens
    that enter ``layer``; if that is the unit itself, its queries, keys and values are computed once. Other rankings are
    ``ByNorm()``, ``AtRandom(seed)``, ``ByMask(scores)``, ``ByPixels(function)`` (an oracle that knows the image), and
    ``Worst(ranking)``, which keeps what the ranking would remove. Several at different layers compose: each keeps its
    share of what is left.

    Cost: from the unit on, that of a model with the remaining tokens; in the unit itself, the projections of all tokens
    if its own attention ranks them. Feature maps and attention from the unit on are not read, since patches no longer
    fill the grid. Refused if a later unit needs the whole grid: convolution, downsampling, windows.
    """

    name = "token-keep"
    title = "Patch tokens kept"
    references = (
        "Liang et al., Not All Patches are What You Need: Expediting Vision Transformers via Token Reorganizations, "
        "ICLR 2022",
    )

    keep: float | int = 0.5
    layer: int = bounded_field(1, COUNT)
    by: AbstractRanking = field(default_factory=ByAttention)

    def __post_init__(self) -> None:
        if not 0 <= self.keep <= 1:
            raise UserError(f"keep is {self.keep:g}; it is the share of the patches kept, from 0 to 1.")
        super().__post_init__()

    def __call__(self, subject: Subject) -> Subject:
        """The subject with fewer tokens. Raises ``UserError`` naming the unit that does not allow it."""
        return with_edit(subject, Keeping(self))

    @classmethod
    def examples(cls) -> "tuple[TokenKeep, ...]":
        """Every ranking that needs no input from the user, at attention and MLP units."""
        rankings = (ByAttention(), ByNorm(), AtRandom(1), Worst(ByAttention()))
        return tuple(cls(0.4, layer, by) for layer, by in zip((1, 2, 2, 3), rankings, strict=True))

    @classmethod
    def nothing(cls) -> "tuple[TokenKeep, ...]":
        """All tokens are kept."""
        return cls(1.0, 1), cls(1.0, 2, AtRandom(1))

    @property
    @override
    def settings(self) -> Mapping[str, object]:
        return {"intervention": self.name, "keep": self.keep, "layer": self.layer, "by": self.by.label}


def kept_count(keep: float | int, patches: int) -> int:
    """How many of ``patches`` patches are kept."""
    return max(1, round(keep * patches))


@WRITTEN.add("keeping")
@final
@dataclass(frozen=True)
class Keeping(AbstractEdit):
    """The edit of a walk that carries out ``keep``."""

    keep: TokenKeep

    def apply(self, anatomy: AbstractAnatomy) -> AbstractAnatomy:
        """The anatomy with a choice of tokens before the layer's unit. Raises ``UserError`` if it allows none."""
        ranking, layer = self.keep.by, self.keep.layer
        doing = f"TokenKeep by {ranking.label}"
        anatomy = refuse_whole_grid(anatomy, layer, doing)
        reader = self._reader(anatomy, doing) if ranking.reads is Reads.ATTENTION else None
        if self.keep.keep == 1:
            return anatomy
        unit = anatomy.units[layer - 1]
        chosen = KeepTokens(unit.place, unit, self.keep.keep, ranking, reader)
        units = (*anatomy.units[: layer - 1], chosen, *anatomy.units[layer:])
        refuse_keeping_after_merging(units)
        stem = anatomy.stem if ranking.reads is not Reads.PIXELS else WithPixels(anatomy.stem)
        return replace(anatomy, stem=stem, units=units)

    def _reader(self, anatomy: Composition, doing: str) -> AbstractAttentionUnit:
        reader = innermost(anatomy.units[attention_from(anatomy, self.keep.layer, doing) - 1])
        assert isinstance(reader, AbstractAttentionUnit), "attention_from returns an attention unit"
        return reader


@final
@dataclass(frozen=True)
class WithPixels:
    """The stem, whose stream carries the images along."""

    stem: Callable[[Tensor], Stream]

    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> Stream:
        """The stream after the stem."""
        stream = self.stem(images)
        return replace(stream, carried={**stream.carried, PIXELS: images})


@final
@dataclass(frozen=True)
class KeepTokens(AbstractTokenUnit):
    """A choice of tokens, then ``inner``; ``reader`` is the unit whose attention ranks them, if any."""

    keep: float | int
    ranking: AbstractRanking
    reader: AbstractAttentionUnit | None

    @property
    def bypass(self) -> Callable[[Stream], Stream] | None:
        """The choice alone, if the unit inside can be left out."""
        inner = self.inner.bypass
        return None if inner is None else _WithoutUnit(self, inner)

    def __call__(self, stream: Stream) -> Stream:
        """The stream after the unit, with the tokens that are kept."""
        refuse_map(stream, self)
        attention = None if self.reader is None else self.reader.project(stream)
        chosen = self.choose(stream, attention)
        left = take_patches(stream, chosen)
        if self.reader is None or attention is None or self.inner != self.reader:
            return self.inner(left)
        fewer = attention_among(attention, chosen)
        return self.reader.finish(left, self.reader.branch(fewer, fewer.context()))

    def choose(self, stream: Stream, attention: Attention | None) -> Int[Tensor, "batch chosen"]:
        """The patches that are kept, by number, in ascending order."""
        return highest(self.ranking(stream, attention), kept_count(self.keep, stream.patches.shape[1]))


@final
@dataclass(frozen=True)
class _WithoutUnit:
    """The choice of ``unit`` without the unit itself."""

    unit: KeepTokens
    then: Callable[[Stream], Stream]

    def __call__(self, stream: Stream) -> Stream:
        attention = None if self.unit.reader is None else self.unit.reader.project(stream)
        return self.then(take_patches(stream, self.unit.choose(stream, attention)))


def highest(scores: Num[Tensor, "batch patches"], count: int) -> Int[Tensor, "batch chosen"]:
    """The positions of the largest scores, ascending; among equals the first. NaN counts as the largest."""
    return first_highest(scores, count).sort(dim=1).values
