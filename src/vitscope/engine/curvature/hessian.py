"""The loss of a mini-batch as a function of the weights, and its Hessian as a product with vectors."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from typing_extensions import override

from vitscope.data.batch import Batch
from vitscope.measurement.errors import UserError
from vitscope.models.attention import Attention
from vitscope.models.edit import with_module
from vitscope.models.feed import input_like, quantised_layers
from vitscope.models.rewritten import copy_module
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractObserver, Subject, Unwatched
from vitscope.numerics.precision import WITHOUT_DOUBLE

Precision = Literal["float32", "float64"]
DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}


class AbstractHessian(ABC):
    """A Hessian with respect to named weights laid out as one flat vector, available through its products."""

    @property
    @abstractmethod
    def weights(self) -> Mapping[str, Tensor]:
        """The weights of the derivatives, in the order of the flat vector."""

    @abstractmethod
    def product(self, vector: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
        """The Hessian times a vector."""

    @property
    def size(self) -> int:
        """The number of weights."""
        return sum(weight.numel() for weight in self.weights.values())

    @property
    def like(self) -> Tensor:
        """A tensor of the weights' device and type."""
        return next(iter(self.weights.values()))

    def start(self, generator: torch.Generator) -> Float[Tensor, " size"]:
        """A Gaussian vector; ``generator`` is the CPU's, so that every device starts alike."""
        return torch.randn(self.size, generator=generator, dtype=torch.float64).to(self.like)

    def split_by_weight(self, vector: Float[Tensor, " size"]) -> dict[str, Tensor]:
        """The flat vector's pieces in the shapes of the weights they belong to; views."""
        pieces = vector.split([weight.numel() for weight in self.weights.values()])
        return {name: piece.view_as(weight) for (name, weight), piece in zip(self.weights.items(), pieces, strict=True)}


