r"""Outputs and gradients of shallow vision transformers in closed form, many trials at a time.

Optimised for time, which small matrices spend on memory and overhead rather than on arithmetic:

* Queries and keys act only through :math:`J = W_Q^T W_K`, values only through :math:`M = W_O W_V`: each is one product.
* Tokens are columns. A product with a few rows and many columns is about four times as fast as its transpose.
* Softmax is ``exp2`` without a shift, since :math:`|s_{li}| \le \lVert J\rVert_F \max\lVert x\rVert^2` is far from
  overflow; if it is not, the largest score is subtracted. On a CPU torch's ``exp2`` is up to nine times as fast as
  its ``exp``.
* A row of ones below the tokens makes the product with the exponentials yield their sum, too. A dropped token is a
  column of zeros: it is in neither, and nothing is masked.
* ReLU is homogeneous: with :math:`V = A \odot 1[H > 0]` the output is :math:`\sum_l v_l^T M z_l`, so that one product
  :math:`M^T V` gives the output and the gradient with respect to :math:`Z`.
* With :math:`D_l = dz_l \cdot z_l` the gradient of the scores is :math:`P \odot (dZ^T X - D)`: no second matrix of
  scores is stored, and :math:`P` is never normalised (Dao, *FlashAttention*, 2022).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import e, log2
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitscope.labs.shallow.weights import Weights

Gradient = tuple[Float[Tensor, "trials _ _"], ...]


@dataclass(frozen=True, eq=False)
class PreparedImages:
    """Images prepared for a kind of mixing: columns of features, and the weights that read their outputs."""

    columns: Float[Tensor, "trials images features places"]
    readout: Float[Tensor, "trials images size"]
    square: float
    """An upper bound on the squared length of the tokens in the columns."""

    def take(self, start: int, stop: int) -> "PreparedImages":
        """The images from ``start`` to ``stop`` of all trials."""
        return PreparedImages(self.columns[:, start:stop], self.readout[:, start:stop], self.square)


class AbstractMixing(ABC):
    """How tokens are mixed before the perceptron, with the model's output and gradient."""

    @abstractmethod
    def scratch(self, tokens: int, dim: int, neurons: int) -> int:
        """How many numbers a step's largest intermediate results hold, for one image."""

    @abstractmethod
    def prepare(
        self,
        tokens: Float[Tensor, "trials images tokens dim"],
        keep: Bool[Tensor, "trials images tokens"] | None,
        top: Float[Tensor, "trials neurons tokens"],
    ) -> PreparedImages:
        """Images prepared once for all steps; an image keeps at least one token."""

    @abstractmethod
    def outputs(self, weights: Weights, seen: PreparedImages) -> Float[Tensor, "trials images"]:
        """``F`` of every image."""

    @abstractmethod
    def gradient(self, weights: Weights, seen: PreparedImages, labels: Float[Tensor, "trials images"]) -> Gradient:
        """The gradient of each trial's mean hinge loss, in the order of `Weights.trained`."""


@dataclass(frozen=True, eq=False)
class _Mixed:
    """The results of a forward pass that the backward pass needs."""

    tokens: Float[Tensor, "all_images dim tokens"]
    powers: Float[Tensor, "all_images tokens tokens"]
    inverse: Float[Tensor, "all_images 1 tokens"]
    mixed: Float[Tensor, "all_images dim tokens"]
    active: Float[Tensor, "all_images neurons tokens"]
    back: Float[Tensor, "all_images dim tokens"]
    each: Float[Tensor, "trials images tokens"]


