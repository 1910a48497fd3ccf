"""What diagnostics read: feature maps, attention rows and predictions of a few images, with shared intermediates."""

import math
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitscope.models.attention import Attention
from vitscope.models.stream import Stream
from vitscope.numerics.attention import row_entropy, sort_rows
from vitscope.numerics.precision import at_least_float32


class ActivationKind(Enum):
    """The kinds of activation; the value is the shape."""

    FEATURES = "batch cells channels"
    ATTENTION = "batch windows heads queries keys"
    PREDICTIONS = "batch classes"


class Every(Enum):
    """At which layers feature maps are read: after the stem and every unit, or every block."""

    UNIT = "unit"
    BLOCK = "block"


@dataclass(frozen=True)
class FeatureMap:
    """The feature map after one layer, prefix tokens dropped."""

    cells: Float[Tensor, "batch cells channels"]
    grid: tuple[int, int]

    @classmethod
    def of(cls, stream: Stream) -> "FeatureMap":
        """The stream's patches and their grid; half precision is widened, since it is too coarse to measure in."""
        return cls(at_least_float32(stream.patches), stream.grid)

    @cached_property
    def centred(self) -> Float[Tensor, "batch cells channels"]:
        """The cells minus their mean over the map."""
        return self.cells - self.cells.mean(1, keepdim=True)


@dataclass(frozen=True)
class Predictions:
    """Logits and true classes; ``present`` are the classes that occur among the images, None if all do.

    ``targets`` are the soft labels of augmented images; None if there are only hard ones.
    """

    logits: Float[Tensor, "batch classes"]
    labels: Int[Tensor, " batch"]
    present: Int[Tensor, " present"] | None = None
    targets: Float[Tensor, "batch classes"] | None = None

    @cached_property
    def log_probabilities(self) -> Float[Tensor, "batch classes"]:
        """Log-softmax of the logits."""
        return at_least_float32(self.logits).log_softmax(-1)

    @cached_property
    def finite(self) -> Bool[Tensor, " batch"]:
        """The images without NaN in their log-probabilities; the others are never right."""
        return ~self.log_probabilities.isnan().any(1)

    @cached_property
    def right(self) -> Bool[Tensor, " batch"]:
        """The images whose most probable class is the true one; a tie goes to the lower class."""
        return (self.log_probabilities.argmax(1) == self.labels) & self.finite

    @cached_property
    def rank(self) -> Int[Tensor, " batch"]:
        """Place of the true class by probability, 1 if it is the most probable; among equals the lower comes first.

        An image whose logits are not finite has a rank without meaning.
        """
        own = self.log_probabilities.gather(1, self.labels[:, None])
        before = torch.arange(self.log_probabilities.shape[1], device=own.device) < self.labels[:, None]
        return 1 + ((self.log_probabilities > own) | ((self.log_probabilities == own) & before)).sum(1)

    @cached_property
    def loss(self) -> Float[Tensor, " batch"]:
        """The cross-entropy with the label, or with the soft target if there is one; NaN without finite logits."""
        if self.targets is None:
            return -self.log_probabilities.gather(1, self.labels[:, None])[:, 0]
        return -torch.where(self.targets > 0, self.log_probabilities * self.targets, 0.0).sum(1)


