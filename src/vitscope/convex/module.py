"""Trained heads as ordinary torch modules, in the layout of Sahiner et al. (2022): ``W_1h`` and ``W_2h`` of each head.

Plain torch without any part of the solver, so that they are trained on, traced, scripted and exported as any module.
"""

from abc import ABC, abstractmethod
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitscope.convex.block import AbstractBlock
from vitscope.convex.blocks.fno import AbstractFourier
from vitscope.convex.gates import Term
from vitscope.convex.heads import Factors
from vitscope.convex.trained import Trained
from vitscope.measurement.errors import UserError


class AbstractHeads(nn.Module, ABC):
    """The heads of one term: parameters ``W_1`` (heads first) and ``W_2`` (heads, inner, outputs), and their gate.

    ``gate`` has the shape of one ``W_1``, or is None: then all is let through, or with ``relu`` what is positive.
    Gates are decided in float64, as in training, so that none flips between precisions.
    """

    gate: Tensor | None
    pooled: Final[bool]
    relu: Final[bool]

    def __init__(self, W_1: Tensor, W_2: Tensor, gate: Tensor | None, pooled: bool, relu: bool) -> None:
        super().__init__()
        self.W_1 = nn.Parameter(W_1.clone())
        self.W_2 = nn.Parameter(W_2.clone())
        self.register_buffer("gate", None if gate is None else gate.clone())
        self.pooled = pooled
        self.relu = relu

    @abstractmethod
    def activity(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """What is gated, linear in the weights: ``(batch, heads, ...)``."""

    def gate_activity(self, tokens: Tensor, gate: Tensor) -> Tensor:
        """The activity of the gate's weights: ``(batch, 1, ...)``."""
        return self.activity(tokens, gate.unsqueeze(0))

    def sigma(self, tokens: Tensor) -> Tensor:
        """The activity of ``W_1`` under the activation."""
        activity, gate = self.activity(tokens, self.W_1), self.gate
        if self.relu:
            return functional.relu(activity)
        if gate is None:
            return activity
        passes = self.gate_activity(tokens.double(), gate.double()) >= 0
        return activity * passes.to(activity.dtype)


class AbstractNeurons(AbstractHeads):
    """Heads whose rows have one entry: hidden neurons, read out by ``W_2``."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Batch, rows, outputs."""
        hidden = self.sigma(tokens)
        if self.pooled:
            hidden = hidden.mean(2, keepdim=True)
        return hidden.transpose(1, 2) @ self.W_2.squeeze(1)


@final
class LinearHeads(AbstractNeurons):
    r""":math:`\sum_h \sigma(\bar x^T w_{1h})\, w_{2h}^T` of the mean token, or of every token."""

    def activity(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """``mean(X) w_1``: batch, heads, 1; or ``X w_1``: batch, heads, tokens."""
        seen = tokens.mean(1, keepdim=True) if self.pooled else tokens
        return (seen @ weights.transpose(0, 1)).transpose(1, 2)


@final
class MlpHeads(AbstractNeurons):
    r""":math:`\sum_h \sigma(X w_{1h})\, w_{2h}^T`."""

    def activity(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """``X w_1``: batch, heads, tokens."""
        return (tokens @ weights.transpose(0, 1)).transpose(1, 2)


@final
class AttentionHeads(AbstractHeads):
    r""":math:`\sum_h \sigma(X W_{1h} X^T)\, X W_{2h}`."""

    def activity(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """``X W_1 X^T``: batch, heads, queries, keys."""
        return tokens.unsqueeze(1) @ weights @ tokens.unsqueeze(1).transpose(2, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """Batch, rows, outputs."""
        attention = self.sigma(tokens)
        if self.pooled:
            attention = attention.mean(2, keepdim=True)
        return (attention @ tokens.unsqueeze(1) @ self.W_2).sum(1)


@final
class MixerHeads(AbstractHeads):
    r""":math:`\sum_h \sigma(W_{1h} X)\, W_{2h}`."""

    def activity(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """``W_1 X``: batch, heads, tokens, entries."""
        return weights @ tokens.unsqueeze(1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Batch, rows, outputs."""
        mixed = self.sigma(tokens)
        if self.pooled:
            mixed = mixed.mean(2, keepdim=True)
        return (mixed @ self.W_2).sum(1)


@final
class FourierHeads(AbstractNeurons):
    r""":math:`\sum_h \sigma(\mathrm{circ}(X)\, w_{1h})\, w_{2h}^T`, as a circular convolution over the grid of tokens.

    ``W_1`` is ``(heads, height, width, dim)``; the grid has one row where the tokens are one row. There is no Fourier
    transform in it, which export formats lack: convolutions cost ``tokens^2 dim`` multiply-adds a head and image.
    """

    shift: Tensor
    """The token of the kernel that meets token ``t`` at shift ``a``: shifts, tokens."""

    def __init__(self, W_1: Tensor, W_2: Tensor, gate: Tensor | None, pooled: bool, relu: bool) -> None:
        super().__init__(W_1, W_2, gate, pooled, relu)
        height, width = W_1.shape[1:3]
        row, column = torch.arange(height * width) // width, torch.arange(height * width) % width
        rows, columns = (row - row[:, None]) % height, (column - column[:, None]) % width
        self.register_buffer("shift", rows * width + columns)

    def activity(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """``circ(X) w_1``: batch, heads, shifts."""
        height, width = weights.shape[1], weights.shape[2]
        grid = tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)
        around = torch.cat((grid, grid[:, :, : height - 1]), 2)
        around = torch.cat((around, around[:, :, :, : width - 1]), 3)
        return functional.conv2d(around, weights.permute(0, 3, 1, 2)).flatten(2)

    def gate_activity(self, tokens: Tensor, gate: Tensor) -> Tensor:
        """The same by a matrix of all shifts: ONNX Runtime has no convolution in float64."""
        shifted = gate.flatten(0, 1)[self.shift].flatten(1)
        return (tokens.flatten(1) @ shifted.transpose(0, 1)).unsqueeze(1)


@final
class Part(nn.Module):
    """Heads that read some entries of a token and write some outputs; the others of theirs are 0."""

    first: Final[int]
    size: Final[int]
    before: Final[int]
    after: Final[int]

    def __init__(self, heads: AbstractHeads, term: Term, outputs: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.size = term.entries.start, term.entries.stop - term.entries.start
        self.before, self.after = term.outputs.start, outputs - term.outputs.stop

    def forward(self, tokens: Tensor) -> Tensor:
        """Batch, rows, outputs."""
        return functional.pad(self.heads(tokens.narrow(2, self.first, self.size)), (self.before, self.after))


@final
class ConvexHead(nn.Module):
    r"""A trained head: tokens (batch, tokens, dim) to logits (batch, classes), or outputs (batch, tokens, outputs).

    :math:`\mathrm{offset} + \sum_t \sum_h \sigma(X W_{1h} X^T)\, X W_{2h}` for attention, of standardised tokens;
    likewise for other blocks. ``terms`` are one :class:`Part` for each gate and group (and draw of an ensemble, whose
    mean is part of ``W_2``). Takes tokens of any precision and computes in that of ``offset``. Buffers hold numbers of
    float32, whatever their precision, so ``float()`` and ``double()`` change nothing but rounding.
    """

    mean: Tensor
    scale: Tensor
    offset: Tensor
    pooled: Final[bool]
    tokens: Final[int]
    dim: Final[int]

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.register_buffer("mean", trained.standardisation.mean.clone())
        self.register_buffer("scale", trained.standardisation.scale.clone())
        self.register_buffer("offset", trained.offset.clone())
        self.pooled, self.tokens, self.dim = trained.pooled, trained.sizes.tokens, trained.sizes.dim
        self.terms = nn.ModuleList(
            Part(_heads_of(trained, term, factors), term, trained.sizes.outputs)
            for member in trained.members
            for term, factors in zip(member.terms, member.heads.terms, strict=True)
            if len(factors)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Outputs of a batch."""
        seen = ((tokens.double() - self.mean.double()) * self.scale.double()).to(self.offset.dtype)
        rows = 1 if self.pooled else tokens.shape[1]
        outputs = self.offset.expand(tokens.shape[0], rows, -1)
        for term in self.terms:
            outputs = outputs + term(seen)
        return outputs.squeeze(1) if self.pooled else outputs


def _heads_of(trained: Trained, term: Term, factors: Factors) -> AbstractHeads:
    shape = _first_shape(trained.block, trained.sizes.tokens, term.entries.stop - term.entries.start)
    gate = None if term.vector is None else term.vector.double().unflatten(0, shape)
    kind = _KINDS.get(trained.block.name)
    if kind is None:
        raise UserError(f"There is no module of a {trained.block.name} head; there are: {', '.join(_KINDS)}.")
    left = factors.left.unflatten(1, shape)
    return kind(left, factors.right / len(trained.members), gate, trained.pooled, trained.relu)


def _first_shape(block: AbstractBlock, tokens: int, dim: int) -> tuple[int, ...]:
    """The shape of a head's ``W_1``."""
    if isinstance(block, AbstractFourier):
        return (*(block.grid or (1, tokens)), dim)
    return {"attention": (dim, dim), "mixer": (tokens, tokens)}.get(block.name, (dim,))


_KINDS: dict[str, type[AbstractHeads]] = {
    "linear": LinearHeads,
    "mlp": MlpHeads,
    "attention": AttentionHeads,
    "mixer": MixerHeads,
    "fno": FourierHeads,
    "block-fno": FourierHeads,
}