@final
@dataclass(frozen=True)
class SoftmaxMixing(AbstractMixing):
    """Softmax attention with its scale; cost of a gradient: ``images tokens (4 tokens + 3 neurons) dim``, doubled."""

    scale: float = 1.0
    drops_keys: bool = True

    def scratch(self, tokens: int, dim: int, neurons: int) -> int:
        """Two matrices of scores, the neurons, and a few copies of the tokens."""
        return tokens * (2 * tokens + neurons + 6 * dim)

    def prepare(
        self,
        tokens: Float[Tensor, "trials images tokens dim"],
        keep: Bool[Tensor, "trials images tokens"] | None,
        top: Float[Tensor, "trials neurons tokens"],
    ) -> PreparedImages:
        """Tokens as columns with a one below each, zero where a key is dropped; 1/|S| for each query of S."""
        del top
        kept = _keep(tokens, keep)
        columns = torch.cat([tokens, torch.ones_like(tokens[..., :1])], 3).mT
        if self.drops_keys:
            columns = columns * kept.unsqueeze(2)
        square = float(tokens.square().sum(3).max())
        return PreparedImages(columns.contiguous(), kept / kept.sum(2, keepdim=True), square)

    def outputs(self, weights: Weights, seen: PreparedImages) -> Float[Tensor, "trials images"]:
        """The sum over queries of their share of the output."""
        return (self._forward(weights, seen).each * seen.readout).sum(2)

    def gradient(self, weights: Weights, seen: PreparedImages, labels: Float[Tensor, "trials images"]) -> Gradient:
        """Backpropagation through the perceptron, then through the attention."""
        run = self._forward(weights, seen)
        slope = hinge_slope((run.each * seen.readout).sum(2), labels).unsqueeze(2) * seen.readout
        sloped = run.mixed * slope.flatten(0, 1).unsqueeze(1)
        product = _sum_images(torch.bmm(sloped, run.active.mT), len(labels)).mT
        joint = self._attention_gradient(run, slope) * self.scale
        return (
            torch.bmm(weights.key, joint.mT),
            torch.bmm(weights.query, joint),
            torch.bmm(weights.output.mT, product),
            torch.bmm(product, weights.value.mT),
        )

    def _forward(self, weights: Weights, seen: PreparedImages) -> _Mixed:
        trials, images = seen.columns.shape[:2]
        columns = seen.columns.flatten(0, 1)
        tokens = columns[:, :-1]
        powers = self._powers(weights, columns, images, seen.square)
        sums = torch.bmm(columns, powers.mT)
        inverse = sums[:, -1:].reciprocal()
        mixed = sums[:, :-1] * inverse
        product = _for_each(torch.bmm(weights.output, weights.value), images)
        hidden = torch.bmm(product, mixed).unflatten(0, (trials, images))
        top = weights.top.unsqueeze(1).expand_as(hidden)
        torch.ops.aten.threshold_backward.grad_input(top, hidden, 0, grad_input=hidden)  # A where H > 0, in one pass
        active = hidden.flatten(0, 1)
        back = torch.bmm(product.mT, active)
        return _Mixed(
            tokens, powers, inverse, mixed, active, back, (back * mixed).sum(1).unflatten(0, (trials, images))
        )

    def _powers(
        self, weights: Weights, columns: Float[Tensor, "all_images features tokens"], images: int, square: float
    ) -> Float[Tensor, "all_images tokens tokens"]:
        """Exponentials of the scores, up to a factor for each query."""
        tokens = columns[:, :-1]
        joint = torch.bmm(weights.key.mT, weights.query).mul_(self.scale * log2(e))
        queries = torch.bmm(_for_each(joint, images), tokens)
        scores = torch.bmm(queries.mT, tokens)
        largest = float(joint.norm(dim=(1, 2)).max()) * square
        if not largest < log2(torch.finfo(scores.dtype).max) / 2:
            scores.masked_fill_(columns[:, -1:] == 0, -torch.inf)
            scores -= scores.amax(2, keepdim=True)
        return scores.exp2_()

    def _attention_gradient(
        self, run: _Mixed, slope: Float[Tensor, "trials images tokens"]
    ) -> Float[Tensor, "trials dim dim"]:
        """The gradient with respect to ``W_Q^T W_K``, before the scale."""
        back = run.back * (slope.flatten(0, 1).unsqueeze(1) * run.inverse)
        scores = torch.bmm(back.mT, run.tokens).mul_(run.powers)
        queries = torch.bmm(run.tokens, scores.mT)
        queries -= run.mixed * (slope * run.each).flatten(0, 1).unsqueeze(1)
        return _sum_images(torch.bmm(run.tokens, queries.mT), len(slope))


