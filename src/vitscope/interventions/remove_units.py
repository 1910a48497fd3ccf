"""Units taken out for good, their branches replaced by what a linear map, or a mean, can do of their work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from vitscope.data import Images
from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.interventions.bypass import bypass, irremovable_layers, refuse_unknown, show_batches
from vitscope.interventions.token_unit import innermost
from vitscope.measurement.errors import UserError
from vitscope.models.attention import Attention
from vitscope.models.edit import with_edit
from vitscope.models.stream import Layout, Stream
from vitscope.models.subject import AbstractAnatomy, AbstractEdit, AbstractObserver, Composition, Subject
from vitscope.models.unit import AbstractUnit, WholeUnit, identity
from vitscope.models.written import WRITTEN
from vitscope.numerics.digest import tensor_digest
from vitscope.numerics.moments import Scatter, scatter
from vitscope.numerics.ridge import ridge

Replacement = Literal["linear", "mean", "nothing"]
"""What replaces a branch: its best linear map of the unit's input, its mean for each channel, or nothing."""


@WRITTEN.add("affine")
@final
@dataclass(frozen=True, eq=False, repr=False)
class Affine:
    """``x W + b`` along the channels of a stream; without ``weight``, ``b`` alone."""

    bias: Float[Tensor, " dim"]
    weight: Float[Tensor, "dim dim"] | None = None

    def __call__(self, stream: Stream) -> Tensor:
        """What is added to the stream's values."""
        if stream.layout is Layout.CHANNELS_FIRST:
            last = replace(stream, values=stream.values.movedim(1, -1), layout=Layout.CHANNELS_LAST)
            return self(last).movedim(-1, 1)
        bias = self.bias.to(stream.values)
        if self.weight is None:
            return bias
        return functional.linear(stream.values, self.weight.to(stream.values).T, bias)

    def __repr__(self) -> str:
        digests = (tensor_digest(one)[:16] for one in (self.bias, self.weight) if one is not None)
        return f"Affine({len(self.bias)}, {', '.join(digests)})"


@INTERVENTIONS.add("remove-units")
@WRITTEN.add("remove-units")
@final
@dataclass(frozen=True)
class RemoveUnits(AbstractIntervention, AbstractEdit):
    r"""Residual units left out, each with an affine map of its input in place of its branch.

    .. math:: x + f(x) \to x + x W + b

    ``layers`` are the units (from 1), ``maps`` one map for each, or none; :meth:`fitted` finds them by ridge regression
    over calibration images. Units keep their number and places. :func:`~vitscope.models.compact.compact` makes the
    module that really is shorter. A linear map costs dim² products a token. Units of a plain module are left out
    without a map, for what enters them need not be what their branch sees.
    """

    layers: tuple[int, ...]
    maps: tuple[Affine, ...] = ()
    name: ClassVar[str] = "remove-units"
    title: ClassVar[str] = "Units taken out and repaired"
    references: ClassVar[tuple[str, ...]] = (
        "Cannistraci et al., TOAST: Transformer Optimization using Adaptive and Simple Transformations, 2410.04941",
    )

    def __post_init__(self) -> None:
        if len(set(self.layers)) != len(self.layers) or len(self.maps) not in (0, len(self.layers)):
            raise UserError(
                f"RemoveUnits of the layers {self.layers} with {len(self.maps)} maps: name each layer once and give "
                "one map for each, or none."
            )

    def __call__(self, subject: Subject) -> Subject:
        """The subject without these units. Raises ``UserError`` naming one that cannot be left out."""
        refuse_unknown(self.layers, subject)
        why = irremovable_layers(subject, self.layers) if self.layers else {}
        for kept in why:
            name = subject.places[kept - 1].name
            raise UserError(f"Layer {kept} of {subject.name} ({name}) cannot be left out: {why[kept]}.")
        return with_edit(subject, self)

    def apply(self, anatomy: AbstractAnatomy) -> AbstractAnatomy:
        """The anatomy without these units."""
        if not isinstance(anatomy, Composition):
            if self.maps:
                raise UserError("Units of a model that nobody described are left out without a map.")
            return bypass(anatomy, dict.fromkeys(self.layers)) if self.layers else anatomy
        units = list(anatomy.units)
        for layer, repair in zip(self.layers, self.maps or (None,) * len(self.layers), strict=True):
            units[layer - 1] = _leave_out(units[layer - 1], repair)
        return replace(anatomy, units=tuple(units))

    @classmethod
    def fitted(
        cls,
        subject: Subject,
        images: Images,
        layers: Sequence[int],
        by: Replacement = "linear",
        penalty: float = 1e-3,
        batch_size: int = 32,
    ) -> "RemoveUnits":
        """The units with the maps that predict their branches best, over every token or cell of the images.

        ``linear`` is ridge regression with a penalty relative to the mean variance of the unit's input; ``mean`` a
        constant for each channel. Several layers are fitted to the subject as it is, so fit one after the other if
        errors must not add up. Cost: one forward pass, and dim² products a token; (2 dim)² float64 numbers a layer.
        """
        if by == "nothing" or not isinstance(subject.anatomy, Composition):
            return cls(tuple(layers))
        seen = _Branches(subject.anatomy, tuple(layers))
        show_batches(subject, images, batch_size, lambda pixels: subject.anatomy.walk(pixels, seen))
        return cls(tuple(layers), tuple(_fit(seen.found[layer], by, penalty) for layer in layers))

    @classmethod
    def takes_maps(cls, subject: Subject) -> bool:
        """Whether a map can replace a branch: the model is described."""
        return isinstance(subject.anatomy, Composition)

    @classmethod
    def examples(cls) -> "tuple[RemoveUnits, ...]":
        """The second unit."""
        return (cls((2,)),)

    @classmethod
    def nothing(cls) -> "tuple[RemoveUnits, ...]":
        """No unit."""
        return (cls(()),)


