"""Blocks: what differs between attention, mixer and Fourier heads, as two linear maps and their adjoints.

A kind of head is one file of ``blocks/``: its block, the torch module that it becomes, its two estimators and what a
run reads from it. Everything else looks it up in :data:`BLOCKS`.

Every head of Sahiner et al. (2022) is ``outward(gate * inward(u)) V``: a linear map of the head's left weights ``u``,
a gate that leaves it linear, a second linear map into one or more rows of ``inner`` entries, and a readout ``V`` of
these. The outputs are therefore bilinear in ``(u, V)`` and linear in the lifted variable ``Z = sum_h u_h vec(V_h)^T``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, cast

import torch
import xarray as xr
from jaxtyping import Bool, Float, Float64
from sklearn.base import BaseEstimator
from torch import Tensor

from vitscope.convex.heads import Heads
from vitscope.convex.layer import AbstractHeads
from vitscope.runs.registry import Registry


@dataclass(frozen=True)
class Sizes:
    """The sizes of a problem: tokens an image, entries a token, outputs."""

    tokens: int
    dim: int
    outputs: int


@dataclass(frozen=True)
class Term:
    """One lifted variable: its gate and the group of entries that it reads and writes.

    ``vector`` is the gate's vector, None if everything passes. ``entries`` of a token go in, ``outputs`` come out.
    """

    vector: Float[Tensor, " left"] | None
    entries: slice
    outputs: slice

    def sizes(self, tokens: int) -> Sizes:
        """The sizes of the group."""
        return Sizes(tokens, self.entries.stop - self.entries.start, self.outputs.stop - self.outputs.start)


class AbstractLens(ABC):
    """A block's linear map from left weights to rows, on the images of one chunk and under one gate.

    ``rows(u)`` is linear in ``u``; ``adjoint`` is its adjoint, summed over the batch.
    """

    @abstractmethod
    def rows(self, left: Float[Tensor, "heads left"]) -> Float[Tensor, "batch heads rows inner"]:
        """The rows of each head."""

    @abstractmethod
    def adjoint(self, rows: Float[Tensor, "batch heads rows inner"]) -> Float[Tensor, "heads left"]:
        """The adjoint of :meth:`rows`: left weights, summed over the batch."""

    def image(self, residual: Float[Tensor, "batch rows outputs"], left: int, inner: int) -> Float[Tensor, "..."]:
        """The adjoint image of a residual, for these sizes of a head's two sides, as input of :meth:`unfolded`.

        Images of chunks add up. Cost: as many heads as its smaller side has entries, unless a lens has a cheaper way.
        """
        outputs = residual.shape[2]
        if left < inner * outputs:
            lefts = torch.eye(left).to(residual).split(32)
            return torch.cat([torch.einsum("bhri,bro->ioh", self.rows(some), residual) for some in lefts], 2)
        images: list[Tensor] = []
        for entry in torch.eye(inner).to(residual):
            images.append(self.adjoint(torch.einsum("bro,i->bori", residual, entry)))
        return torch.stack(images).view(inner, outputs, left)

    def unfold(self, image: Float[Tensor, "..."], inner: int) -> Float[Tensor, "inner outputs seen"]:
        """The image in the coordinates of :meth:`seen`, from :meth:`image`, which may leave out redundant entries."""
        return image

    def visible_basis(self) -> Float[Tensor, "seen left"] | None:
        """Orthonormal left weights; any others act as their projection on these. None if all act differently."""
        return None


class AbstractJoint(ABC):
    """A block's map from the lifted variables of all terms to outputs, cheaper together than one by one."""

    @abstractmethod
    def outputs(self, lifted: Float[Tensor, "terms left right"]) -> Float[Tensor, "images rows outputs"]:
        """The outputs of all images."""

    @abstractmethod
    def images(self, residual: Float[Tensor, "images rows outputs"]) -> Float[Tensor, "terms left right"]:
        """The adjoint: a residual's image for every term."""


