"""Losses of outputs against targets: value, gradient, and the dual value of a scaled gradient."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


class AbstractLoss(ABC):
    r"""A convex loss, summed over the images ``index`` of all, each with its weight, divided by the number of all.

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
        """Up to which scale the conjugate is finite."""

    @abstractmethod
    def value(self, outputs: Float[Tensor, "batch rows outputs"], index: slice) -> Float[Tensor, ""]:
        """The loss."""

    @abstractmethod
    def gradient(
        self, outputs: Float[Tensor, "batch rows outputs"], index: slice
    ) -> Float[Tensor, "batch rows outputs"]:
        """Its gradient in the outputs."""

    @abstractmethod
    def dual(self, outputs: Float[Tensor, "batch rows outputs"], index: slice, scale: float) -> Float[Tensor, ""]:
        """The dual value of the gradient at these outputs, times ``scale``."""

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
        """1."""
        return 1.0

    @property
    def curvature(self) -> float:
        """Half the largest weight (Boehning 1992)."""
        return 0.5 * float(self.weights.max())

    def value(self, outputs: Float[Tensor, "batch rows outputs"], index: slice) -> Float[Tensor, ""]:
        """Mean over all images of the weighted cross-entropy."""
        each = torch.nn.functional.cross_entropy(outputs.squeeze(1), self._labels(outputs, index), reduction="none")
        return (each * self._weights(outputs, index)).sum() / self.images

    def gradient(
        self, outputs: Float[Tensor, "batch rows outputs"], index: slice
    ) -> Float[Tensor, "batch rows outputs"]:
        """``w (softmax(f) - y) / n``."""
        gradient = outputs.softmax(-1)
        labels = self._labels(outputs, index)
        gradient[torch.arange(len(labels), device=outputs.device), 0, labels] -= 1
        return gradient * (self._weights(outputs, index) / self.images)[:, None, None]

    def dual(self, outputs: Float[Tensor, "batch rows outputs"], index: slice, scale: float) -> Float[Tensor, ""]:
        """The weighted entropy of ``scale softmax(f) + (1 - scale) y``."""
        mixed = outputs.squeeze(1).softmax(-1) * scale
        labels = self._labels(outputs, index)
        mixed[torch.arange(len(labels), device=outputs.device), labels] += 1 - scale
        entropy = torch.special.entr(mixed.clamp(0, 1)).sum(-1)
        return (entropy * self._weights(outputs, index)).sum() / self.images

    def _labels(self, like: Tensor, index: slice) -> Tensor:
        return self.labels[index].to(like.device)

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
        """Infinity."""
        return float("inf")

    @property
    def curvature(self) -> float:
        """The largest weight."""
        return float(self.weights.max())

    def value(self, outputs: Float[Tensor, "batch rows outputs"], index: slice) -> Float[Tensor, ""]:
        """Mean over all images of half the weighted squared distance."""
        each = (outputs - self._targets(outputs, index)).square().sum((1, 2)) / 2
        return (each * self._weights(outputs, index)).sum() / self.images

    def gradient(
        self, outputs: Float[Tensor, "batch rows outputs"], index: slice
    ) -> Float[Tensor, "batch rows outputs"]:
        """``w (f - Y) / n``."""
        weights = self._weights(outputs, index) / self.images
        return (outputs - self._targets(outputs, index)) * weights[:, None, None]

    def dual(self, outputs: Float[Tensor, "batch rows outputs"], index: slice, scale: float) -> Float[Tensor, ""]:
        """A concave parabola in ``scale``."""
        targets = self._targets(outputs, index)
        off = outputs - targets
        each = -scale * (off * targets).sum((1, 2)) - scale**2 / 2 * off.square().sum((1, 2))
        return (each * self._weights(outputs, index)).sum() / self.images

    def _targets(self, like: Tensor, index: slice) -> Tensor:
        return self.targets[index].to(like)

    def _weights(self, like: Tensor, index: slice) -> Tensor:
        return self.weights[index].to(like)
