"""The shallow vision transformer: one softmax attention, a two-layer perceptron, its top layer frozen."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from vitscope.labs.shallow.mixing import AbstractMixing, SoftmaxMixing, UniformMixing
from vitscope.labs.shallow.weights import Weights
from vitscope.measurement.errors import UserError


@dataclass(frozen=True)
class ShallowVit:
    r"""The network of Li, Wang, Liu and Chen (ICLR 2023), with its initial model; no residual, no norm, one head.

    .. math:: F(X) = \frac1{|S|} \sum_{l \in S} a_l^T
        \mathrm{ReLU}\bigl(W_O W_V X \,\mathrm{softmax}(s\, X^T W_K^T W_Q x_l)\bigr)

    :math:`S` are the tokens that are kept. The sum runs over them; with ``drops_keys`` so does the softmax, and a
    dropped token is absent altogether (in the paper's proofs alpha is the share among the kept tokens); without, only
    queries are dropped. The scale :math:`s` is 1 in the paper. ``attention=False`` is :math:`W_Q = W_K = 0`, where all
    tokens are attended alike and no gradient reaches either.

    Initial model, for orthonormal patterns :math:`\mu_j` and unit vectors :math:`p_j`, :math:`q_j`:
    :math:`\lVert W_V \mu_j - p_j\rVert =` ``sigma``, :math:`\lVert W_K \mu_j - q_j\rVert =
    \lVert W_Q \mu_j - q_j\rVert =` ``delta``, in random directions; :math:`W_O` has entries of :math:`N(0, \xi^2)`
    and :math:`A` of :math:`\pm 1/\sqrt m`, each with probability 1/2. The paper bounds the errors by these numbers;
    here they are equal to them. ``zero_query`` starts with :math:`W_Q = 0`: uniform attention that can learn.
    ``shared_top`` gives all places one vector :math:`a`, so that the place of a token does not matter.
    """

    neurons: int = 50
    value_width: int = 10
    query_width: int = 10
    sigma: float = 0.1
    delta: float = 0.1
    xi: float = 0.01
    attention: bool = True
    scale: float = 1.0
    drops_keys: bool = True
    zero_query: bool = False
    shared_top: bool = False

    def __post_init__(self) -> None:
        if min(self.neurons, self.value_width, self.query_width) < 1:
            raise UserError("neurons, value_width and query_width must be at least 1.")
        if min(self.sigma, self.delta, self.xi) < 0:
            raise UserError("sigma, delta and xi are sizes of errors: make none negative.")

    @property
    def mixing(self) -> AbstractMixing:
        """The closed forms of this model's output and gradient."""
        return SoftmaxMixing(self.scale, self.drops_keys) if self.attention else UniformMixing(self.drops_keys)

    def initial(self, tokens: int, patterns: Float32[Tensor, "patterns dim"], generator: torch.Generator) -> Weights:
        """One trial's initial weights, for images of ``tokens`` tokens and these orthonormal patterns."""
        if len(patterns) > min(self.value_width, self.query_width):
            raise UserError(
                f"{len(patterns)} patterns need value_width and query_width of at least {len(patterns)}, "
                f"not {self.value_width} and {self.query_width}."
            )
        value, key, query = (
            _near_orthonormal(width, patterns, error, generator)
            for width, error in (
                (self.value_width, self.sigma),
                (self.query_width, self.delta),
                (self.query_width, self.delta),
            )
        )
        output = self.xi * torch.randn(self.neurons, self.value_width, generator=generator)
        drawn = (self.neurons, 1 if self.shared_top else tokens)
        signs = (torch.randint(0, 2, drawn, generator=generator) * 2.0 - 1).repeat(1, tokens // drawn[1])
        if not self.attention:
            key = torch.zeros_like(key)
        if self.zero_query or not self.attention:
            query = torch.zeros_like(query)
        parts = (query, key, value, output, signs / self.neurons**0.5)
        return Weights(*(part.unsqueeze(0) for part in parts))

    def outputs(
        self,
        weights: Weights,
        tokens: Float[Tensor, "trials images tokens dim"],
        keep: Bool[Tensor, "trials images tokens"] | None = None,
    ) -> Float[Tensor, "trials images"]:
        """``F`` of every image; ``keep`` marks the tokens of ``S``, all tokens if it is None."""
        return self.mixing.outputs(weights, self.mixing.prepare(tokens, keep, weights.top))

    def gradient(
        self,
        weights: Weights,
        tokens: Float[Tensor, "trials images tokens dim"],
        labels: Float[Tensor, "trials images"],
        keep: Bool[Tensor, "trials images tokens"] | None = None,
    ) -> tuple[Float[Tensor, "trials _ _"], ...]:
        """The gradient of each trial's mean hinge loss, in the order of `Weights.trained`."""
        return self.mixing.gradient(weights, self.mixing.prepare(tokens, keep, weights.top), labels)


def mean_hinge(
    outputs: Float[Tensor, "trials images"], labels: Float[Tensor, "trials images"]
) -> Float[Tensor, " trials"]:
    """Mean of max(1 - y F, 0), 0 or more; 0 where all margins are at least 1."""
    return (1 - labels * outputs).clamp(min=0).mean(1)


def mean_error(
    outputs: Float[Tensor, "trials images"], labels: Float[Tensor, "trials images"]
) -> Float[Tensor, " trials"]:
    """Share of images with y F not above 0: the 0-1 error, 0 to 1. It is 0 long before the hinge loss is."""
    return (labels * outputs <= 0).to(outputs).mean(1)


def _near_orthonormal(
    width: int, patterns: Float32[Tensor, "patterns dim"], error: float, generator: torch.Generator
) -> Float32[Tensor, "width dim"]:
    """A matrix that maps pattern ``j`` to the ``j``-th unit vector plus a vector of length ``error``."""
    off = torch.randn(width, len(patterns), generator=generator)
    return (torch.eye(width, len(patterns)) + error * off / off.norm(dim=0)) @ patterns
