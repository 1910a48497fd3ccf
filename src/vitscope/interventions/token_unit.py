"""Units around which patch tokens are removed or merged, and what the other units of a model must allow for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from vitscope.interventions.attention_shape import Reshaped
from vitscope.interventions.head_lesion import WithoutHeads
from vitscope.measurement.errors import UserError
from vitscope.models.attention import Attention, bias_among, global_tokens
from vitscope.models.stream import Layout, Stream
from vitscope.models.subject import AbstractAnatomy, Composition
from vitscope.models.unit import (
    AbstractAttentionUnit,
    AbstractUnit,
    Residual,
    ResidualAttention,
    UnitKind,
    WholeUnit,
    identity,
)


@dataclass(frozen=True)
class AbstractTokenUnit(AbstractUnit):
    """A unit around another one of the same place, which removes or merges patch tokens before or after it.

    Its attention cannot be read, since tokens enter that do not leave, or the other way round.
    """

    merges: ClassVar[bool] = False
    """Whether it merges tokens; otherwise it removes them."""

    inner: AbstractUnit


def innermost(unit: AbstractUnit) -> AbstractUnit:
    """The model's own unit inside those that remove or merge tokens."""
    while isinstance(unit, AbstractTokenUnit):
        unit = unit.inner
    return unit


def take_tokens(values: Float[Tensor, "batch tokens dim"], index: Int[Tensor, "batch chosen"]) -> Tensor:
    """The tokens at each image's own ``index``. Cost: one copy of what is chosen."""
    rows = torch.arange(values.shape[0], device=values.device)[:, None] * values.shape[1]
    return values.flatten(0, 1).index_select(0, (index + rows).flatten()).unflatten(0, index.shape)


def first_highest(scores: Num[Tensor, "batch patches"], count: int) -> Int[Tensor, "batch chosen"]:
    """The positions of the ``count`` largest scores, the largest first; among equals the first. NaN is the largest."""
    if torch.compiler.is_exporting():  # ONNX has no stable sort; its TopK takes the first of equals too
        return torch.topk(scores, count, dim=1).indices
    return torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :count]


def with_prefix(index: Int[Tensor, "batch chosen"], prefix: int) -> Int[Tensor, "batch tokens"]:
    """Patch numbers as token numbers, with the prefix tokens before them."""
    first = torch.arange(prefix, device=index.device).expand(index.shape[0], -1)
    return torch.cat((first, index + prefix), dim=1)


def cells_of(stream: Stream) -> Int[Tensor, "batch patches"]:
    """The grid cell of every patch of the stream."""
    if stream.kept is not None:
        return stream.kept
    patches = stream.patches
    return torch.arange(patches.shape[1], device=patches.device).expand(patches.shape[0], -1)


def take_patches(stream: Stream, index: Int[Tensor, "batch chosen"]) -> Stream:
    """The stream with the prefix tokens and, for each image, these patches."""
    values = take_tokens(stream.values, with_prefix(index, stream.prefix))
    return replace(stream, values=values, kept=cells_of(stream).gather(1, index))


def attention_among(attention: Attention, index: Int[Tensor, "batch chosen"]) -> Attention:
    """Global attention of the stream that :func:`only` gives, with each token's projections as they were."""
    tokens = with_prefix(index, attention.prefix)
    images = torch.arange(tokens.shape[0], device=tokens.device)[:, None]
    queries, keys, values = (
        tensor[images, 0, :, tokens].transpose(1, 2).unsqueeze(1)
        for tensor in (attention.queries, attention.keys, attention.values)
    )
    left = global_tokens(tokens.shape[1], tokens.device)
    return replace(
        attention,
        queries=queries,
        keys=keys,
        values=values,
        query_tokens=left,
        key_tokens=left,
        bias=None if attention.bias is None else bias_among(attention.bias, tokens),
        gate=None if attention.gate is None else take_tokens(attention.gate, tokens),
    )


def refuse_whole_grid(anatomy: AbstractAnatomy, layer: int, doing: str) -> Composition:
    """The anatomy, if every unit from ``layer`` on works on any choice of the patches; ``UserError`` otherwise.

    Attention among all tokens does (its positions travel with the tokens), an MLP does, and a unit that was left out.
    """
    if not isinstance(anatomy, Composition):
        raise UserError(
            f"{doing} needs a model whose units are described; for this one only the outputs of modules are known."
        )
    if not 1 <= layer <= len(anatomy.units):
        raise UserError(f"{doing} was given layer {layer}; this model has layers 1 to {len(anatomy.units)}.")
    attending = (unit for unit in map(innermost, anatomy.units) if isinstance(unit, AbstractAttentionUnit))
    if not any(_works_on_any_patches(unit) for unit in attending):
        raise UserError(f"{doing} needs attention among all patches, which this model does not have.")
    for unit in anatomy.units[layer - 1 :]:
        if not _works_on_any_patches(innermost(unit)):
            kind = unit.place.kind.value
            raise UserError(
                f"{doing} at layer {layer} leaves gaps in the grid, and {unit.place.name} ({kind}) needs the whole "
                "grid; choose a layer after it, if there is one."
            )
    return anatomy


def _works_on_any_patches(unit: AbstractUnit) -> bool:
    if isinstance(unit, ResidualAttention):
        return unit.heads.heeds_kept
    if isinstance(unit, Reshaped | WithoutHeads):
        return _works_on_any_patches(unit.unit)
    if isinstance(unit, WholeUnit):
        return unit.function is identity or unit.pointwise
    return isinstance(unit, Residual) and unit.place.kind is UnitKind.MLP


def refuse_map(stream: Stream, unit: AbstractUnit) -> None:
    """Raise ``UserError`` if the stream is a feature map."""
    if stream.layout is not Layout.TOKENS:
        raise UserError(f"The input of {unit.place.name} is a feature map, from which no token can be removed.")


def attention_from(anatomy: Composition, layer: int, doing: str) -> int:
    """The layer of the first attention unit at or after ``layer``."""
    for number, unit in enumerate(anatomy.units[layer - 1 :], start=layer):
        if isinstance(innermost(unit), AbstractAttentionUnit):
            return number
    raise UserError(f"{doing} at layer {layer} needs an attention unit there or later, and there is none.")


def refuse_keeping_after_merging(units: Sequence[AbstractUnit]) -> None:
    """Raise ``UserError`` if tokens are removed after a merge: each may represent several patches."""
    merging = False
    for unit in units:
        while isinstance(unit, AbstractTokenUnit):
            if merging and not unit.merges:
                raise UserError(
                    f"TokenKeep at {unit.place.name} comes after a TokenMerge, which is not supported; keep first."
                )
            merging, unit = merging or unit.merges, unit.inner