@final
@dataclass(frozen=True)
class UniformMixing(AbstractMixing):
    """No attention: every query sees the mean token, so that a model costs what one token costs."""

    drops_keys: bool = True

    def scratch(self, tokens: int, dim: int, neurons: int) -> int:
        """A few copies of the neurons and of the mean token."""
        del tokens
        return 3 * neurons + 6 * dim

    def prepare(
        self,
        tokens: Float[Tensor, "trials images tokens dim"],
        keep: Bool[Tensor, "trials images tokens"] | None,
        top: Float[Tensor, "trials neurons tokens"],
    ) -> PreparedImages:
        """The mean of the keys, and that of the top weights over the queries."""
        kept = _keep(tokens, keep)
        share = kept / kept.sum(2, keepdim=True)
        mean = (tokens * share.unsqueeze(3)).sum(2) if self.drops_keys else tokens.mean(2)
        return PreparedImages(mean.unsqueeze(3), torch.bmm(share, top.mT), float(mean.square().sum(2).max()))

    def outputs(self, weights: Weights, seen: PreparedImages) -> Float[Tensor, "trials images"]:
        """A two-layer perceptron on the mean token."""
        return self._forward(weights, seen)[1]

    def gradient(self, weights: Weights, seen: PreparedImages, labels: Float[Tensor, "trials images"]) -> Gradient:
        """The gradient, zero for queries and keys."""
        active, outputs = self._forward(weights, seen)
        sloped = seen.columns.squeeze(3) * hinge_slope(outputs, labels).unsqueeze(2)
        product = torch.bmm(active.mT, sloped)
        return (
            torch.zeros_like(weights.query),
            torch.zeros_like(weights.key),
            torch.bmm(weights.output.mT, product),
            torch.bmm(product, weights.value.mT),
        )

    def _forward(
        self, weights: Weights, seen: PreparedImages
    ) -> tuple[Float[Tensor, "trials images neurons"], Float[Tensor, "trials images"]]:
        product = torch.bmm(weights.output, weights.value)
        hidden = torch.bmm(seen.columns.squeeze(3), product.mT)
        active = torch.where(hidden > 0, seen.readout, 0)
        return active, (active * hidden).sum(2)


def hinge_slope(
    outputs: Float[Tensor, "trials images"], labels: Float[Tensor, "trials images"]
) -> Float[Tensor, "trials images"]:
    """Derivative of the mean hinge loss in each output: -y / images where the margin is below 1, else 0."""
    return torch.where(labels * outputs < 1, -labels / labels.shape[1], 0)


def _keep(
    tokens: Float[Tensor, "trials images tokens dim"], keep: Bool[Tensor, "trials images tokens"] | None
) -> Float[Tensor, "trials images tokens"]:
    return torch.ones_like(tokens[..., 0]) if keep is None else keep.to(tokens.dtype)


def _for_each(matrices: Float[Tensor, "trials rows columns"], images: int) -> Float[Tensor, "all_images rows columns"]:
    """Every trial's matrix, once for each of its images."""
    return matrices.unsqueeze(1).expand(-1, images, -1, -1).reshape(-1, *matrices.shape[1:])


def _sum_images(
    matrices: Float[Tensor, "all_images rows columns"], trials: int
) -> Float[Tensor, "trials rows columns"]:
    """The sum over each trial's images."""
    return matrices.unflatten(0, (trials, -1)).sum(1)
