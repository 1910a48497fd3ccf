"""A shallow vision transformer on top of further attention layers, by autograd: the paper's deeper models, in small."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from vitscope.labs.shallow.attention import attention
from vitscope.labs.shallow.mixing import Gradient
from vitscope.labs.shallow.shallow_vit import ShallowVit, mean_hinge
from vitscope.labs.shallow.weights import Weights
from vitscope.measurement.errors import UserError


@dataclass(frozen=True)
class DeeperVit:
    r"""``layers - 1`` attention layers with a residual below a `ShallowVit`; with one layer it is that model itself.

    .. math:: X \leftarrow X + W_O W_V X\, \mathrm{softmax}(s\, X^T W_K^T W_Q X)

    A lower layer's :math:`W_O` is :math:`d \times m_a` and starts at zero, so that the initial outputs are the shallow
    model's; its other weights start as the shallow model's do. Outside of the theorems.
    """

    shallow: ShallowVit
    layers: int = 2

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise UserError(f"layers is {self.layers}; it must be at least 1.")

    def initial(
        self, tokens: int, patterns: Float32[Tensor, "patterns dim"], generator: torch.Generator
    ) -> tuple[Weights, ...]:
        """One trial's weights, layer by layer; the top weights of all but the last are unused."""
        drawn = [self.shallow.initial(tokens, patterns, generator) for _ in range(self.layers)]
        dim, width = patterns.shape[1], self.shallow.value_width
        return (
            *(replace(one, output=torch.zeros(1, dim, width), top=torch.zeros(1, dim, tokens)) for one in drawn[:-1]),
            drawn[-1],
        )

    def outputs(
        self,
        weights: tuple[Weights, ...],
        tokens: Float[Tensor, "trials images tokens dim"],
        keep: Bool[Tensor, "trials images tokens"] | None = None,
    ) -> Float[Tensor, "trials images"]:
        """``F`` of every image; differentiable by every weight."""
        for layer in weights[:-1]:
            tokens = tokens + self._attended(layer, tokens, keep)
        last = weights[-1]
        hidden = self._attended(last, tokens, keep).relu()
        each = (hidden * last.top.mT.unsqueeze(1)).sum(3)
        kept = torch.ones_like(each) if keep is None else keep.to(each.dtype)
        return (each * kept).sum(2) / kept.sum(2)

    def gradient(
        self,
        weights: tuple[Weights, ...],
        tokens: Float[Tensor, "trials images tokens dim"],
        labels: Float[Tensor, "trials images"],
        keep: Bool[Tensor, "trials images tokens"] | None = None,
    ) -> tuple[Gradient, ...]:
        """The gradient of each trial's mean hinge loss, for every layer in the order of `Weights.trained`."""
        with torch.enable_grad():
            traced = tuple(Weights(*(part.detach().requires_grad_() for part in layer.all)) for layer in weights)
            loss = mean_hinge(self.outputs(traced, tokens, keep), labels).sum()
            flat = [part for layer in traced for part in layer.trained]
            found = torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True)
        return tuple(tuple(found[start : start + 4]) for start in range(0, len(found), 4))

    def _attended(
        self,
        layer: Weights,
        tokens: Float[Tensor, "trials images tokens dim"],
        keep: Bool[Tensor, "trials images tokens"] | None,
    ) -> Float[Tensor, "trials images tokens rows"]:
        """Rows ``W_O W_V X softmax(...)`` of every query."""
        mixed = attention(self.shallow, layer, tokens, keep) @ tokens
        return mixed @ torch.bmm(layer.output, layer.value).mT.unsqueeze(1)
