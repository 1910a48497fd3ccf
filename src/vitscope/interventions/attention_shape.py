"""Attention of another shape: uniform, diagonal, or limited to a neighbourhood."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.interventions.bypass import refuse_unknown
from vitscope.measurement.bounds import COUNT, bounded_field
from vitscope.measurement.errors import UserError
from vitscope.models.attention import Attention
from vitscope.models.edit import with_edit
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractAnatomy, AbstractEdit, Composition, Subject
from vitscope.models.unit import AbstractAttentionUnit
from vitscope.models.written import WRITTEN

Shape = Literal["uniform", "diagonal", "neighbourhood"]

_MASKED = -50.0
"""A bias at or below this is a mask: models of shifted windows write -100; learned biases stay far above."""
_OUT = -1e4
"""Added to the score of a key that must not be seen: its weight becomes exactly 0, without any infinity."""


@INTERVENTIONS.add("attention-shape")
@WRITTEN.add("attention-shape")
@final
@dataclass(frozen=True)
class AttentionShape(AbstractIntervention, AbstractEdit):
    r"""Attention weights replaced by a mean, by the identity, or kept within a neighbourhood.

    .. math:: A_{ij} = 1 / |V_i|, \qquad A_{ij} = 1\{i = j\}, \qquad
        A_{ij} \propto e^{s_{ij}}\, 1\{|r_i - r_j| \le k/2,\ |c_i - c_j| \le k/2\}

    ``uniform`` averages over the keys :math:`V_i` that a query may see, ``diagonal`` lets every token see only itself,
    ``neighbourhood`` keeps the ``size`` x ``size`` cells around it (an odd number) and takes the softmax of these.
    Prefix tokens see all and are seen by all, except with ``diagonal``. Keys that the model masks (a bias of -50 or
    less, as between shifted windows) and padding are not seen. ``layers`` are attention units; None means all of them.
    Diagnostics see the new weights. If heads are mixed after the softmax (CaiT) they still are, by a mixing whose bias
    reaches every key. Cost: that of the full attention.
    """

    shape: Shape = "uniform"
    size: int = bounded_field(3, COUNT)
    layers: tuple[int, ...] | None = None
    name: ClassVar[str] = "attention-shape"
    title: ClassVar[str] = "Attention of another shape"
    references: ClassVar[tuple[str, ...]] = (
        "Park and Kim, How Do Vision Transformers Work?, ICLR 2022",
        "Ramachandran et al., Stand-Alone Self-Attention in Vision Models, NeurIPS 2019",
    )

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise UserError(f"A neighbourhood of {self.size} x {self.size} cells has no middle: give an odd size.")
        super().__post_init__()

    def __call__(self, subject: Subject) -> Subject:
        """The subject with this attention."""
        refuse_unknown(self.layers or (), subject)
        return with_edit(subject, self)

    def apply(self, anatomy: AbstractAnatomy) -> AbstractAnatomy:
        """The anatomy with this attention."""
        if self.layers == ():
            return anatomy
        units = list(anatomy.units) if isinstance(anatomy, Composition) else []
        attending = [layer for layer, unit in enumerate(units, 1) if isinstance(unit, AbstractAttentionUnit)]
        wrong = next((layer for layer in self.layers or () if layer not in attending), None)
        if wrong is not None:
            name = anatomy.places[wrong - 1].name
            raise UserError(f"{name} (layer {wrong}) has no attention that can be read, so its shape cannot change.")
        if not isinstance(anatomy, Composition) or not attending:
            raise UserError("The model has no attention that can be read, so its shape cannot change.")
        for layer in attending if self.layers is None else self.layers:
            unit = units[layer - 1]
            assert isinstance(unit, AbstractAttentionUnit), "these layers were found to attend"
            units[layer - 1] = Reshaped(unit.place, unit, self.shape, self.size)
        return replace(anatomy, units=tuple(units))

    @classmethod
    def examples(cls) -> "tuple[AttentionShape, ...]":
        """Every shape in all units, and one shape in one unit."""
        return cls(), cls("diagonal"), cls("neighbourhood", 3), cls("uniform", layers=(1,))

    @classmethod
    @override
    def nothing(cls) -> "tuple[AttentionShape, ...]":
        return (cls(layers=()),)


@final
@dataclass(frozen=True)
class Reshaped(AbstractAttentionUnit):
    """An attention unit with weights of another shape."""

    unit: AbstractAttentionUnit
    shape: Shape
    size: int

    @property
    @override
    def bypass(self) -> Callable[[Stream], Stream] | None:
        return self.unit.bypass

    def project(self, stream: Stream) -> Attention:
        """The unit's own queries, keys and values, with scores that give the new weights."""
        if self.shape == "neighbourhood" and stream.kept is not None:
            raise UserError(f"Tokens were removed before {self.place.name}, so its grid has no neighbourhoods.")
        attention = self.unit.project(stream)
        seen = _visible_keys(attention)
        if self.shape == "diagonal":
            seen = _own(attention, self.place.name)
        if self.shape == "neighbourhood":
            seen = seen & _near(attention, self.size)
        kept = seen | ~seen.any(-1, keepdim=True)  # padding may see nothing; its output is dropped
        bias = torch.zeros_like(kept, dtype=attention.queries.dtype).masked_fill_(~kept, _OUT)
        if self.shape == "neighbourhood":
            return replace(attention, bias=bias if attention.bias is None else attention.bias + bias)
        return replace(attention, queries=torch.zeros_like(attention.queries), bias=bias)

    @override
    def branch(self, attention: Attention, context: Float[Tensor, "batch windows heads queries width"]) -> Tensor:
        return self.unit.branch(attention, context)

    @override
    def finish(self, stream: Stream, branch: Tensor) -> Stream:
        return self.unit.finish(stream, branch)


def _visible_keys(attention: Attention) -> Bool[Tensor, "..."]:
    """The keys that a query may see: tokens, and those not masked; broadcasts to windows x heads x queries x keys."""
    tokens = (attention.key_tokens >= 0)[:, None, None, :].expand(-1, 1, attention.query_tokens.shape[1], -1)
    return tokens if attention.bias is None else tokens & (attention.bias > _MASKED)


def _own(attention: Attention, name: str) -> Bool[Tensor, "windows 1 queries keys"]:
    own = attention.query_tokens[:, :, None] == attention.key_tokens[:, None, :]
    if not bool(own.any(-1)[attention.query_tokens >= 0].all()):
        raise UserError(f"Queries of {name} are not among its keys, so its attention has no diagonal.")
    return own[:, None]


def _near(attention: Attention, size: int) -> Bool[Tensor, "windows 1 queries keys"]:
    """Pairs within the neighbourhood, and those with a prefix token."""
    prefix, width = attention.prefix, attention.grid[1]
    queries, keys = attention.query_tokens[:, :, None], attention.key_tokens[:, None, :]
    rows = ((queries - prefix) // width - (keys - prefix) // width).abs()
    columns = ((queries - prefix) % width - (keys - prefix) % width).abs()
    outside = (queries < prefix) | (keys < prefix)
    return ((rows <= size // 2) & (columns <= size // 2) | outside)[:, None]
