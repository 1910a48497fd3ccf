"""Blocks: what differs between attention, mixer and Fourier heads, as two linear maps and their adjoints.

Every head of Sahiner et al. (2022) is ``outward(gate * inward(u)) V``: a linear map of the head's left weights ``u``,
a gate that leaves it linear, a second linear map into one or more rows of ``inner`` entries, and a readout ``V`` of
these. The outputs are therefore bilinear in ``(u, V)`` and linear in the lifted variable ``Z = sum_h u_h vec(V_h)^T``.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitscope.runs.registry import Registry


@dataclass(frozen=True)
class Sizes:
    """The sizes of a problem: tokens an image, entries a token, outputs."""

    tokens: int
    dim: int
    outputs: int


class AbstractLens(ABC):
    """A block's linear map from left weights to rows, on the images of one chunk and under one gate.

    ``rows(u)`` is linear in ``u``; ``adjoint`` is its adjoint, summed over the batch.
    """

    @abstractmethod
    def rows(self, left: Float[Tensor, "heads left"]) -> Float[Tensor, "batch heads rows inner"]:
        """The rows of each head."""

    @abstractmethod
    def adjoint(self, rows: Float[Tensor, "batch heads rows inner"]) -> Float[Tensor, "heads left"]:
        """Left weights."""

    def image(self, residual: Float[Tensor, "batch rows outputs"], left: int, inner: int) -> Float[Tensor, "..."]:
        """The adjoint image of a residual, for these sizes of a head's two sides, as :meth:`unfolded` takes it.

        It adds up over chunks. Cost: as many heads as its smaller side has entries, unless a lens knows better.
        """
        outputs = residual.shape[2]
        if left < inner * outputs:
            lefts = torch.eye(left).to(residual).split(32)
            return torch.cat([torch.einsum("bhri,bro->ioh", self.rows(some), residual) for some in lefts], 2)
        images: list[Tensor] = []
        for entry in torch.eye(inner).to(residual):
            images.append(self.adjoint(torch.einsum("bro,i->bori", residual, entry)))
        return torch.stack(images).view(inner, outputs, left)

    def unfolded(self, image: Float[Tensor, "..."], inner: int) -> Float[Tensor, "inner outputs seen"]:
        """The image in coordinates of :meth:`seen`, where :meth:`image` leaves out what follows from the rest."""
        return image

    def seen(self) -> Float[Tensor, "seen left"] | None:
        """Orthonormal left weights: all others have the rows of their projection on these. None where all differ."""
        return None


class AbstractJoint(ABC):
    """A block's map from the lifted variables of all terms to outputs, where together they cost less."""

    @abstractmethod
    def outputs(self, lifted: Float[Tensor, "terms left right"]) -> Float[Tensor, "images rows outputs"]:
        """The outputs of all images."""

    @abstractmethod
    def images(self, residual: Float[Tensor, "images rows outputs"]) -> Float[Tensor, "terms left right"]:
        """The adjoint."""


class AbstractBlock(ABC):
    """A block of a head. Implementations are frozen dataclasses of its options, registered by name.

    ``tokens`` are images' token features, ``left`` the left weights of heads, ``activity`` what is gated: its shape
    after ``batch heads`` is the block's own. ``pooled`` outputs are the mean over an image's tokens, one row; otherwise
    there is a row for every token.
    """

    name: ClassVar[str]
    of_mean: ClassVar[bool] = False
    """Whether pooled outputs follow from an image's mean token alone."""

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

    def groups(self) -> int:
        """Into how many groups the entries of a token, and the outputs, are split; each has heads of its own."""
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

        A block overrides it where the map can be prepared so that it costs less.
        """
        return GatedLens(self, tokens, None if gate is None else self.passes(tokens, gate, pooled)[:, None], pooled)

    def joint(
        self, tokens: Float[Tensor, "images tokens dim"], gates: Sequence[Float[Tensor, " left"]], pooled: bool
    ) -> AbstractJoint | None:
        """The map of all gates together, where the block knows a cheaper one; None by default."""
        return None


@dataclass(frozen=True, eq=False)
class GatedLens(AbstractLens):
    """Any block under any gate, as it is defined: inward, gate, outward. ``mask`` None lets everything through."""

    block: AbstractBlock
    tokens: Float[Tensor, "batch tokens dim"]
    mask: Bool[Tensor, "batch _ ..."] | None
    pooled: bool

    def rows(self, left: Float[Tensor, "heads left"]) -> Float[Tensor, "batch heads rows inner"]:
        """Inward, gate, outward."""
        activity = self.block.inward(self.tokens, left, self.pooled)
        return self.block.outward(self.tokens, self._gated(activity), self.pooled)

    def adjoint(self, rows: Float[Tensor, "batch heads rows inner"]) -> Float[Tensor, "heads left"]:
        """The same way back."""
        activity = self.block.outward_adjoint(self.tokens, rows, self.pooled)
        return self.block.inward_adjoint(self.tokens, self._gated(activity), self.pooled)

    def _gated(self, activity: Tensor) -> Tensor:
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


BLOCKS: Registry[AbstractBlock] = Registry("block", "vitscope.convex.blocks")
