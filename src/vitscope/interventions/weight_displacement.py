"""Weights moved along one or two directions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.interventions.direction import AbstractDirection, RandomDirection, Tensors
from vitscope.measurement.bounds import Bounds, bounded_field
from vitscope.models.rewritten import parameters_of, with_parameters
from vitscope.models.subject import Subject


@INTERVENTIONS.add("weight-displacement")
@final
@dataclass(frozen=True)
class WeightDisplacement(AbstractIntervention):
    r"""The weights moved to another point of the plane that two directions span through them.

    .. math:: \theta + \alpha d_1 + \beta d_2

    A direction is random and scaled to the weights (``RandomDirection``), given (``GivenDirection``: an eigenvector of
    the Hessian, say) or towards other weights (``TowardsWeights``). Parameters without a part in it, and buffers such
    as batch norm's statistics, stay as they are and are shared. A distance of 0 is the subject itself. Cost: one pass
    over the weights for each direction.
    """

    first: AbstractDirection
    second: AbstractDirection | None = None
    alpha: float = bounded_field(0.0, Bounds(-1e6, 1e6))
    beta: float = bounded_field(0.0, Bounds(-1e6, 1e6))

    name = "weight-displacement"
    title = "Displaced weights"
    references = ("Li et al., Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018",)
    changes_weights = True

    def __call__(self, subject: Subject) -> Subject:
        """The subject with its weights displaced."""
        steps = [(self.alpha, self.first), (self.beta, self.second)]
        taken = [(distance, one.of(subject)) for distance, one in steps if distance and one is not None]
        if not taken:
            return subject
        own = parameters_of(subject)
        moved = {name: own[name] for _, direction in taken for name in direction}
        return with_parameters(subject, {name: _displace(name, start, taken) for name, start in moved.items()})

    @property
    def settings(self) -> Mapping[str, object]:
        """Directions by what determines them, not by their tensors."""
        directions = {
            "first": self.first.description,
            "second": None if self.second is None else self.second.description,
        }
        return {"intervention": self.name, **directions, "alpha": self.alpha, "beta": self.beta}

    @classmethod
    def examples(cls) -> "tuple[WeightDisplacement, ...]":
        """One direction, and two of the other kind."""
        kim = (RandomDirection(1, "park-kim"), RandomDirection(2, "park-kim"))
        return (cls(RandomDirection(0), alpha=0.5), cls(*kim, alpha=-0.25, beta=0.5))

    @classmethod
    def nothing(cls) -> "tuple[WeightDisplacement, ...]":
        """No distance along either direction."""
        return (cls(RandomDirection(0), RandomDirection(1)),)


def _displace(name: str, start: Float[Tensor, "..."], steps: list[tuple[float, Tensors]]) -> Float[Tensor, "..."]:
    for distance, direction in steps:
        if name in direction:
            start = torch.add(start, direction[name].to(start), alpha=distance)
    return start