class AbstractBlock(ABC):
    """A kind of head. Implementations are frozen dataclasses of its options, registered by name.

    ``tokens`` are images' token features, ``left`` the left weights of heads, ``activity`` what gates act on: its shape
    after ``batch heads`` is the block's own. ``pooled`` outputs are the mean over an image's tokens, one row; otherwise
    there is a row for every token.
    """

    name: ClassVar[str]
    layer: ClassVar[type[AbstractHeads]]
    """The torch module that heads of one term become."""
    of_mean: ClassVar[bool] = False
    """Whether pooled outputs depend only on an image's mean token; no token then has a weight of its own."""
    mixes: ClassVar[bool] = True
    """Whether a head's output for a token depends on the other tokens, as in attention."""
    weight: ClassVar[str] = """The weight of a patch is its part of the head's activity before the readout: the
    activity, a mean over tokens or shifts, is linear in the patches once the gates are decided, and is the sum of these
    parts."""
    """What :meth:`token_weights` returns, as a run's page describes it."""

    @staticmethod
    @abstractmethod
    def estimators() -> tuple[type[BaseEstimator], type[BaseEstimator]]:
        """The classifier and the regressor, subclasses of those in :mod:`vitscope.convex.estimator`."""

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """The names of its fields, which are parameters of its estimators too."""
        return tuple(field.name for field in fields(cast(Any, cls)))

    @abstractmethod
    def left_size(self, sizes: Sizes) -> int:
        """Entries of a head's left weights."""

    @abstractmethod
    def inner_size(self, sizes: Sizes) -> int:
        """Entries of a row before the readout, whose weights are ``inner x outputs``."""

    @abstractmethod
    def inward(
        self, tokens: Float[Tensor, "batch tokens dim"], left: Float[Tensor, "heads left"], pooled: bool
    ) -> Float[Tensor, "batch heads ..."]:
        """The activity before the gate, linear in ``left``."""

    @abstractmethod
    def inward_adjoint(
        self, tokens: Float[Tensor, "batch tokens dim"], activity: Float[Tensor, "batch heads ..."], pooled: bool
    ) -> Float[Tensor, "heads left"]:
        """The adjoint of ``inward`` in ``left``, summed over the batch."""

    @abstractmethod
    def outward(
        self, tokens: Float[Tensor, "batch tokens dim"], activity: Float[Tensor, "batch heads ..."], pooled: bool
    ) -> Float[Tensor, "batch heads rows inner"]:
        """From the gated activity to the rows, linear in ``activity``."""

    @abstractmethod
    def outward_adjoint(
        self, tokens: Float[Tensor, "batch tokens dim"], rows: Float[Tensor, "batch heads rows inner"], pooled: bool
    ) -> Float[Tensor, "batch heads ..."]:
        """The adjoint of ``outward`` in ``activity``."""

    def first_shape(self, sizes: Sizes) -> tuple[int, ...]:
        """The shape of a head's left weights ``W_1`` in :attr:`layer`; a row of all of them by default."""
        return (self.left_size(sizes),)

    def token_weights(
        self,
        tokens: Float64[Tensor, "images tokens dim"],
        left: Float64[Tensor, " left"],
        passing: Float64[Tensor, "images ..."],
    ) -> Float64[Tensor, "images tokens"]:
        """The weight that a head gives each token, as :attr:`weight` says; ``passing`` is 1 where its activity passes.

        Taken from the gradient in the tokens. A block overrides it if its token weights are something else.
        """
        with torch.enable_grad():
            varied = tokens.clone().requires_grad_()
            activity = (self.inward(varied, left[None], True)[:, 0] * passing).flatten(1).mean(1)
            (gradient,) = torch.autograd.grad(activity.sum(), varied)
        return (gradient * tokens).sum(2)

    def readings(
        self, terms: Sequence[Term], heads: Heads, tokens: Float64[Tensor, "images tokens dim"]
    ) -> Mapping[str, xr.Dataset]:
        """Further groups of a run, from heads under fixed gates and some training images' tokens; none by default."""
        return {}

    def groups(self) -> int:
        """The number of groups into which a token's entries, and the outputs, are split; each has its own heads."""
        return 1

    def passes(
        self, tokens: Float[Tensor, "batch tokens dim"], gate: Float[Tensor, " left"], pooled: bool
    ) -> Bool[Tensor, "batch ..."]:
        """Where the activity of a gate's vector is not negative. Decided in float64, whatever the working precision."""
        return (self.inward(tokens.double(), gate.double()[None], pooled) >= 0)[:, 0]

    def lens(
        self, tokens: Float[Tensor, "batch tokens dim"], gate: Float[Tensor, " left"] | None, pooled: bool
    ) -> AbstractLens:
        """The linear map from left weights to rows on these images; ``gate`` None lets everything through.

        A block overrides it if the map can be prepared to cost less.
        """
        return GatedLens(self, tokens, None if gate is None else self.passes(tokens, gate, pooled)[:, None], pooled)

    def joint(
        self, tokens: Float[Tensor, "images tokens dim"], gates: Sequence[Float[Tensor, " left"]], pooled: bool
    ) -> AbstractJoint | None:
        """The map of all gates together, if the block has a cheaper one; None by default."""
        return None


@dataclass(frozen=True, eq=False)
class GatedLens(AbstractLens):
    """Any block under any gate, by its definition: inward, gate, outward. ``mask`` None lets everything through."""

    block: AbstractBlock
    tokens: Float[Tensor, "batch tokens dim"]
    mask: Bool[Tensor, "batch _ ..."] | None
    pooled: bool

    def rows(self, left: Float[Tensor, "heads left"]) -> Float[Tensor, "batch heads rows inner"]:
        """Inward, gate, outward."""
        activity = self.block.inward(self.tokens, left, self.pooled)
        return self.block.outward(self.tokens, self._apply_gate(activity), self.pooled)

    def adjoint(self, rows: Float[Tensor, "batch heads rows inner"]) -> Float[Tensor, "heads left"]:
        """The adjoints of outward, gate and inward, in this order."""
        activity = self.block.outward_adjoint(self.tokens, rows, self.pooled)
        return self.block.inward_adjoint(self.tokens, self._apply_gate(activity), self.pooled)

    def _apply_gate(self, activity: Tensor) -> Tensor:
        return activity if self.mask is None else activity * self.mask


@dataclass(frozen=True, eq=False)
class FeatureLens(AbstractLens):
    """A block whose rows have one entry: the product of ``features`` and the left weights."""

    features: Float[Tensor, "batch rows left"]

    def rows(self, left: Float[Tensor, "heads left"]) -> Float[Tensor, "batch heads rows 1"]:
        """``features u``."""
        return (self.features @ left.T).transpose(1, 2).unsqueeze(-1)

    def adjoint(self, rows: Float[Tensor, "batch heads rows 1"]) -> Float[Tensor, "heads left"]:
        """``features^T``, summed over the batch."""
        return torch.einsum("bhro,brl->hl", rows, self.features)


BLOCKS: Registry[AbstractBlock] = Registry("kind of head", "vitscope.convex.blocks", AbstractBlock)