@final
@dataclass(frozen=True)
class Mapped:
    """``through(stream)`` plus an affine map of it."""

    through: Callable[[Stream], Stream]
    repair: Affine

    def __call__(self, stream: Stream) -> Stream:
        """The stream after the unit that was left out."""
        stream = self.through(stream)
        return stream.with_values(stream.values + self.repair(stream))


def _leave_out(unit: AbstractUnit, repair: Affine | None) -> WholeUnit:
    if unit.bypass is None:
        raise UserError(f"{unit.place.name} cannot be left out: it has no shortcut, or another intervention is there.")
    left = unit.bypass if repair is None else Mapped(unit.bypass, repair)
    return WholeUnit(unit.place, left, unit.bypass, pointwise=unit.bypass is identity)


def is_left_out(subject: Subject, layer: int) -> bool:
    """Whether an edit has left the unit out already."""
    anatomy = subject.anatomy
    if isinstance(anatomy, Composition):
        unit = innermost(anatomy.units[layer - 1])
        return isinstance(unit, WholeUnit) and _is_passage(unit)
    return any(layer in edit.layers for edit in subject.edits if isinstance(edit, RemoveUnits))


def _is_passage(unit: WholeUnit) -> bool:
    return unit.function is unit.bypass or isinstance(unit.function, Mapped)


@dataclass(eq=False)
class _Branches(AbstractObserver):
    """The second moments of each unit's input and of its branch together."""

    anatomy: Composition
    layers: tuple[int, ...]
    found: dict[int, Scatter] = field(default_factory=dict[int, Scatter])
    _entering: Stream | None = None

    @override
    def stream(self, layer: int, stream: Stream) -> None:
        unit = self.anatomy.units[layer - 1] if layer else None
        if layer in self.layers and unit is not None and unit.bypass is not None and self._entering is not None:
            through = unit.bypass(self._entering)
            rows = torch.cat((through.tokens, (stream.tokens - through.tokens)), dim=-1).flatten(0, -2)
            own = scatter(rows)
            self.found[layer] = self.found[layer].merge(own) if layer in self.found else own
        self._entering = stream

    @override
    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        return attention.context()


def _fit(seen: Scatter, by: Replacement, penalty: float) -> Affine:
    dim = len(seen.mean) // 2
    if by == "mean":
        return Affine(seen.mean[dim:])
    kept, wanted = torch.arange(dim), torch.arange(dim, 2 * dim)
    weight, offset = ridge(seen, kept, wanted, penalty)
    return Affine(offset, weight)
