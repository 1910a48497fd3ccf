"""Directions in which weights are displaced, as values: drawn, given, or towards other weights."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from vitscope.measurement.errors import UserError
from vitscope.models.rewritten import parameters_of
from vitscope.models.subject import Subject
from vitscope.numerics.digest import tensor_bytes
from vitscope.numerics.direction import gaussian, normalise_columns, normalise_filters
from vitscope.numerics.precision import to_float64

Tensors = Mapping[str, Float[Tensor, "..."]]
Normalisation = Literal["filter-normalised", "park-kim"]

_SCALED = {"filter-normalised": normalise_filters, "park-kim": normalise_columns}


@dataclass(frozen=True)
class AbstractDirection(ABC):
    """A direction in the space of a subject's parameters; buffers (batch norm's statistics) have none."""

    @abstractmethod
    def of(self, subject: Subject) -> Tensors:
        """The direction's part for each parameter, by name; parameters without a part stay where they are."""

    @property
    @abstractmethod
    def description(self) -> Mapping[str, object]:
        """What determines it, for a run's spec."""


@final
@dataclass(frozen=True)
class RandomDirection(AbstractDirection):
    """Independent Gaussian numbers, scaled to the weights once.

    ``filter-normalised`` (Li et al. 2018): each filter (first axis: the weights of one output unit) has the norm of
    the model's filter. ``park-kim``: the norms are over the first axis instead, as in the code of Park and Kim (2022).
    Either way parameters of fewer than two axes (biases, norms, LayerScale) stay where they are.
    """

    seed: int = 0
    normalisation: Normalisation = "filter-normalised"

    def of(self, subject: Subject) -> Tensors:
        """Drawn for each parameter by its name, so that neither order nor number of parameters matters."""
        scaled = _SCALED[self.normalisation]
        weights = {name: p for name, p in parameters_of(subject).items() if p.ndim >= 2}
        return {name: scaled(gaussian(tuple(p.shape), self.seed, name), p) for name, p in weights.items()}

    @property
    def description(self) -> Mapping[str, object]:
        """Its kind and seed."""
        return {"direction": f"random, {self.normalisation}", "seed": self.seed}


@final
@dataclass(frozen=True, eq=False)
class GivenDirection(AbstractDirection):
    """Tensors by the names of parameters: an eigenvector of the Hessian, or any other direction."""

    tensors: Tensors
    label: str = "given"

    def of(self, subject: Subject) -> Tensors:
        """The tensors, which must fit the subject's parameters."""
        own = parameters_of(subject)
        for name, tensor in self.tensors.items():
            if name not in own or own[name].shape != tensor.shape:
                found = "no parameter of this name" if name not in own else f"{tuple(own[name].shape)} there"
                raise UserError(f"The direction's {name!r} is {tuple(tensor.shape)}; {subject.name} has {found}.")
        return self.tensors

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names and bytes. Cost: one pass over the tensors, once."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor_bytes(tensor))
        return digest.hexdigest()

    @property
    def description(self) -> Mapping[str, object]:
        """Its label and fingerprint."""
        return {"direction": self.label, "fingerprint": self.fingerprint}


@final
@dataclass(frozen=True, eq=False)
class TowardsWeights(AbstractDirection):
    """From the subject's parameters to other ones of the same names and shapes: at distance 1 lies the other model.

    Buffers are not moved, so with batch norm, distance 1 is the other model with this one's statistics.
    """

    weights: Tensors
    label: str

    def of(self, subject: Subject) -> Tensors:
        """The differences. Raises ``UserError`` if the other weights are of another architecture."""
        own = parameters_of(subject)
        for name, parameter in own.items():
            if name not in self.weights or self.weights[name].shape != parameter.shape:
                wanted = f"{name} of shape {tuple(parameter.shape)}"
                raise UserError(
                    f"{self.label} has no {wanted}, which {subject.name} has: give weights of the same model."
                )
        return {name: self.weights[name].to(parameter) - parameter for name, parameter in own.items()}

    @property
    def description(self) -> Mapping[str, object]:
        """Where it leads, and the fingerprint of that."""
        return {"direction": f"towards {self.label}", "fingerprint": GivenDirection(self.weights).fingerprint}


def fix_direction(direction: AbstractDirection, subject: Subject) -> GivenDirection:
    """The direction's tensors for this subject, computed once for any number of displacements."""
    words = ", ".join(f"{name} {value}" for name, value in direction.description.items() if name != "fingerprint")
    return GivenDirection(direction.of(subject), words.removeprefix("direction "))


def scale_to_weights(direction: GivenDirection, subject: Subject) -> GivenDirection:
    """The direction times one factor, so that its norm is that of the subject's parameters of two axes or more.

    That is the norm of a filter-normalised direction, so that distances mean the same.
    """
    weights = [p for p in parameters_of(subject).values() if p.ndim >= 2]
    wanted = sum(float(to_float64(p).square().sum()) for p in weights) ** 0.5
    found = sum(float(to_float64(t).square().sum()) for t in direction.tensors.values()) ** 0.5
    if not found > 0:
        raise UserError("The direction has no length, so it cannot be scaled; give another one.")
    tensors = {name: tensor * (wanted / found) for name, tensor in direction.tensors.items()}
    return GivenDirection(tensors, f"{direction.label}, scaled to the norm of the weights")
