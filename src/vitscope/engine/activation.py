"""What diagnostics read: feature maps, attention rows and predictions of a few images, with shared intermediates."""

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitscope.models.attention import Attention
from vitscope.models.stream import Stream
from vitscope.numerics.attention import ascending, row_entropy


class Kind(Enum):
    """The kinds of activation there are; the value is the shape."""

    FEATURES = "batch cells channels"
    ATTENTION = "batch windows heads queries keys"
    PREDICTIONS = "batch classes"


@dataclass(frozen=True)
class Features:
    """The feature map after one layer, prefix tokens dropped."""

    cells: Float[Tensor, "batch cells channels"]
    grid: tuple[int, int]

    @classmethod
    def of(cls, stream: Stream) -> "Features":
        """The stream's patches and their grid."""
        return cls(stream.patches, stream.grid)


@dataclass(frozen=True)
class Predictions:
    """Logits and true classes."""

    logits: Float[Tensor, "batch classes"]
    labels: Int[Tensor, " batch"]

    @cached_property
    def log_probabilities(self) -> Float[Tensor, "batch classes"]:
        """Log-softmax of the logits."""
        return self.logits.float().log_softmax(-1)


@dataclass
class Workspace:
    """Buffers used again from chunk to chunk: fresh memory would cost more than what is computed in it."""

    buffers: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def empty(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """An uninitialised tensor; the last one of this name is overwritten."""
        size = torch.Size(shape).numel()
        held = self.buffers.get(name)
        if held is None or held.numel() < size or held.dtype != like.dtype or held.device != like.device:
            held = self.buffers[name] = like.new_empty(size)
        return held[:size].view(shape)


@dataclass(frozen=True)
class Rows:
    """The attention weights of one unit for a few images, and what several diagnostics need of them.

    Made from queries and keys chunk by chunk and never stored; valid until the next chunk is made. Rows of patch
    queries are what is averaged over; a unit whose only queries are prefix tokens (class attention) is read by them.
    ``token_norms`` are the Euclidean norms of the tokens that enter the unit, prefix first.
    """

    attention: Attention
    token_norms: Float[Tensor, "batch tokens"]
    image: tuple[int, int]
    workspace: Workspace

    @cached_property
    def scores(self) -> Float[Tensor, "batch windows heads queries keys"]:
        """What the softmax is taken of; masked entries are large and negative, never infinite."""
        a = self.attention
        if a.mix_scores is not None:
            return a.scores().clamp(min=-1e30)
        queries = (a.queries * a.scale).flatten(0, 2)
        keys = a.keys.transpose(-1, -2).contiguous().flatten(0, 2)
        shape = (*a.queries.shape[:-1], a.keys.shape[-2])
        scores = self.workspace.empty("scores", shape, a.queries)
        torch.bmm(queries, keys, out=scores.flatten(0, 2))
        return scores if a.bias is None else scores.add_(a.bias).clamp_(min=-1e30)

    @cached_property
    def weights(self) -> Float[Tensor, "batch windows heads queries keys"]:
        """Attention probabilities; each row sums to 1."""
        out = self.workspace.empty("weights", tuple(self.scores.shape), self.scores)
        return torch.softmax(self.scores, -1, out=out)

    @property
    def scratch(self) -> Float[Tensor, "batch windows heads queries keys"]:
        """Memory of the weights' shape for a moment's use."""
        return self.workspace.empty("scratch", tuple(self.weights.shape), self.weights)

    @cached_property
    def query_share(self) -> Float[Tensor, "windows 1 1 queries"]:
        """Averaging weights over the queries of a window: patches alike, prefix and padding 0."""
        tokens = self.attention.query_tokens
        patch = tokens >= self.attention.prefix
        chosen = patch if bool(patch.any()) else tokens >= 0
        share = chosen.to(self.weights) / chosen.sum(-1, keepdim=True).clamp(min=1)
        return share[:, None, None, :]

    def over_queries(self, per_row: Float[Tensor, "batch windows heads queries"]) -> Float[Tensor, "batch heads"]:
        """Mean over windows and their patch queries."""
        return (per_row * self.query_share[:, :, 0]).sum(-1).mean(1)

    @cached_property
    def mean_row(self) -> Float[Tensor, "batch windows heads keys"]:
        """Where the patch queries of a window look on average."""
        return torch.matmul(self.query_share, self.weights)[..., 0, :]

    @cached_property
    def row_entropy(self) -> Float[Tensor, "batch windows heads queries"]:
        """Entropy of every row, in nats."""
        return row_entropy(self.weights, self.scores, self.scratch)

    @cached_property
    def mean_entropy(self) -> Float[Tensor, "batch windows heads"]:
        """Mean entropy of the patch queries of a window."""
        return (self.row_entropy * self.query_share[:, :, 0]).sum(-1)

    @cached_property
    def ordered(self) -> Float[Tensor, "batch windows heads queries keys"]:
        """Every row sorted, smallest first."""
        return ascending(self.weights)

    @cached_property
    def patch_keys(self) -> Bool[Tensor, "windows keys"]:
        """Which keys are patches, neither prefix nor padding."""
        return self.attention.key_tokens >= self.attention.prefix

    @cached_property
    def distances(self) -> Float[Tensor, "windows queries keys"]:
        """Distance in pixels between the centres of a query's and a key's patches; 0 where one is not a patch."""
        a = self.attention
        query, key = self._pixels(a.query_tokens), self._pixels(a.key_tokens)
        distance = torch.cdist(query, key)
        patches = (a.query_tokens >= a.prefix)[:, :, None] & self.patch_keys[:, None]
        return torch.where(patches, distance, 0.0).to(self.weights)

    def _pixels(self, tokens: Int[Tensor, "windows slots"]) -> Float[Tensor, "windows slots two"]:
        a = self.attention
        cell = (tokens - a.prefix).clamp(min=0)
        row = (cell // a.grid[1] + 0.5) * (self.image[0] / a.grid[0])
        column = (cell % a.grid[1] + 0.5) * (self.image[1] / a.grid[1])
        return torch.stack([row, column], -1)


def rows_with(
    weights: Float[Tensor, "batch windows heads queries keys"],
    grid: tuple[int, int],
    prefix: int = 0,
    cell: int = 1,
    token_norms: Float[Tensor, "batch tokens"] | None = None,
) -> Rows:
    """Rows whose attention weights are exactly these, over all tokens of a grid: what known answers are made of.

    Queries are the logarithms of the weights and keys the identity, so that the weights are made as a model's are.
    """
    batch, windows, heads, count, keys = weights.shape
    eye = torch.eye(keys).expand(batch, windows, heads, keys, keys)
    tokens = torch.arange(count).expand(windows, count)
    attention = Attention(weights.clamp(min=1e-30).log(), eye, eye, tokens, tokens, grid=grid, prefix=prefix, scale=1.0)
    norms = torch.ones(batch, keys) if token_norms is None else token_norms
    return Rows(attention, norms, (grid[0] * cell, grid[1] * cell), Workspace())
