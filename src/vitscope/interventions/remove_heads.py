"""Attention heads removed, so that the module is really smaller."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast, final

import torch
from torch import nn
from typing_extensions import override

from vitscope.data import Images
from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.interventions.attention_parts import (
    PACKINGS,
    AttentionParts,
    Packing,
    attention_parts,
    cut_heads,
    find_packing,
)
from vitscope.interventions.bypass import refuse_unknown
from vitscope.interventions.head_lesion import HeadLesion, Heads
from vitscope.interventions.layer_inputs import LayerInput, Refit, as_index, input_moments
from vitscope.interventions.smaller import why_not_by_itself
from vitscope.measurement.bounds import SEED, check_number
from vitscope.measurement.errors import UserError
from vitscope.models.edit import with_module
from vitscope.models.rewritten import refuse_computed_kernels
from vitscope.models.subject import Subject
from vitscope.models.surgery import Pointwise, matrix_of, with_matrix, with_parts
from vitscope.models.unit import UnitKind
from vitscope.numerics.ridge import PENALTY, find_dispensable, fold, others

HeadChoice = Literal["output", "error", "random"]
"""Which heads are removed: those with the smallest score; see :meth:`RemoveHeads.fitted`."""


@INTERVENTIONS.add("remove-heads")
@final
@dataclass(frozen=True)
class RemoveHeads(AbstractIntervention):
    r"""Attention heads removed: the projections become narrower, and the output projection may be refitted.

    ``heads`` names layers (from 1), each with the heads that go (from 0): ``((1, (0, 2)),)``. Their queries, keys and
    values, gates and entries in tables of relative positions are taken out of the attention module, and its counts of
    heads are adapted. Without ``repairs`` the logits are those of
    :class:`~vitscope.interventions.head_lesion.HeadLesion` for the same heads, which is tested in float64; attention
    that cannot be made smaller like this (heads that are mixed or normed together, biases shared by all blocks, an
    upstream forward pass that relies on the full width) is refused with the reason. With ``repairs``, one weight and
    bias of the output projection for each layer, the kept heads replace the removed ones as well as an affine map can;
    see :meth:`fitted`.

    The module is a copy that shares all other weights with the original. The remaining heads are numbered anew, so
    lesions of heads must follow the removal. Units keep their number and places.
    """

    heads: Heads
    repairs: tuple[Refit, ...] = ()
    name: ClassVar[str] = "remove-heads"
    title: ClassVar[str] = "Attention heads removed"
    references: ClassVar[tuple[str, ...]] = (
        "Michel, Levy and Neubig, Are Sixteen Heads Really Better than One?, NeurIPS 2019",
        "Kwon et al., A Fast Post-Training Pruning Framework for Transformers, NeurIPS 2022",
    )
    changes_weights: ClassVar[bool] = True
    changes_shapes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        named = {layer for layer, _ in self.heads}
        if len(named) != len(self.heads) or len(self.repairs) not in (0, len(self.heads)):
            raise UserError(
                f"The heads {self.heads} are to be removed with {len(self.repairs)} repairs: name each layer once and "
                "give one repair for each, or none."
            )

    @override
    def __call__(self, subject: Subject) -> Subject:
        """The subject without these heads. Raises ``UserError`` naming a unit that cannot be without them."""
        removed = {layer: gone for layer, gone in self.heads if gone}
        if not removed:
            return subject
        parts = _parts_of(subject, tuple(removed))
        for layer, gone in removed.items():
            _refuse_absent(subject, layer, parts[layer].heads, gone)
        _refuse_lesions(subject, removed)
        repairs = dict(zip((layer for layer, _ in self.heads), self.repairs, strict=False))
        packing, layer, why = find_packing(subject, parts, removed, PACKINGS)
        while packing is not None:
            module = _without(subject, parts, removed, repairs, packing)
            failed = why_not_by_itself(subject, module)
            if not failed:
                return with_module(subject, module)
            layer, why = (layer, why) if why else (next(iter(removed)), failed)
            packing, *_ = find_packing(subject, parts, removed, PACKINGS[PACKINGS.index(packing) + 1 :])
        place = subject.places[layer - 1]
        raise UserError(f"{place.name} (layer {layer} of {subject.name}) cannot be without heads: {why}.")

    @classmethod
    def fitted(
        cls,
        subject: Subject,
        images: Images | None = None,
        heads: Heads | None = None,
        share: float | None = None,
        layers: Sequence[int] | None = None,
        by: HeadChoice = "error",
        repair: bool = True,
        seed: int = 0,
        batch_size: int = 32,
        penalty: float = PENALTY,
    ) -> "RemoveHeads":
        r"""The removal of these ``heads``, or a ``share`` of the heads of ``layers``, repaired by calibration images.

        Give ``heads`` or ``share``. ``layers`` are all attention units unless given. All their heads are compared, and
        those with the smallest scores are removed, but each layer keeps one. With the joined context :math:`h` of a
        layer's heads, its covariance :math:`\Sigma` and the output projection :math:`W`, ``by`` is the score:

        * ``output``, :math:`\mathrm{tr}(W_g \Sigma_{gg} W_g^\top) / \mathrm{tr}(W \Sigma W^\top)`: how much of what
          the layer adds to the stream varies with the head,
        * ``error``, the share of that variance that is lost after a repair if the layer loses its heads one after the
          other (:func:`~vitscope.numerics.ridge.find_dispensable`),
        * ``random`` by ``seed``.

        With ``repair`` the projection's weight and bias are refitted by ridge regression in closed form
        (:func:`~vitscope.numerics.ridge.fold`), each layer for its input in the subject as it is given. The images need
        no labels; they may be None if nothing is computed from them. Cost: that of
        :func:`~vitscope.interventions.layer_inputs.input_moments`.
        """
        if (heads is None) == (share is None):
            raise UserError("Give either the heads to remove, or the share of all heads.")
        check_number("seed", seed, SEED)
        chosen = tuple(layer for layer, _ in heads) if heads is not None else _layers(subject, layers)
        parts = _parts_of(subject, chosen)
        inputs: Mapping[str, LayerInput] = {}
        if repair or (heads is None and by != "random"):
            if images is None:
                raise UserError(f"Heads are chosen by {by!r} with repair={repair} from images; give images.")
            inputs = input_moments(subject, images, [part.projection for part in parts.values()], batch_size)
        if heads is None:
            heads = _choose(subject, parts, inputs, share or 0.0, by, seed)
        for layer, gone in heads:
            _refuse_absent(subject, layer, parts[layer].heads, gone)
        refits = [_refit(subject, parts[layer], inputs, gone, penalty) for layer, gone in heads] if repair else []
        return cls(heads, tuple(refits))

    @override
    @classmethod
    def examples(cls) -> "tuple[RemoveHeads, ...]":
        """A head of the first unit, which is attention in most models."""
        return (cls(((1, (1,)),)),)

    @override
    @classmethod
    def nothing(cls) -> "tuple[RemoveHeads, ...]":
        """No head."""
        return cls(()), cls(((1, ()),))


def _layers(subject: Subject, layers: Sequence[int] | None) -> tuple[int, ...]:
    if layers is not None:
        return tuple(layers)
    every = enumerate(subject.places, start=1)
    found = tuple(layer for layer, place in every if place.kind is UnitKind.ATTENTION)
    if not found:
        raise UserError(f"{subject.name} has no attention units, so no head can be removed.")
    return found


def _parts_of(subject: Subject, layers: Sequence[int]) -> Mapping[int, AttentionParts]:
    refuse_unknown(tuple(layers), subject)
    refuse_computed_kernels(subject)
    found, why = attention_parts(subject, layers)
    for layer in why:
        name = subject.places[layer - 1].name
        raise UserError(f"{name} (layer {layer} of {subject.name}) cannot be without heads: {why[layer]}.")
    return found


def _refuse_absent(subject: Subject, layer: int, count: int, gone: Sequence[int]) -> None:
    name = subject.places[layer - 1].name
    absent = next((head for head in gone if not 0 <= head < count), None)
    if absent is not None:
        raise UserError(f"{name} has heads 0 to {count - 1}; there is no head {absent} to remove.")
    if len(set(gone)) != len(gone) or len(gone) == count:
        raise UserError(f"{name} has {count} heads: name each head once, and leave one at least (or remove the unit).")


def _refuse_lesions(subject: Subject, removed: Mapping[int, Sequence[int]]) -> None:
    """Raise where an edit names heads of these layers by numbers that would mean others afterwards."""
    for edit in subject.edits:
        both = [layer for layer, _ in edit.heads if layer in removed] if isinstance(edit, HeadLesion) else []
        if both:
            name = subject.places[both[0] - 1].name
            raise UserError(
                f"Heads of {name} are left out by number already; remove heads first, then leave out others."
            )


def _without(
    subject: Subject,
    parts: Mapping[int, AttentionParts],
    removed: Mapping[int, Sequence[int]],
    repairs: Mapping[int, Refit],
    packing: Packing,
) -> nn.Module:
    """A copy of the subject's module without these heads."""
    smaller = {
        parts[layer].unit: cut_heads(
            subject.module,
            parts[layer],
            gone,
            packing,
            _repair_projection(subject, layer, parts[layer], gone, repairs.get(layer)),
        )
        for layer, gone in removed.items()
    }
    return with_parts(subject.module, smaller)