@dataclass
class Workspace:
    """Buffers reused from chunk to chunk: fresh memory would cost more than what is computed in it."""

    buffers: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def empty(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """An uninitialised tensor; the last one of this name is overwritten."""
        size = torch.Size(shape).numel()
        held = self.buffers.get(name)
        if held is None or held.numel() < size or held.dtype != like.dtype or held.device != like.device:
            held = self.buffers[name] = like.new_empty(size)
        return held[:size].view(shape)


@dataclass(frozen=True)
class Geometry:
    """Where the queries and keys of an attention unit lie in the image; the same for all images."""

    query_tokens: Int[Tensor, "windows queries"]
    key_tokens: Int[Tensor, "windows keys"]
    grid: tuple[int, int]
    prefix: int
    image: tuple[int, int]
    dtype: torch.dtype

    @classmethod
    def of(cls, attention: Attention, image: tuple[int, int]) -> "Geometry":
        """The geometry of these windows in an image of this height and width, its numbers in the queries' type."""
        tokens = (attention.query_tokens, attention.key_tokens)
        return cls(*tokens, attention.grid, attention.prefix, image, attention.queries.dtype)

    @cached_property
    def patch_queries(self) -> Bool[Tensor, "windows queries"]:
        """Which queries are patches, neither prefix nor padding."""
        return self.query_tokens >= self.prefix

    @cached_property
    def patch_keys(self) -> Bool[Tensor, "windows keys"]:
        """Which keys are patches, neither prefix nor padding."""
        return self.key_tokens >= self.prefix

    @cached_property
    def query_share(self) -> Float[Tensor, "windows queries"]:
        """Averaging weights over the queries of a window: equal for patches, 0 for prefix and padding.

        If no query is a patch (class attention), all but padding count equally.
        """
        chosen = self.patch_queries if bool(self.patch_queries.any()) else self.query_tokens >= 0
        return chosen.to(self.dtype) / chosen.sum(-1, keepdim=True).clamp(min=1)

    def spread(self, limit: int) -> Int[Tensor, " slots"]:
        """At most ``limit`` of the query slots that are averaged over, evenly spread over the window.

        They form a lattice, ``(a row + column) mod stride = 0``, so that each row and column has its share.
        """
        slots = (self.query_share > 0).any(0).nonzero()[:, 0]
        stride = -(-len(slots) // limit)
        width = self.grid[1] if len(self.query_tokens) == 1 else math.isqrt(len(slots))
        place = torch.arange(len(slots), device=slots.device)
        return slots[(place // width * max(1, round(0.382 * stride)) + place % width) % stride == 0]

    @cached_property
    def distances(self) -> Float[Tensor, "windows queries keys"]:
        """Distance in pixels between the centres of a query's and a key's patches; 0 if one is not a patch."""
        distance = torch.cdist(self._pixels(self.query_tokens), self._pixels(self.key_tokens))
        return torch.where(self.patch_queries[:, :, None] & self.patch_keys[:, None], distance, 0.0)

    def _pixels(self, tokens: Int[Tensor, "windows slots"]) -> Float[Tensor, "windows slots two"]:
        cell = (tokens - self.prefix).clamp(min=0)
        row = (cell // self.grid[1] + 0.5) * (self.image[0] / self.grid[0])
        column = (cell % self.grid[1] + 0.5) * (self.image[1] / self.grid[1])
        return torch.stack([row, column], -1).to(self.dtype)


@dataclass(frozen=True)
class AttentionRows:
    """The attention weights of one unit for a few images, and what several diagnostics need of them.

    Made from queries and keys chunk by chunk and never stored; valid until the next chunk is made. Averages are over
    the rows of patch queries, or of the prefix tokens if a unit has no other queries (class attention).
    ``token_norms`` are the Euclidean norms of the tokens that enter the unit, prefix first.
    """

    attention: Attention
    token_norms: Float[Tensor, "batch tokens"]
    geometry: Geometry
    workspace: Workspace

    @cached_property
    def scores(self) -> Float[Tensor, "batch windows heads queries keys"]:
        """The input of the softmax; masked entries are large and negative, never infinite."""
        a = self.attention
        if a.mix_scores is not None:
            return a.scores().clamp(min=-1e30)
        queries, keys = a.queries.flatten(0, 2), a.keys.flatten(0, 2).transpose(1, 2)
        shape = (*a.queries.shape[:-1], a.keys.shape[-2])
        scores = self.workspace.empty("scores", shape, a.queries)
        flat = scores.flatten(0, 2)
        torch.baddbmm(flat, queries, keys, beta=0, alpha=a.scale, out=flat)
        return scores if a.bias is None else scores.add_(a.bias).clamp_(min=-1e30)

    @cached_property
    def weights(self) -> Float[Tensor, "batch windows heads queries keys"]:
        """Attention probabilities; each row sums to 1."""
        out = self.workspace.empty("weights", tuple(self.scores.shape), self.scores)
        return torch.softmax(self.scores, -1, out=out)

    @property
    def scratch(self) -> Float[Tensor, "batch windows heads queries keys"]:
        """Temporary memory of the weights' shape."""
        return self.workspace.empty("scratch", tuple(self.weights.shape), self.weights)

    @property
    def context(self) -> Float[Tensor, "batch windows heads queries width"]:
        """The weights times the values, with which the unit continues."""
        if self.attention.mix_weights is not None:
            return self.attention.mixed_weights() @ self.attention.values
        return torch.bmm(self.weights.flatten(0, 2), self.attention.values.flatten(0, 2)).unflatten(
            0, self.weights.shape[:3]
        )

    def over_queries(self, per_row: Float[Tensor, "batch windows heads queries"]) -> Float[Tensor, "batch heads"]:
        """Mean over windows and their patch queries."""
        return (per_row * self.geometry.query_share[:, None]).sum(-1).mean(1)

    @cached_property
    def mean_row(self) -> Float[Tensor, "batch windows heads keys"]:
        """Where the patch queries of a window look on average."""
        return torch.matmul(self.geometry.query_share[:, None, None], self.weights)[..., 0, :]

    @cached_property
    def row_entropy(self) -> Float[Tensor, "batch windows heads queries"]:
        """Entropy of every row, in nats."""
        return row_entropy(self.weights, self.scores, self.scratch)

    @cached_property
    def mean_entropy(self) -> Float[Tensor, "batch windows heads"]:
        """Mean entropy of the patch queries of a window."""
        return (self.row_entropy * self.geometry.query_share[:, None]).sum(-1)

    @cached_property
    def patch_mass(self) -> Float[Tensor, "batch windows heads queries"]:
        """How much of each query's attention goes to patches, neither prefix nor padding."""
        inside = self.geometry.patch_keys
        if inside.shape[0] > 1:
            return torch.mul(self.weights, inside[:, None, None], out=self.scratch).sum(-1)
        return 1 - self.weights[..., ~inside[0]].sum(-1)

    @cached_property
    def _samples(self) -> "dict[int, RowSample]":
        return {}

    def sample(self, limit: int) -> "RowSample":
        """At most ``limit`` evenly spread rows of each window, for what would be costly with all of them."""
        if limit not in self._samples:
            slots = self.geometry.spread(limit)
            share = self.geometry.query_share[:, slots]
            rows = RowSample(
                self.weights[..., slots, :], self.row_entropy[..., slots], share / share.sum(-1, keepdim=True)
            )
            self._samples[limit] = rows
        return self._samples[limit]


@dataclass(frozen=True)
class RowSample:
    """Some rows of every window, with their entropies and the share of each in a mean over queries."""

    weights: Float[Tensor, "batch windows heads queries keys"]
    entropy: Float[Tensor, "batch windows heads queries"]
    share: Float[Tensor, "windows queries"]

    @cached_property
    def ordered(self) -> Float[Tensor, "batch windows heads queries keys"]:
        """Every row sorted, smallest first."""
        return sort_rows(self.weights)

    def over_queries(self, per_row: Float[Tensor, "batch windows heads queries"]) -> Float[Tensor, "batch heads"]:
        """Mean over windows and these queries."""
        return (per_row * self.share[:, None]).sum(-1).mean(1)


def rows_with(
    weights: Float[Tensor, "batch windows heads queries keys"],
    grid: tuple[int, int],
    prefix: int = 0,
    cell: int = 1,
    token_norms: Float[Tensor, "batch tokens"] | None = None,
) -> AttentionRows:
    """Rows whose attention weights are exactly these, over all tokens of a grid, for known answers.

    Queries are the logarithms of the weights and keys the identity, so that the weights are computed as a model's are.
    """
    batch, windows, heads, count, keys = weights.shape
    eye = torch.eye(keys).expand(batch, windows, heads, keys, keys)
    tokens = torch.arange(count).expand(windows, count)
    attention = Attention(weights.clamp(min=1e-30).log(), eye, eye, tokens, tokens, grid=grid, prefix=prefix, scale=1.0)
    norms = torch.ones(batch, keys) if token_norms is None else token_norms
    return AttentionRows(attention, norms, Geometry.of(attention, (grid[0] * cell, grid[1] * cell)), Workspace())
