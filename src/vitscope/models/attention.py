"""Attention as queries, keys and values: everything a reader of attention needs, whatever kernel the model uses."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from vitscope.numerics.precision import at_least_float32


@dataclass(frozen=True)
class Attention:
    r"""One attention unit's inputs for one batch; the output follows from them.

    .. math:: A = \mathrm{softmax}(s\,Q K^\top + B), \qquad \text{context} = A V

    Global attention has one window. ``query_tokens`` and ``key_tokens`` say which token of the stream (prefix
    first, then patches row by row) each query and key is; -1 marks padding. ``mix_scores`` and ``mix_weights``
    (heads x heads) mix the heads before and after the softmax (talking heads, CaiT); without them heads stay
    separate. ``gate`` multiplies the joined context if the model gates it. The rows of :meth:`weights` are the
    probabilities of the softmax, before ``mix_weights``.
    """

    queries: Float[Tensor, "batch windows heads queries width"]
    keys: Float[Tensor, "batch windows heads keys width"]
    values: Float[Tensor, "batch windows heads keys value_width"]
    query_tokens: Int[Tensor, "windows queries"]
    key_tokens: Int[Tensor, "windows keys"]
    grid: tuple[int, int]
    prefix: int
    scale: float
    bias: Float[Tensor, "..."] | None = None
    mix_scores: tuple[Float[Tensor, "heads heads"], Float[Tensor, " heads"]] | None = None
    mix_weights: tuple[Float[Tensor, "heads heads"], Float[Tensor, " heads"]] | None = None
    gate: Float[Tensor, "..."] | None = None

    def scores(self) -> Float[Tensor, "batch windows heads queries keys"]:
        """The input of the softmax. Cost: batch x windows x heads x queries x keys x width products."""
        scores = (self.queries * self.scale) @ self.keys.transpose(-1, -2)
        scores = _mix(scores, self.mix_scores)
        return scores if self.bias is None else scores + self.bias

    def weights(self) -> Float[Tensor, "batch windows heads queries keys"]:
        """Attention probabilities; each row sums to 1."""
        return self.scores().softmax(-1)

    def mixed_weights(self) -> Float[Tensor, "batch windows heads queries keys"]:
        """The factors of the values: the weights, mixed between heads if the model does so."""
        return _mix(self.weights(), self.mix_weights)

    def context(self) -> Float[Tensor, "batch windows heads queries value_width"]:
        """The weights times the values, computed by the fused kernel unless heads are mixed."""
        if self.mix_scores is not None or self.mix_weights is not None:
            return self.mixed_weights() @ self.values
        q, k, v = (tensor.flatten(0, 1) for tensor in (self.queries, self.keys, self.values))
        bias = None
        if self.bias is not None:
            bias = self.bias.expand(*self.queries.shape[:-1], self.keys.shape[-2]).flatten(0, 1)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
        return out.unflatten(0, self.queries.shape[:2])

    def full(self) -> "Attention":
        """Convert to float32 from half precision, which is too coarse for measurements."""
        q, k, v = (at_least_float32(tensor) for tensor in (self.queries, self.keys, self.values))
        bias, gate = (None if tensor is None else at_least_float32(tensor) for tensor in (self.bias, self.gate))
        scores, weights = (_widen(mixing) for mixing in (self.mix_scores, self.mix_weights))
        return replace(self, queries=q, keys=k, values=v, bias=bias, gate=gate, mix_scores=scores, mix_weights=weights)

    def images(self, start: int, stop: int) -> "Attention":
        """Select the images ``start`` to ``stop`` of the batch."""
        bias = self.bias
        if bias is not None and bias.ndim == 5 and bias.shape[0] > 1:
            bias = bias[start:stop]
        q, k, v = (tensor[start:stop] for tensor in (self.queries, self.keys, self.values))
        gate = None if self.gate is None else self.gate[start:stop]
        return replace(self, queries=q, keys=k, values=v, bias=bias, gate=gate)


def _widen(mixing: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
    return None if mixing is None else (at_least_float32(mixing[0]), at_least_float32(mixing[1]))


def _mix(
    per_head: Float[Tensor, "batch windows heads queries keys"],
    mixing: tuple[Float[Tensor, "heads heads"], Float[Tensor, " heads"]] | None,
) -> Float[Tensor, "batch windows heads queries keys"]:
    if mixing is None:
        return per_head
    weight, bias = mixing
    return functional.linear(per_head.movedim(2, -1), weight, bias).movedim(-1, 2)


def bias_among(
    bias: Float[Tensor, "..."], tokens: Int[Tensor, "batch chosen"]
) -> Float[Tensor, "batch 1 heads chosen chosen"]:
    """A bias of global attention (last axes: heads or 1, queries, keys) among the tokens chosen for each image."""
    count, rows = bias.shape[-1], tokens.shape[0]
    table = bias.expand(rows, 1, *bias.shape[-3:]) if bias.ndim == 5 and bias.shape[0] > 1 else None
    pairs = (tokens[:, :, None] * count + tokens[:, None]).flatten(1)  # batch chosen²
    if table is not None:
        index = pairs[:, None, None].expand(-1, 1, table.shape[2], -1)
        return table.flatten(3).gather(3, index).unflatten(3, (tokens.shape[1], -1))
    shared = bias.reshape(-1, count * count)[:, pairs]  # heads batch chosen²
    return shared.movedim(0, 1)[:, None].unflatten(3, (tokens.shape[1], -1))


def global_tokens(count: int, device: torch.device) -> Int[Tensor, "1 tokens"]:
    """The token indices of one window that holds all ``count`` tokens."""
    return torch.arange(count, device=device)[None]


def join_heads(context: Float[Tensor, "batch 1 heads queries width"]) -> Float[Tensor, "batch queries dim"]:
    """The heads of one global window, concatenated."""
    return context[:, 0].transpose(1, 2).flatten(2)
