"""What a diagnostic is: per-image numbers of activations, folded over batches."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitscope.engine.reading.activation import ActivationKind, AttentionRows, Every, FeatureMap, Predictions
from vitscope.engine.reading.fold import Means, Observations
from vitscope.measurement.bounds import check_bounds
from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.models.unit import Place
from vitscope.runs.registry import Registry

Activation = TypeVar("Activation", FeatureMap, AttentionRows, Predictions)


@dataclass(frozen=True)
class Known(Generic[Activation]):
    """An activation whose answer is known by pencil and paper."""

    why: str
    activation: Activation
    answer: Mapping[str, Float[Tensor, "batch ..."]]
    tolerance: float = 1e-5


def differences(diagnostic: "AnyDiagnostic", seen: Observations, before: Observations) -> Observations:
    """Two subjects' differences image by image, if their shapes agree; ``diagnostic.places`` stay as they are."""
    return {
        key: values if key[1] in diagnostic.places else values - before[key]
        for key, values in seen.items()
        if key in before and before[key].shape == values.shape
    }


@dataclass(frozen=True)
class Scene:
    """What a diagnostic may know about the model when it draws its conclusion."""

    places: tuple[Place, ...]

    def coordinates(self, layers: tuple[int, ...]) -> dict[str, object]:
        """The labels of an axis over depth: layer number, unit's name, kind, stage and block (-1 for the stem)."""
        places = [self.places[layer - 1] if layer else None for layer in layers]
        return {
            "layer": np.asarray(layers, dtype=np.int64),
            "unit": ("layer", [place.name if place else "stem" for place in places]),
            "kind": ("layer", [place.kind.value if place else "stem" for place in places]),
            "stage": ("layer", [place.stage if place else 0 for place in places]),
            "block": ("layer", [place.block if place else -1 for place in places]),
        }


class AbstractDiagnostic(ABC, Generic[Activation]):
    """A fold over batches: ``init``, ``update``, ``merge``, ``finish``.

    ``observe`` reduces an activation of a few images to numbers per image; the fold keeps their means and standard
    errors. So order and split of the batches do not matter, and two halves merged equal the whole.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    """The report's question under which it is shown."""
    reads: ClassVar[ActivationKind]
    every: ClassVar[Every] = Every.UNIT
    """At which layers feature maps are read."""
    references: ClassVar[tuple[str, ...]]
    changes: ClassVar[Mapping[str, str]] = {}
    """Quantities whose change across a unit is measured too, image by image, and the change's name."""
    nonlinear: ClassVar[frozenset[str]] = frozenset()
    """Quantities of its conclusion that are not means of numbers per image, such as a sum of absolute values of means:
    their change is not the mean of the changes image by image."""
    places: ClassVar[frozenset[str]] = frozenset()
    """Numbers per image that only locate other numbers; a difference of two subjects keeps them."""

    def __post_init__(self) -> None:
        """Refuse numbers out of bounds."""
        check_bounds(self)

    @abstractmethod
    def observe(self, activation: Activation) -> Mapping[str, Float[Tensor, "batch ..."]]:
        """Numbers per image. A quantity that has no meaning at this layer is left out."""

    @abstractmethod
    def conclude(self, means: Means, scene: Scene) -> xr.Dataset:
        """The labelled result; its first variable is the headline."""

    @classmethod
    @abstractmethod
    def known_answers(cls) -> tuple[Known[Activation], ...]:
        """Activations whose answer is known by hand, which the tests check."""

    def init(self) -> Means:
        """The state before the first batch."""
        return Means()

    def update(self, state: Means, observations: Observations) -> Means:
        """The state after one more batch: the numbers per image, and their changes from layer to layer unless given."""
        return state.update({**self._layer_changes(observations), **observations})

    def _layer_changes(self, observations: Observations) -> dict[tuple[int, str], Tensor]:
        found: dict[tuple[int, str], Tensor] = {}
        for quantity, change in self.changes.items():
            layers = sorted(layer for layer, name in observations if name == quantity)
            for before, after in pairwise(layers):
                found[after, change] = observations[after, quantity] - observations[before, quantity]
        return found

    def merge(self, one: Means, other: Means) -> Means:
        """The state after the batches of both."""
        return one.merge(other)

    def finish(self, state: Means, scene: Scene) -> xr.Dataset:
        """The labelled result, with its title, question, references and definition; empty if nothing was seen."""
        result = xr.Dataset() if state.moments is None else self.conclude(state, scene)
        return result.assign_attrs(
            title=self.title,
            question=self.question,
            references=list(self.references),
            definition=(type(self).__doc__ or "").strip(),
        )


def over_depth(means: Means, scene: Scene, quantities: tuple[Quantity, ...]) -> xr.Dataset:
    """Quantities over the layers at which any of them was seen, and along their own axis if they have one.

    What was not seen (a head that a stage does not have, a quantity without meaning at a layer) is NaN with count 0.
    """
    seen = [quantity for quantity in quantities if means.layers(quantity.name)]
    layers = tuple(sorted({layer for quantity in seen for layer in means.layers(quantity.name)}))
    result = xr.Dataset(coords=scene.coordinates(layers))
    for quantity in seen:
        read = (means.mean, means.error, means.count)
        columns = [_fill(layers, {at: one(at, quantity.name) for at in means.layers(quantity.name)}) for one in read]
        dims = ("layer",) if quantity.axis is None else ("layer", quantity.axis)
        coords = {} if quantity.axis is None else {quantity.axis: np.arange(columns[0].shape[1])}
        result = result.assign(label_quantity(quantity, dims, columns[0], columns[1], columns[2], coords))
    return result


def scalars(means: Means, quantities: tuple[Quantity, ...]) -> xr.Dataset:
    """Quantities of the whole model, without an axis."""
    result = xr.Dataset()
    for quantity in (quantity for quantity in quantities if means.layers(quantity.name)):
        result = result.assign(label_quantity(quantity, (), *means.parts(0, quantity.name), {}))
    return result


def _fill(layers: tuple[int, ...], rows: Mapping[int, NDArray[Any]]) -> NDArray[Any]:
    """The rows of all layers; a layer without one, or with a shorter one, is filled with NaN (counts with 0)."""
    first = next(iter(rows.values()))
    shape = () if first.ndim == 0 else (max(row.size for row in rows.values()),)
    filled = np.full((len(layers), *shape), np.nan if first.dtype.kind == "f" else 0, first.dtype)
    for index, layer in enumerate(layers):
        if layer in rows:
            filled[(index, slice(rows[layer].size))[: 1 + len(shape)]] = rows[layer]
    return filled


AnyDiagnostic = AbstractDiagnostic[FeatureMap] | AbstractDiagnostic[AttentionRows] | AbstractDiagnostic[Predictions]

DIAGNOSTICS: Registry[AnyDiagnostic] = Registry("diagnostic", "vitscope.diagnostics", AbstractDiagnostic)
