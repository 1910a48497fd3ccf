"""Lesions: residual units left out."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from vitscope.data import Images
from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.interventions.bypass import (
    Entered,
    Look,
    Mean,
    bypass,
    irremovable_layers,
    look_at,
    refuse_unknown,
    show_batches,
    without_branch,
)
from vitscope.measurement.errors import UserError
from vitscope.models.attention import Attention
from vitscope.models.edit import with_edit
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractAnatomy, AbstractEdit, AbstractObserver, Composition, Subject, Unwatched
from vitscope.models.written import WRITTEN
from vitscope.numerics.precision import to_float64


@INTERVENTIONS.add("lesion")
@WRITTEN.add("lesion")
@final
@dataclass(frozen=True)
class Lesion(AbstractIntervention, AbstractEdit):
    r"""Residual units replaced by the identity, or by the mean of their branch over data.

    .. math:: x + f(x) \to x, \qquad x + f(x) \to x + \mathbb{E}[f]

    ``layers`` are the units (from 1): attention, MLP, token mixing, convolution, or all of a block. With ``means``,
    one for each layer, a unit adds its branch's mean over images, for every token or cell and channel; see
    :func:`mean_branches`. If a block ends in an activation (ResNet), that is left out too: its input has been through
    one. Downsampling and units whose shortcut computes something or is missing cannot be left out. In a model without
    an adapter, each block is tested for being residual; blocks left out still run, with their output unused.
    """

    layers: tuple[int, ...]
    means: tuple[Mean, ...] = ()
    name: ClassVar[str] = "lesion"
    title: ClassVar[str] = "Units left out"
    references: ClassVar[tuple[str, ...]] = (
        "Veit, Wilber and Belongie, Residual Networks Behave Like Ensembles of Relatively Shallow Networks, "
        "NeurIPS 2016",
        "Park and Kim, How Do Vision Transformers Work?, ICLR 2022",
    )

    def __post_init__(self) -> None:
        if len(set(self.layers)) != len(self.layers) or len(self.means) not in (0, len(self.layers)):
            raise UserError(
                f"A lesion of the layers {self.layers} with {len(self.means)} means: name each layer once and give "
                "one mean for each, or none."
            )

    def __call__(self, subject: Subject) -> Subject:
        """The subject without these units."""
        refuse_unknown(self.layers, subject)
        why = irremovable_layers(subject, self.layers) if self.layers else {}
        for kept in why:
            raise UserError(
                f"Layer {kept} of {subject.name} ({subject.places[kept - 1].name}) cannot be left out: {why[kept]}."
            )
        return with_edit(subject, self)

    def apply(self, anatomy: AbstractAnatomy) -> AbstractAnatomy:
        """The anatomy without these units."""
        left = dict(zip(self.layers, self.means or (None,) * len(self.layers), strict=True))
        if not isinstance(anatomy, Composition):
            return bypass(anatomy, left) if left else anatomy
        units = list(anatomy.units)
        for layer, mean in left.items():
            units[layer - 1] = without_branch(units[layer - 1], mean)
        return replace(anatomy, units=tuple(units))

    def only(self, layers: tuple[int, ...]) -> "Lesion":
        """The lesion of some of its layers, with their means."""
        means = dict(zip(self.layers, self.means, strict=False))
        return Lesion(layers, tuple(means[layer] for layer in layers) if means else ())

    @classmethod
    def of_block(cls, subject: Subject, block: int) -> "Lesion":
        """The lesion of a block's units that can be left out; ``block`` counts from 0, as in the subject's places."""
        layers = blocks_of(subject).get(block, ())
        if not layers:
            raise UserError(f"{subject.name} has no block {block} with a unit that can be left out.")
        return cls(layers)

    @classmethod
    def examples(cls) -> "tuple[Lesion, ...]":
        """The second unit, and the first two."""
        return cls((2,)), cls((1, 2))

    @classmethod
    @override
    def nothing(cls) -> "tuple[Lesion, ...]":
        return (cls(()),)


def blocks_of(subject: Subject) -> dict[int, tuple[int, ...]]:
    """The layers that can be left out, by block."""
    why, blocks = irremovable_layers(subject), dict[int, tuple[int, ...]]()
    for layer, place in enumerate(subject.places, start=1):
        if layer not in why:
            blocks[place.block] = (*blocks.get(place.block, ()), layer)
    return blocks


def mean_branches(subject: Subject, images: Images, layers: Sequence[int], batch_size: int = 32) -> Lesion:
    """The lesion that replaces these layers' branches by their means over the images.

    A branch is what a unit adds to its input. Cost: one forward pass over the images; the means are float64 and take
    one image's activation for each layer.
    """
    chosen = tuple(layers)
    refuse_unknown(chosen, subject)
    sums = _BranchSums(subject, chosen)
    count = show_batches(subject, images, batch_size, sums.see)
    return Lesion(chosen, tuple(Mean(sums.total[layer] / count) for layer in chosen))


@dataclass
class _BranchSums(AbstractObserver):
    """The sums over images of what units add to their input."""

    subject: Subject
    layers: tuple[int, ...]
    total: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    _entering: Stream | None = None

    def see(self, pixels: Float[Tensor, "batch channels height width"]) -> None:
        """Add these images."""
        if isinstance(self.subject.anatomy, Composition):
            self.subject.anatomy.walk(pixels, self)
            return
        looks = {self.subject.places[layer - 1].name: self._look(layer) for layer in self.layers}
        with look_at(self.subject.module, looks):
            self.subject.anatomy.walk(pixels, Unwatched())

    def _look(self, layer: int) -> Look:
        def add(entered: Entered, output: object) -> None:
            first = entered.first
            if first is None or not isinstance(output, Tensor) or first.shape != output.shape:
                name = self.subject.places[layer - 1].name
                raise UserError(f"The unit {name!r} changes the shape of its input, so it has no branch.")
            self._add(layer, output - first)

        return add

    def stream(self, layer: int, stream: Stream) -> None:
        """Add the change across the unit if it is one of the layers."""
        anatomy = self.subject.anatomy
        if layer in self.layers and self._entering is not None and isinstance(anatomy, Composition):
            bypass = anatomy.units[layer - 1].bypass
            if bypass is None:
                raise UserError(f"{self.subject.places[layer - 1].name} has no identity shortcut, so no branch.")
            self._add(layer, stream.values - bypass(self._entering).values)
        self._entering = stream

    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        """The fused kernel's context."""
        return attention.context()

    def _add(self, layer: int, branch: Tensor) -> None:
        change = to_float64(branch).sum(0)
        self.total[layer] = self.total[layer] + change if layer in self.total else change
