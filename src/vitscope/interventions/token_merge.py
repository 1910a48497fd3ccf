"""The most similar patch tokens are merged after attention, as in ToMe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.interventions.token_unit import (
    AbstractTokenUnit,
    cells_of,
    first_highest,
    innermost,
    refuse_keeping_after_merging,
    refuse_map,
    refuse_whole_grid,
    take_tokens,
)
from vitscope.measurement.bounds import LARGEST, Bounds, bounded_field
from vitscope.measurement.errors import UserError
from vitscope.models.attention import Attention
from vitscope.models.edit import with_edit
from vitscope.models.stream import Merged, Stream
from vitscope.models.subject import AbstractAnatomy, AbstractEdit, Composition, Subject
from vitscope.models.unit import AbstractAttentionUnit, AbstractUnit
from vitscope.models.written import WRITTEN


@INTERVENTIONS.add("token-merge")
@WRITTEN.add("token-merge")
@final
@dataclass(frozen=True)
class TokenMerge(AbstractIntervention):
    r"""In each of several attention units ``r`` patch tokens are merged into others (bipartite soft matching, ToMe).

    After attention and before the MLP, patches are split alternately into A (the second, fourth, ...) and B (the first,
    third, ...). Each of A is linked to the most similar of B, by the cosine of their keys (mean over heads; rotated if
    positions are rotary). The ``r`` most similar are merged into their partners by the average weighted by size, the
    number of patches that a token represents; the new order is the rest of A, then B. Later attention is proportional
    to size:

    .. math:: A = \mathrm{softmax}(s\,Q K^\top + B + \log \text{size})

    Class, distillation and register tokens are never merged. If ``r`` is more than half of a unit's patches, the rest
    is matched again, by the average keys; at least one patch is left. A merged token's place (for rotary angles and
    relative biases) is that of the patch it was merged into. At the model's end every merged token is repeated once for
    each of its patches, so that averages over patches are weighted by size.

    ``layers`` are the numbers of the attention units (None: all of them). Cost: from there on, that of a model with the
    remaining tokens, a bias in attention, and a product of half the keys with the other half. Feature maps and
    attention are not read from the first merge on. Refused if a later unit needs the whole grid.
    """

    name = "token-merge"
    title = "Patch tokens merged"
    references = ("Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023",)

    r: int = bounded_field(8, Bounds(0, LARGEST))
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.r < 0:
            raise UserError(f"r is {self.r}; it is how many tokens are merged in each unit, 0 or more.")
        if self.layers is not None and not self.layers:
            raise UserError("No layers were given to merge tokens in; name at least one, or leave it out for all.")
        super().__post_init__()

    def __call__(self, subject: Subject) -> Subject:
        """The subject with fewer tokens. Raises ``UserError`` naming the unit that does not allow it."""
        return with_edit(subject, Merging(self))

    @classmethod
    def examples(cls) -> "tuple[TokenMerge, ...]":
        """A few everywhere; more than half at once."""
        return cls(2), cls(11, (1,))

    @classmethod
    def nothing(cls) -> "tuple[TokenMerge, ...]":
        """No tokens are merged."""
        return (cls(0),)

    @property
    def settings(self) -> Mapping[str, object]:
        """Its fields for a run's spec, with the layers sorted."""
        layers = None if self.layers is None else sorted(set(self.layers))
        return {"intervention": self.name, "r": self.r, "layers": layers}


@WRITTEN.add("merging")
@final
@dataclass(frozen=True)
class Merging(AbstractEdit):
    """The edit of a walk that carries out ``merge``."""

    merge: TokenMerge

    def apply(self, anatomy: AbstractAnatomy) -> AbstractAnatomy:
        """The anatomy with merging units. Raises ``UserError`` if it does not allow them."""
        layers = self._layers(anatomy)
        first = min(layers)
        anatomy = refuse_whole_grid(anatomy, first, "TokenMerge")
        if self.merge.r == 0:
            return anatomy
        units: list[AbstractUnit] = list(anatomy.units)
        for layer, unit in enumerate(units, start=1):
            if layer >= first and isinstance(innermost(unit), AbstractAttentionUnit):
                units[layer - 1] = _merging(unit, self.merge.r if layer in layers else 0)
        refuse_keeping_after_merging(units)
        tail = anatomy.tail if isinstance(anatomy.tail, Unmerged) else Unmerged(anatomy.tail)
        return replace(anatomy, units=tuple(units), tail=tail)

    def _layers(self, anatomy: AbstractAnatomy) -> frozenset[int]:
        units = dict(enumerate(anatomy.units, start=1)) if isinstance(anatomy, Composition) else {}
        attention = [layer for layer, unit in units.items() if isinstance(innermost(unit), AbstractAttentionUnit)]
        if not attention:
            raise UserError("TokenMerge needs a model whose attention among all patches can be read.")
        asked = attention if self.merge.layers is None else self.merge.layers
        wrong = next((layer for layer in asked if layer not in attention), None)
        if wrong is not None:
            found = f"is {units[wrong].place.name}" if wrong in units else "does not exist"
            raise UserError(f"TokenMerge was given layer {wrong}, which {found}; name attention units.")
        return frozenset(asked)


