"""Hidden neurons of MLP units removed, so that the module is really smaller."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from vitscope.data import Images
from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.interventions.bypass import refuse_unknown
from vitscope.interventions.hidden_pair import HiddenPair, hidden_pairs, require_pairs, running_pairs
from vitscope.interventions.layer_inputs import LayerInput, Refit, as_index, input_moments
from vitscope.interventions.smaller import with_smaller_parts
from vitscope.measurement.bounds import COUNT, SEED, check_number
from vitscope.measurement.errors import UserError
from vitscope.models.rewritten import refuse_computed_kernels
from vitscope.models.subject import Subject
from vitscope.models.surgery import Pointwise, matrix_of, narrow, with_matrix
from vitscope.models.unit import UnitKind
from vitscope.numerics.precision import to_float64
from vitscope.numerics.ridge import PENALTY, find_dispensable, fold, others

Neurons = tuple[tuple[int, tuple[int, ...]], ...]
"""Layers, each with some of its hidden neurons (from 0)."""
NeuronChoice = Literal["output", "activation", "variance", "error", "weight", "random"]
"""Which neurons are removed: those with the smallest score; see :meth:`RemoveNeurons.fitted`."""
_FROM_WEIGHTS = ("weight", "random")


@INTERVENTIONS.add("remove-neurons")
@final
@dataclass(frozen=True)
class RemoveNeurons(AbstractIntervention):
    r"""Hidden neurons of MLP units removed: both linear layers become narrower, and the second may be refitted.

    .. math:: W_2\,\sigma(W_1 x + b_1) + b_2 \;\to\; W_2'\,\sigma(W_{1,K}\,x + b_{1,K}) + b_2'

    ``neurons`` names layers (from 1), each with the hidden neurons that go (from 0): ``((2, (0, 5, 7)),)``. Without
    ``repairs`` the others keep their weights, :math:`W_2' = W_{2,K}` and :math:`b_2' = b_2`. With ``repairs``, one for
    each layer, they are those that replace the removed neurons by their ridge regression on the kept ones; see
    :meth:`fitted`.

    The two layers, ``nn.Linear`` or 1 x 1 convolutions, are found in the unit's module and tested in float64: without
    the neurons the unit must give what it gives when the second layer does not read them. Gated MLPs and those with a
    norm between the layers are refused with the reason. The module is a copy that shares all other weights with the
    original. Units keep their number and places.
    """

    neurons: Neurons
    repairs: tuple[Refit, ...] = ()
    name: ClassVar[str] = "remove-neurons"
    title: ClassVar[str] = "Hidden neurons removed"
    references: ClassVar[tuple[str, ...]] = (
        "Hassibi and Stork, Second Order Derivatives for Network Pruning: Optimal Brain Surgeon, NeurIPS 1992",
        "He, Zhang and Sun, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017",
    )
    changes_weights: ClassVar[bool] = True
    changes_shapes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if len({layer for layer, _ in self.neurons}) != len(self.neurons) or len(self.repairs) not in (
            0,
            len(self.neurons),
        ):
            raise UserError(
                f"Neurons of {len(self.neurons)} layers are to be removed with {len(self.repairs)} repairs: name each "
                "layer once and give one repair for each, or none."
            )

    @override
    def __call__(self, subject: Subject) -> Subject:
        """The subject without these neurons. Raises ``UserError`` naming a unit that cannot be without them."""
        removed = {layer: gone for layer, gone in self.neurons if gone}
        if not removed:
            return subject
        pairs = _pairs(subject, tuple(removed), removed)
        parts: dict[str, nn.Module] = {}
        repairs = dict(zip((layer for layer, _ in self.neurons), self.repairs, strict=False))
        for layer, gone in removed.items():
            _refuse_absent(subject, layer, pairs[layer], gone)
            parts |= _smaller_pair(subject, layer, pairs[layer], gone, repairs.get(layer))
        return with_smaller_parts(subject, parts, next(iter(removed)))

    @classmethod
    def fitted(
        cls,
        subject: Subject,
        images: Images | None = None,
        share: float = 0.25,
        layers: Sequence[int] | None = None,
        by: NeuronChoice = "output",
        repair: bool = True,
        seed: int = 0,
        multiple: int = 8,
        batch_size: int = 32,
        penalty: float = PENALTY,
    ) -> "RemoveNeurons":
        r"""The removal of a ``share`` of each layer's neurons, chosen and repaired by calibration images.

        A layer keeps ``1 - share`` of its neurons, rounded to a ``multiple``, at least one multiple. ``layers`` are all
        units that have an MLP unless given, without those that an edit has left out; then a unit of kind MLP without a
        pair of layers is refused. The neurons
        with the smallest scores are removed. With activations :math:`h` and the second layer's weight :math:`W_2`,
        ``by`` is the score:

        * ``output``, :math:`\lVert W_{2,j} \rVert\,\mathrm{std}(h_j)`: what the neuron adds to the unit's output,
        * ``activation``, :math:`\mathbb{E}|h_j|`, and ``variance``, :math:`\mathrm{Var}(h_j)`,
        * ``error``, the error of the output that is left after a repair, neuron by neuron
          (:func:`~vitscope.numerics.ridge.find_dispensable`),
        * ``weight``, :math:`\lVert W_{1,j} \rVert \lVert W_{2,j} \rVert`, and ``random`` by ``seed``.

        With ``repair`` the second layer's weight and bias are refitted by ridge regression in closed form
        (:func:`~vitscope.numerics.ridge.fold`), each layer for its input in the subject as it is given. The images
        need no labels; they may be None for ``weight`` and ``random`` without repair. Images of at least as many tokens
        as the widest layer has neurons are needed for a good repair. Raises ``UserError`` for a layer without neurons
        that can be removed. Cost: that of :func:`~vitscope.interventions.layer_inputs.input_moments` and, for each
        layer, a Cholesky decomposition of ``neurons x neurons``.
        """
        if not 0 <= share < 1:
            raise UserError(f"The share is {share}; give the share of neurons to remove, from 0 and below 1.")
        check_number("multiple", multiple, COUNT)
        check_number("seed", seed, SEED)
        pairs = _pairs(subject, layers)
        inputs: Mapping[str, LayerInput] = {}
        if repair or by not in _FROM_WEIGHTS:
            if images is None:
                raise UserError(f"Neurons are chosen by {by!r} with repair={repair} from images; give images.")
            inputs = input_moments(subject, images, [pair.second for pair in pairs.values()], batch_size)
        neurons: list[tuple[int, tuple[int, ...]]] = []
        repairs: list[Refit] = []
        for layer, pair in pairs.items():
            count = pair.width - kept_width(pair.width, share, multiple)
            gone = _choose(subject, pair, inputs.get(pair.second), count, by, seed + layer)
            neurons.append((layer, gone))
            if repair:
                repairs.append(_refit(subject, pair, inputs[pair.second], gone, penalty))
        return cls(tuple(neurons), tuple(repairs))

    @classmethod
    def possible(cls, subject: Subject) -> tuple[int, ...]:
        """The layers whose hidden neurons can be removed, but for those that an edit has left out.

        Cost: that of :func:`~vitscope.interventions.hidden_pair.hidden_pairs`.
        """
        refuse_computed_kernels(subject)
        return tuple(running_pairs(subject, hidden_pairs(subject, range(1, len(subject.places) + 1)).found))

    @override
    @classmethod
    def examples(cls) -> "tuple[RemoveNeurons, ...]":
        """Some neurons of the second unit, or of the first."""
        return cls(((2, (0, 3, 5)),)), cls(((1, (1, 2)),))

    @override
    @classmethod
    def nothing(cls) -> "tuple[RemoveNeurons, ...]":
        """No neuron."""
        return cls(()), cls(((2, ()),))


def kept_width(width: int, share: float, multiple: int) -> int:
    """How many of ``width`` neurons stay when a share goes: the nearest multiple, at least one, at most all.

    Of two that are equally near it is the larger.
    """
    nearest = int(width * (1 - share) / multiple + 0.5) * multiple
    return min(width, max(nearest, min(multiple, width)))


def _pairs(
    subject: Subject, layers: Sequence[int] | None, removed: Mapping[int, Sequence[int]] | None = None
) -> Mapping[int, HiddenPair]:
    """The pairs of linear layers of these units, or of all that have one; ``UserError`` naming one that has none."""
    refuse_computed_kernels(subject)
    if layers is not None:
        refuse_unknown(tuple(layers), subject)
        return require_pairs(hidden_pairs(subject, layers, removed), subject, layers)
    pairs = hidden_pairs(subject, range(1, len(subject.places) + 1))
    kinds = {layer: place.kind for layer, place in enumerate(subject.places, start=1)}
    needed = [layer for layer, kind in kinds.items() if kind is UnitKind.MLP]
    if not pairs.found:
        needed += [layer for layer, kind in kinds.items() if kind is not UnitKind.ATTENTION]
    found = require_pairs(pairs, subject, needed)
    if not found:
        raise UserError(f"{subject.name} has no units with hidden neurons between two linear layers.")
    return running_pairs(subject, found)


def _layers_of(subject: Subject, pair: HiddenPair) -> tuple[Pointwise, Pointwise]:
    first, second = (subject.module.get_submodule(name) for name in (pair.first, pair.second))
    return cast(Pointwise, first), cast(Pointwise, second)


def _refuse_absent(subject: Subject, layer: int, pair: HiddenPair, gone: Sequence[int]) -> None:
    name = subject.places[layer - 1].name
    absent = next((neuron for neuron in gone if not 0 <= neuron < pair.width), None)
    if absent is not None:
        raise UserError(f"{name} has neurons 0 to {pair.width - 1}; there is no neuron {absent} to remove.")
    if len(set(gone)) != len(gone) or len(gone) == pair.width:
        raise UserError(f"{name} has {pair.width} neurons: name each neuron once, and leave one at least.")


def _smaller_pair(
    subject: Subject, layer: int, pair: HiddenPair, gone: Sequence[int], repair: Refit | None
) -> dict[str, nn.Module]:
    first, second = _layers_of(subject, pair)
    kept = others(as_index(gone, second.weight), pair.width)
    if repair is None:
        return {pair.first: narrow(first, outputs=kept), pair.second: narrow(second, inputs=kept)}
    wanted, found = (second.weight.shape[0], len(kept)), tuple(repair.weight.shape)
    if found != wanted:
        raise UserError(
            f"The repair of {subject.places[layer - 1].name} has the shape {found} instead of {wanted}; "
            "fit it to the present subject."
        )
    return {pair.first: narrow(first, outputs=kept), pair.second: with_matrix(second, repair.weight, repair.bias)}


def _refit(subject: Subject, pair: HiddenPair, seen: LayerInput, gone: Sequence[int], penalty: float) -> Refit:
    _, second = _layers_of(subject, pair)
    kept = others(as_index(gone, seen.scatter.products), pair.width)
    weight, bias = fold(matrix_of(second), second.bias, seen.scatter, kept, penalty)
    return Refit(weight.to(second.weight), bias.to(second.weight))


def _choose(
    subject: Subject, pair: HiddenPair, seen: LayerInput | None, count: int, by: NeuronChoice, seed: int
) -> tuple[int, ...]:
    """The ``count`` neurons of smallest score, in ascending order."""
    first, second = (to_float64(matrix_of(part)) for part in _layers_of(subject, pair))
    if by == "random":
        drawn = torch.randperm(pair.width, generator=torch.Generator().manual_seed(seed))
        return tuple(sorted(drawn[:count].tolist()))
    if by == "weight":
        scores = first.norm(dim=1) * second.norm(dim=0)
    else:
        assert seen is not None, "these choices are made from images"
        if by == "error":
            return tuple(sorted(neuron for neuron, _ in find_dispensable(second, seen.scatter, count)))
        scores = _score(second, seen, by)
    return tuple(sorted(scores.argsort(stable=True)[:count].tolist()))


def _score(second: Float[Tensor, "outputs neurons"], seen: LayerInput, by: NeuronChoice) -> Float[Tensor, " neurons"]:
    if by == "activation":
        return seen.magnitudes.mean
    return seen.variance if by == "variance" else second.norm(dim=0).to(seen.variance) * seen.variance.sqrt()
