"""Trained heads as ordinary torch modules: tokens to logits, without any part of the solver."""

from typing import Final, final

from torch import Tensor, nn
from torch.nn import functional

from vitscope.convex.block import Term
from vitscope.convex.heads import Factors
from vitscope.convex.layer import AbstractHeads
from vitscope.convex.trained import Trained


@final
class Part(nn.Module):
    """Heads that read some entries of a token and write some outputs; the other outputs are 0."""

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
    likewise for other blocks. ``terms`` holds one :class:`Part` for each gate and group (and draw of an ensemble, whose
    mean is part of ``W_2``). It takes tokens of any precision and computes in the precision of ``offset``. Buffers hold
    float32 numbers whatever their precision, so ``float()`` and ``double()`` change only rounding.
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
    shape = trained.block.first_shape(term.sizes(trained.sizes.tokens))
    gate = None if term.vector is None else term.vector.double().unflatten(0, shape)
    right = factors.right / len(trained.members)
    return trained.block.layer(factors.left.unflatten(1, shape), right, gate, trained.pooled, trained.relu)