def _projection(subject: Subject, parts: AttentionParts) -> Pointwise:
    return cast(Pointwise, subject.module.get_submodule(parts.projection))


def _repair_projection(
    subject: Subject, layer: int, parts: AttentionParts, gone: Sequence[int], repair: Refit | None
) -> Pointwise | None:
    if repair is None:
        return None
    old = _projection(subject, parts)
    wanted, found = (old.weight.shape[0], (parts.heads - len(gone)) * parts.width), tuple(repair.weight.shape)
    if wanted != found:
        raise UserError(
            f"The repair of {subject.places[layer - 1].name} has the shape {found} instead of {wanted}; "
            "fit it to the present subject."
        )
    return with_matrix(old, repair.weight, repair.bias)


def _refit(
    subject: Subject, parts: AttentionParts, inputs: Mapping[str, LayerInput], gone: Sequence[int], penalty: float
) -> Refit:
    projection, seen = _projection(subject, parts), inputs[parts.projection].scatter
    kept = parts.columns(others(as_index(gone, seen.products), parts.heads))
    weight, bias = fold(matrix_of(projection), projection.bias, seen, kept, penalty)
    return Refit(weight.to(projection.weight), bias.to(projection.weight))


def _choose(
    subject: Subject,
    parts: Mapping[int, AttentionParts],
    inputs: Mapping[str, LayerInput],
    share: float,
    by: HeadChoice,
    seed: int,
) -> Heads:
    """A share of all heads, those of smallest score; each layer keeps one."""
    if not 0 <= share < 1:
        raise UserError(f"The share is {share}; give the share of heads to remove, from 0 and below 1.")
    count = round(share * sum(part.heads for part in parts.values()))
    if by == "random":
        every = [(layer, head) for layer, part in parts.items() for head in range(part.heads)]
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed)).tolist()
        ranked = [every[number] for number in order]
    else:
        scores = (
            (score, layer, head)
            for layer, part in parts.items()
            for head, score in _scores(matrix_of(_projection(subject, part)), part, inputs[part.projection], by)
        )
        ranked = [(layer, head) for _, layer, head in sorted(scores)]
    gone: dict[int, list[int]] = {layer: [] for layer in parts}
    for layer, head in ranked:
        if count and len(gone[layer]) < parts[layer].heads - 1:
            gone[layer].append(head)
            count -= 1
    return tuple((layer, tuple(sorted(heads))) for layer, heads in gone.items() if heads)


def _scores(
    weight: torch.Tensor, parts: AttentionParts, seen: LayerInput, by: HeadChoice
) -> Iterator[tuple[int, float]]:
    """Each head with its score, relative to the variance of what the projection returns."""
    covariance = seen.scatter.products / seen.scatter.count.clamp(min=1)
    matrix = weight.to(covariance)
    whole = max(float((matrix @ covariance * matrix).sum()), torch.finfo(torch.float64).tiny)
    if by == "error":
        lost = 0.0
        for head, more in find_dispensable(weight, seen.scatter, parts.heads - 1, parts.width):
            lost += more
            yield head, lost / whole
        return
    for head in range(parts.heads):
        columns = parts.columns(torch.tensor([head], device=matrix.device))
        part = matrix[:, columns]
        yield head, float((part @ covariance[columns][:, columns] * part).sum()) / whole