def _merging(unit: AbstractUnit, r: int) -> AbstractUnit:
    """The unit with the merging right around its attention, inside whatever else is around it."""
    if isinstance(unit, MergeTokens):
        return replace(unit, r=unit.r + r)
    if isinstance(unit, AbstractTokenUnit):
        return replace(unit, inner=_merging(unit.inner, r))
    return MergeTokens(unit.place, unit, r)


@final
@dataclass(frozen=True)
class MergeTokens(AbstractTokenUnit):
    """Attention proportional to the sizes of its keys, after which ``r`` patches are merged into others."""

    merges: ClassVar[bool] = True

    r: int

    def __call__(self, stream: Stream) -> Stream:
        """The stream after the unit, with fewer patches."""
        refuse_map(stream, self)
        unit = self.inner
        assert isinstance(unit, AbstractAttentionUnit), "only attention units are made to merge"
        attention = proportional(unit.project(stream), stream)
        after = unit.finish(stream, unit.branch(attention, attention.context()))
        return merge_tokens(after, attention.keys[:, 0, :, stream.prefix :].mean(1), self.r)


@final
@dataclass(frozen=True)
class Unmerged:
    """The tail, with every merged token repeated once for each of its patches."""

    tail: Callable[[Stream], Tensor]

    def __call__(self, stream: Stream) -> Tensor:
        """The logits."""
        return self.tail(unmerge_tokens(stream))


def proportional(attention: Attention, stream: Stream) -> Attention:
    """The attention with the logarithm of the keys' sizes in its bias."""
    if stream.merged is None:
        return attention
    sizes = functional.pad(stream.merged.sizes, (stream.prefix, 0), value=1.0)
    bias = sizes.to(attention.queries).log()[:, None, None, None]  # batch windows heads queries keys
    return replace(attention, bias=bias if attention.bias is None else attention.bias + bias)


def merge_tokens(stream: Stream, keys: Float[Tensor, "batch patches width"], r: int) -> Stream:
    """The stream with ``r`` of its patches merged into others, by the patches' ``keys``."""
    while r > 0 and stream.patches.shape[1] > 1:
        now = min(r, stream.patches.shape[1] // 2)
        matching = Matching.of(keys, now)
        sizes, members, origin = _sizes(stream)
        after = matching.sum_groups(sizes[..., None])[..., 0]
        patches = matching.sum_groups(stream.patches * sizes[..., None]) / after[..., None]
        if r > now:
            keys = matching.sum_groups(keys * sizes[..., None]) / after[..., None]
        stream = replace(
            stream,
            values=torch.cat((stream.values[:, : stream.prefix], patches), dim=1),
            kept=cells_of(stream).gather(1, matching.places),
            merged=Merged(after, matching.targets.gather(1, members), origin),
        )
        r -= now
    return stream


def _sizes(
    stream: Stream,
) -> tuple[Float[Tensor, "batch patches"], Int[Tensor, "batch origins"], Int[Tensor, "batch origins"] | None]:
    """The patches' sizes, the patch that each original one went into, and the originals' cells if some were removed."""
    if stream.merged is not None:
        return stream.merged.sizes, stream.merged.members, stream.merged.cells
    patches = stream.patches
    numbers = torch.arange(patches.shape[1], device=patches.device).expand(patches.shape[0], -1)
    return torch.ones_like(patches[..., 0]), numbers, stream.kept


def unmerge_tokens(stream: Stream) -> Stream:
    """The stream as if nothing had been merged: each token once for each of its patches, in the patches' order."""
    if stream.merged is None:
        return stream
    patches = take_tokens(stream.patches, stream.merged.members)
    values = torch.cat((stream.values[:, : stream.prefix], patches), dim=1)
    return replace(stream, values=values, kept=stream.merged.cells, merged=None)


@final
@dataclass(frozen=True, eq=False)
class Matching:
    """One bipartite soft matching: the new token each patch goes to, and the patch at whose place each new one is."""

    targets: Int[Tensor, "batch patches"]
    places: Int[Tensor, "batch fewer"]

    @classmethod
    def of(cls, keys: Float[Tensor, "batch patches width"], r: int) -> "Matching":
        """The matching by the cosine of ``keys``; among equals the first of A is merged first."""
        directions = functional.normalize(keys, dim=-1)
        best, partner = (directions[:, 1::2] @ directions[:, 0::2].transpose(1, 2)).max(-1)
        order = first_highest(best, best.shape[1])
        staying = order[:, r:].sort(dim=1).values
        count, left = keys.shape[1], staying.shape[1]
        numbers = torch.arange(count, device=keys.device).expand(keys.shape[0], -1)
        a = (partner + left).scatter(1, staying, numbers[:, :left])
        b = numbers[:, : count - a.shape[1]] + left
        targets = torch.stack((b[:, : a.shape[1]], a), dim=2).flatten(1)
        targets = torch.cat((targets, b[:, a.shape[1] :]), dim=1)
        return cls(targets, torch.cat((2 * staying + 1, numbers[:, 0::2]), dim=1))

    def sum_groups(self, tokens: Float[Tensor, "batch patches dim"]) -> Float[Tensor, "batch fewer dim"]:
        """The sums of the tokens that go to the same new token."""
        batch, fewer = self.places.shape
        rows = torch.arange(batch, device=tokens.device)[:, None] * fewer
        out = tokens.new_zeros(batch * fewer, tokens.shape[2])
        return out.index_add_(0, (self.targets + rows).flatten(), tokens.flatten(0, 1)).unflatten(0, (batch, fewer))