@final
@dataclass(frozen=True, eq=False)
class LossHessian(AbstractHessian):
    """The Hessian of one loss, from its gradient's graph, which is built once and kept for all products.

    ``gradients`` are with respect to ``weights``, with their graph; ``told`` is called after each product. A product
    costs about six times the multiplications of a forward pass (twice those of a forward and a backward pass, which it
    differentiates); rebuilding the graph each time would make it nine. Memory: the graph of the forward and the
    backward pass.
    """

    loss: float
    named_weights: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    told: Callable[[], None] = lambda: None

    @property
    @override
    def weights(self) -> Mapping[str, Tensor]:
        return self.named_weights

    @property
    def gradient(self) -> Float[Tensor, " size"]:
        """The loss's gradient, flat and without graph."""
        return torch.cat([gradient.detach().reshape(-1) for gradient in self.gradients.values()])

    def product(self, vector: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
        """The Hessian times a vector: the gradient of the vector's product with the gradient."""
        pieces = self.split_by_weight(vector)
        curved = {name: gradient for name, gradient in self.gradients.items() if gradient.requires_grad}
        if not curved:
            return torch.zeros_like(vector)
        products = torch.autograd.grad(
            list(curved.values()),
            list(self.named_weights.values()),
            [pieces[name] for name in curved],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        self.told()
        self._refuse_unfinite("Hessian", products)
        return torch.cat([product.reshape(-1) for product in products])

    def _refuse_unfinite(self, what: str, pieces: Sequence[Tensor]) -> None:
        """Raise ``UserError`` if a derivative of the loss is not finite although the loss is."""
        found = (name for name, piece in zip(self.weights, pieces, strict=True) if not bool(piece.isfinite().all()))
        if name := next(found, None):
            raise UserError(
                f"The {what} of the loss with respect to {name} is not finite, though the loss is, so the curvature "
                "cannot be measured (a root at zero, or zero divided by zero, causes that)."
            )

    def restrict(self, names: Sequence[str]) -> "LossHessian":
        """The diagonal block of these weights, from the same graph."""
        return LossHessian(
            self.loss,
            {name: self.named_weights[name] for name in names},
            {name: self.gradients[name] for name in names},
            self.told,
        )


@final
@dataclass(frozen=True, eq=False)
class MeanHessian(AbstractHessian):
    """The Hessian of a weighted mean of several losses with the same weights; the shares sum to 1.

    Cost of a product: one product of each. Memory: all their graphs.
    """

    hessians: tuple[LossHessian, ...]
    shares: tuple[float, ...]

    @property
    @override
    def weights(self) -> Mapping[str, Tensor]:
        return self.hessians[0].weights

    def product(self, vector: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
        """The mean of the products."""
        total = torch.zeros_like(vector)
        for hessian, share in zip(self.hessians, self.shares, strict=True):
            total += share * hessian.product(vector)
        return total


def hessian_of(loss: Float[Tensor, ""], weights: Mapping[str, Tensor]) -> LossHessian:
    """The Hessian of a loss that was computed from these weights, which require gradients."""
    gradients = torch.autograd.grad(
        loss, list(weights.values()), create_graph=True, allow_unused=True, materialize_grads=True
    )
    return LossHessian(float(loss.detach()), dict(weights), dict(zip(weights, gradients, strict=True)))


def trainable_copy(subject: Subject, precision: Precision) -> Subject:
    """A copy of the subject whose weights are new leaves of the graph, in this precision.

    If the precision is the old module's, the new weights share its memory; nothing here writes to them. The old
    module's weights get no gradients, and its ``requires_grad`` flags stay. The copy is differentiated with respect to
    the weights that require gradients in the old module, or all of them if none does.
    """
    dtype, module = DTYPES[precision], subject.module
    device = input_like(module).device
    if precision == "float64" and device.type in WITHOUT_DOUBLE:
        raise UserError(f"{subject.name} is on {device}, which has no float64; use float32, or put it on the CPU.")
    frozen = not any(weight.requires_grad for weight in module.parameters())
    memo: dict[int, object] = {}
    for weight in module.parameters():
        value = weight.detach()
        value = value.to(dtype) if value.is_floating_point() else value
        memo[id(weight)] = nn.Parameter(value, (weight.requires_grad or frozen) and value.is_floating_point())
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.to(dtype) if buffer.is_floating_point() else buffer
    twin = copy_module(module, memo)
    twin.train()  # some modules cache what they compute from their weights in evaluation mode; this drops it
    for before, after in zip(module.modules(), twin.modules(), strict=True):
        after.train(before.training)
    return with_module(subject, twin)


def weights_of(subject: Subject) -> dict[str, Tensor]:
    """A trainable copy's weights that require gradients, by name."""
    found: dict[str, Tensor] = {
        name: weight for name, weight in subject.module.named_parameters() if weight.requires_grad
    }
    if not found:
        raise UserError(f"{subject.name} has no weights, so its loss has no curvature.")
    return found


class ExplicitAttention(AbstractObserver):
    """Attention as the weights times the values, which can be differentiated twice; fused kernels cannot."""

    @override
    def stream(self, layer: int, stream: Stream) -> None:
        pass

    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        """The weights times the values."""
        return attention.mixed_weights() @ attention.values


def loss_of(subject: Subject, batch: Batch, observer: AbstractObserver | None = None) -> Float[Tensor, ""]:
    """A trainable copy's mean cross-entropy over a batch, with its graph; with soft labels if the batch has them."""
    refuse_without_loss(subject, batch.labels is not None or batch.targets is not None)
    with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        return losses(subject, batch, observer or ExplicitAttention()).mean()


def losses(subject: Subject, batch: Batch, observer: AbstractObserver) -> Float[Tensor, " batch"]:
    """The cross-entropy of each image of a batch that has labels, or soft ones."""
    like = input_like(subject.module)
    truth = batch.labels if batch.targets is None else batch.targets.to(like.dtype)
    assert truth is not None, "batches without labels are refused before"
    logits = subject.anatomy.walk(batch.pixels.to(like.device), observer)
    return functional.cross_entropy(logits, truth.to(like.device), reduction="none")


def with_finite_loss(subject: Subject, batch: Batch) -> Batch:
    """The batch without the images whose loss is not finite: they would spoil the whole mini-batch's curvature.

    Cost: a forward pass, of the subject and not of its trainable copy, in which some modules would cache what they
    compute from their weights without a gradient.
    """
    with torch.no_grad():
        finite = losses(subject, batch, Unwatched()).isfinite().cpu()
    return batch if bool(finite.all()) else batch.take(finite)


def refuse_without_loss(subject: Subject, labelled: bool) -> None:
    """Raise ``UserError`` if there is no loss to differentiate."""
    reason = why_no_loss(subject, labelled)
    if reason:
        raise UserError(f"The curvature of the loss cannot be measured: {reason}.")


def why_no_loss(subject: Subject, labelled: bool) -> str:
    """Why there is no loss to differentiate; empty if there is one."""
    if not subject.class_count:
        return f"{subject.name} has no classifier"
    if quantised := quantised_layers(subject.module):
        return f"{subject.name} has quantised layers ({quantised[0]}), which have no gradient; measure it unquantised"
    return "" if labelled else "the images have no labels"


def minibatch_hessian(subject: Subject, batch: Batch) -> LossHessian:
    """The Hessian of a trainable copy's loss over a batch, with respect to all its weights."""
    return hessian_of(loss_of(subject, batch), weights_of(subject))
