"""Losses of outputs against targets: value, gradient, and the dual value of a scaled gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from scipy.special import entr
from torch import Tensor


class AbstractLoss(ABC):
    r"""A convex loss: the weighted sum over the images ``index``, divided by the number of all images.

    Outputs are ``images rows outputs``. The dual value of a scale ``a`` is :math:`-\frac1n \sum_i w_i\,
    \ell_i^*(a \nabla \ell_i(f_i))`, by Fenchel's inequality at most the optimum of the whole problem wherever the
    scaled gradient is feasible (its adjoint image has spectral norm beta at most).
    """

    @property
    @abstractmethod
    def images(self) -> int:
        """Number of all images."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of outputs."""

    @property
    @abstractmethod
    def largest_scale(self) -> float:
        """The largest scale at which the conjugate is finite."""

    @abstractmethod
    def value_and_gradient(
        self, outputs: Float[Tensor, "batch rows outputs"], index: slice
    ) -> tuple[Float64[Tensor, ""], Float[Tensor, "batch rows outputs"]]:
        """The loss, summed over images in float64, and its gradient in the outputs."""

    @abstractmethod
    def dual(self, outputs: Float[Tensor, "batch rows outputs"], index: slice) -> Callable[[float], float]:
        """The dual value of the gradient at these outputs, as a function of the scale."""

    def value(self, outputs: Float[Tensor, "batch rows outputs"], index: slice) -> Float64[Tensor, ""]:
        """The loss alone, summed over images in float64."""
        return self.value_and_gradient(outputs, index)[0]

    def gradient(
        self, outputs: Float[Tensor, "batch rows outputs"], index: slice
    ) -> Float[Tensor, "batch rows outputs"]:
        """The loss's gradient in the outputs."""
        return self.value_and_gradient(outputs, index)[1]

    @property
    @abstractmethod
    def curvature(self) -> float:
        """Largest second derivative in an output, for one image of the largest weight, before the division."""


@dataclass(frozen=True, eq=False)
class CrossEntropy(AbstractLoss):
    r"""Softmax cross-entropy, :math:`\ell(f, y) = \log \sum_k e^{f_k} - f_y`, in nats; outputs have one row.

    Its conjugate at ``p - y``, with ``p`` a distribution, is :math:`\sum_k p_k \log p_k`, so a gradient scaled by ``a``
    has the dual value of the entropy of ``a softmax(f) + (1 - a) y``, for ``a`` from 0 to 1.
    """

    labels: Int[Tensor, " images"]
    weights: Float[Tensor, " images"]
    """Weight of each image; their mean is 1."""
    classes: int

    @property
    def images(self) -> int:
        """Number of all images."""
        return len(self.labels)

    @property
    def outputs(self) -> int:
        """Number of classes."""
        return self.classes

    @property
    def largest_scale(self) -> float:
        """1: above it ``a softmax(f) + (1 - a) y`` is no distribution."""
        return 1.0

    @property
    def curvature(self) -> float:
        """Half the largest weight (Boehning 1992)."""
        return 0.5 * float(self.weights.max())

    def value_and_gradient(
        self, outputs: Float[Tensor, "batch rows outputs"], index: slice
    ) -> tuple[Float64[Tensor, ""], Float[Tensor, "batch rows outputs"]]:
        """Mean over all images of the weighted cross-entropy, and ``w (softmax(f) - y) / n``."""
        labels, weights = self._labels(outputs, index), self._weights(outputs, index) / self.images
        logs = _log_softmax(outputs)
        value = -(logs.gather(0, labels).squeeze(0).double() @ weights.double())
        gradient = logs.exp_().scatter_add_(0, labels, -torch.ones_like(logs[:1])).mul_(weights)
        return value, gradient.T.unsqueeze(1)

    def value(self, outputs: Float[Tensor, "batch rows outputs"], index: slice) -> Float64[Tensor, ""]:
        """The mean over all images of the weighted cross-entropy."""
        logs = _log_softmax(outputs).gather(0, self._labels(outputs, index)).squeeze(0)
        return -(logs.double() @ self._weights(outputs, index).double()) / self.images

    def dual(self, outputs: Float[Tensor, "batch rows outputs"], index: slice) -> Callable[[float], float]:
        """The weighted entropy of ``scale softmax(f) + (1 - scale) y``."""
        labels, weights = self._labels(outputs, index), self._weights(outputs, index).double()
        logs = _log_softmax(outputs)
        others = -torch.expm1(logs.gather(0, labels)).squeeze(0)
        spread = -(logs.exp() * logs).scatter_(0, labels, 0.0).sum(0)

        def value(scale: float) -> float:
            entropy = torch.special.entr(1 - scale * others) + scale * spread + float(entr(scale)) * others
            return float(entropy.double() @ weights) / self.images

        return value

    def _labels(self, like: Tensor, index: slice) -> Tensor:
        return self.labels[None, index].to(like.device)

    def _weights(self, like: Tensor, index: slice) -> Tensor:
        return self.weights[index].to(like)


@dataclass(frozen=True, eq=False)
class Squared(AbstractLoss):
    r"""Half the squared distance, :math:`\tfrac12 \lVert f - Y \rVert^2`, summed over the rows and outputs of an image.

    A gradient scaled by ``a`` has the dual value :math:`-a \langle f - Y, Y \rangle - \tfrac{a^2}{2} \lVert f - Y
    \rVert^2`.
    """

    targets: Float[Tensor, "images rows outputs"]
    weights: Float[Tensor, " images"]
    """Weight of each image; their mean is 1."""

    @property
    def images(self) -> int:
        """Number of all images."""
        return len(self.targets)

    @property
    def outputs(self) -> int:
        """Number of outputs of a row."""
        return self.targets.shape[2]

    @property
    def largest_scale(self) -> float:
        """Infinity: the conjugate is finite everywhere."""
        return float("inf")

    @property
    def curvature(self) -> float:
        """The largest weight."""
        return float(self.weights.max())

    def value_and_gradient(
        self, outputs: Float[Tensor, "batch rows outputs"], index: slice
    ) -> tuple[Float64[Tensor, ""], Float[Tensor, "batch rows outputs"]]:
        """Mean over all images of half the weighted squared distance, and ``w (f - Y) / n``."""
        off, weights = outputs - self._targets(outputs, index), self._weights(outputs, index)
        each = off.square().sum((1, 2), dtype=torch.float64) / 2
        return (each * weights).sum() / self.images, off * (weights / self.images)[:, None, None]

    def dual(self, outputs: Float[Tensor, "batch rows outputs"], index: slice) -> Callable[[float], float]:
        """A concave parabola in the scale."""
        targets, weights = self._targets(outputs, index).double(), self._weights(outputs, index).double()
        off = outputs.double() - targets
        slope = -float(((off * targets).sum((1, 2)) * weights).sum()) / self.images
        bend = -float((off.square().sum((1, 2)) * weights).sum()) / (2 * self.images)
        return lambda scale: slope * scale + bend * scale**2

    def _targets(self, like: Tensor, index: slice) -> Tensor:
        return self.targets[index].to(like)

    def _weights(self, like: Tensor, index: slice) -> Tensor:
        return self.weights[index].to(like)


def _log_softmax(outputs: Float[Tensor, "batch 1 outputs"]) -> Float[Tensor, "outputs batch"]:
    """Log-softmax with classes first: for ten classes twenty times as fast as along the last axis."""
    return outputs.squeeze(1).T.contiguous().log_softmax(0)
