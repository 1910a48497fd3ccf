"""The smallest weights set to zero."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.measurement.errors import UserError
from vitscope.models.rewritten import kernels_of, refuse_computed_kernels, with_parameters
from vitscope.models.subject import Subject


@INTERVENTIONS.add("weight-prune")
@final
@dataclass(frozen=True)
class WeightPrune(AbstractIntervention):
    """A share ``sparsity`` of the matrices' and kernels' entries, those of least magnitude, set to zero.

    Afterwards ``round(sparsity * n)`` of ``n`` entries are zero (or more, if more were before): of all matrices and
    kernels together (``global``), or of each separately (``layer``). Among entries of equal magnitude, the first in the
    order of the module go first. The stem's and the classifier's kernels count; biases, norms, LayerScale, tokens,
    position embeddings and biases, and look-up tables are never pruned. Cost: finding one order statistic of the
    weights.
    """

    sparsity: float
    scope: Literal["global", "layer"] = "global"

    name = "weight-prune"
    title = "Pruned weights"
    references = ("Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015",)
    changes_weights = True

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity <= 1:
            raise UserError(f"The sparsity is {self.sparsity}; it is the share of weights set to zero, from 0 to 1.")
        super().__post_init__()

    def __call__(self, subject: Subject) -> Subject:
        """The subject with its smallest weights at zero.

        Raises ``UserError`` if it has no matrix or kernel, or computes one from other numbers.
        """
        refuse_computed_kernels(subject)
        kernels = kernels_of(subject)
        if not kernels:
            raise UserError(f"{subject.name} has no matrix or kernel of weights, so nothing can be pruned.")
        groups = [list(kernels)] if self.scope == "global" else [[name] for name in kernels]
        pruned: dict[str, Tensor] = {}
        for names in groups:
            pruned |= dict(zip(names, without_smallest([kernels[name] for name in names], self.sparsity), strict=True))
        return with_parameters(subject, {name: new for name, new in pruned.items() if new is not kernels[name]})

    @classmethod
    def examples(cls) -> "tuple[WeightPrune, ...]":
        """Half of all weights, and four fifths of every layer's."""
        return (cls(0.5), cls(0.8, "layer"))

    @classmethod
    def nothing(cls) -> "tuple[WeightPrune, ...]":
        """None of the weights."""
        return (cls(0.0), cls(0.0, "layer"))


def without_smallest(tensors: Sequence[Float[Tensor, "..."]], share: float) -> list[Float[Tensor, "..."]]:
    """The tensors with ``round(share * n)`` of their ``n`` entries, the smallest by magnitude, set to zero.

    A tensor that loses nothing is returned itself.
    """
    sizes = [tensor.numel() for tensor in tensors]
    drop = smallest(torch.cat([tensor.reshape(-1).abs() for tensor in tensors]), round(share * sum(sizes)))
    masks = [mask.view_as(tensor) for mask, tensor in zip(drop.split(sizes), tensors, strict=True)]
    return [t.masked_fill(mask, 0) if bool(mask.any()) else t for mask, t in zip(masks, tensors, strict=True)]


def smallest(values: Float[Tensor, " entries"], count: int) -> Bool[Tensor, " entries"]:
    """Where the ``count`` smallest values are; among equals, the first. Cost: linear in the number of values."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    border = torch.kthvalue(values, count).values
    below, at = values < border, values == border
    return below | (at & (at.cumsum(0) <= count - below.sum()))
