"""How much attention differs between queries, and between heads."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from vitscope.engine.reading.activation import ActivationKind, AttentionRows, rows_with
from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AbstractDiagnostic, Known, Scene, over_depth
from vitscope.engine.reading.fold import Means
from vitscope.measurement.bounds import COUNT, bounded_field
from vitscope.measurement.quantity import Quantity
from vitscope.numerics.attention import distinct_keys, entropy, mean_pairwise_cosine, query_diversity

_NMI = Quantity(
    "mutual_information",
    "Normalised mutual information of query and key",
    "1",
    "0: all queries attend to the same keys (attention collapse); 1: every query attends to a key of its own.",
    "Near 0 in deep units means that position no longer matters there: good for a global summary, bad for dense tasks.",
    axis="head",
)
_QUERIES = Quantity(
    "queries",
    "Jensen-Shannon divergence among queries",
    "nats",
    "How much the patch queries of one image differ in where they attend; 0 if all attend alike.",
    axis="head",
)
_COSINE = Quantity(
    "queries_cosine",
    "1 - mean cosine between queries' rows",
    "1",
    "0 if all patch queries have the same attention row.",
    axis="head",
)
_KEYS = Quantity(
    "distinct_keys",
    "Distinct keys among the queries' top k",
    "1",
    "Keys among the top k of at least one query, as a share of the largest possible number.",
    axis="head",
)
_SPREAD = Quantity(
    "spread",
    "1 - squared norm of the mean row",
    "1",
    "0 if all queries attend to one and the same key.",
    axis="head",
)
_HEADS = Quantity(
    "heads",
    "Jensen-Shannon divergence among heads / log(heads)",
    "1",
    "How much the heads of a unit differ in where the same query attends: 0 redundant, 1 disjoint.",
    "Near 0 suggests that heads repeat one another and some could be pruned; it is not proof.",
)


@DIAGNOSTICS.add("attention-diversity")
@final
@dataclass(frozen=True)
class AttentionDiversity(AbstractDiagnostic[AttentionRows]):
    r"""Diversity of attention among the patch queries of one image, and among the heads of one unit.

    Among queries, for each head: the generalised Jensen-Shannon divergence
    :math:`J = H(\bar A) - \langle H(A_q) \rangle`; the normalised mutual information
    :math:`J / \sqrt{\log n \, H(\bar A)}` of a uniform query and its key; one minus the mean cosine between rows;
    the distinct keys among the queries' top k, divided by min(k n, keys); and :math:`1 - |\bar A|^2`. Among heads:
    :math:`(H(\langle A \rangle_h) - \langle H(A_h) \rangle) / \log h`, averaged over queries.

    The distinct keys and the divergence among heads use at most ``queries`` evenly spread rows; the number of distinct
    keys grows with that setting and is comparable only at the same one.

    The paper on masked pretraining shows an attention diversity metric whose formula is not on record; none of these
    measures claims to be it. Averaged over windows and images; all keys count. Cost: three passes over the weights,
    and a sort of the chosen rows.
    """

    name = "attention-diversity"
    title = "Attention diversity"
    question = "Where does it look?"
    reads = ActivationKind.ATTENTION
    references = (
        "Huang et al., How Transformers Learn Diverse Attention Correlations in Masked Vision Pretraining, 2024",
        "Park et al., What Do Self-Supervised Vision Transformers Learn?, ICLR 2023 (normalised mutual information)",
        "Lin, Divergence Measures Based on the Shannon Entropy, IEEE Trans. Inf. Theory 1991",
    )

    top: int = bounded_field(5, COUNT)
    """The k of the distinct keys."""
    queries: int = bounded_field(70, COUNT)
    """Most rows of a window, evenly spread, that are compared between heads and searched for distinct keys."""

    def observe(self, activation: AttentionRows) -> Mapping[str, Float[Tensor, "batch ..."]]:
        """The measures among queries for each head, and the divergence among heads."""
        heads = self._among_heads(activation)
        queries = int((activation.geometry.query_share > 0).sum(-1).max())
        if queries < 2:
            return heads
        mean_row = activation.mean_row
        divergence = query_diversity(mean_row, activation.mean_entropy)
        ceiling = (entropy(mean_row) * math.log(queries)).sqrt().clamp(min=1e-12)
        return {
            "mutual_information": (divergence / ceiling).mean(1),
            "queries": divergence.mean(1),
            "queries_cosine": 1 - self._cosine(activation, queries).mean(1),
            "distinct_keys": self._distinct(activation),
            "spread": (1 - mean_row.square().sum(-1)).mean(1),
            **heads,
        }

    def _among_heads(self, activation: AttentionRows) -> Mapping[str, Float[Tensor, "batch ..."]]:
        heads = activation.weights.shape[2]
        if heads < 2:
            return {}
        sample = activation.sample(self.queries)
        together = entropy(sample.weights.mean(2, keepdim=True))
        divergence = (together - sample.entropy.mean(2, keepdim=True)).clamp(min=0)
        return {"heads": sample.over_queries(divergence / math.log(heads))[:, 0]}

    def _cosine(self, activation: AttentionRows, queries: int) -> Float[Tensor, "batch windows heads"]:
        norms = torch.linalg.vector_norm(activation.weights, dim=-1)
        patch = (activation.geometry.query_share[:, None] > 0).to(norms)
        unit_sum = torch.matmul((patch / norms).unsqueeze(-2), activation.weights)[..., 0, :]
        return mean_pairwise_cosine(unit_sum, queries)

    def _distinct(self, activation: AttentionRows) -> Float[Tensor, "batch heads"]:
        sample = activation.sample(self.queries)
        queries, keys = sample.weights.shape[-2:]
        top = min(self.top, keys)
        only_patches = torch.where(sample.share[:, None] > 0, sample.ordered[..., -top], torch.inf)
        found = distinct_keys(sample.weights, only_patches)
        return found.to(sample.weights).mean(1) / min(top * queries, keys)

    def conclude(self, means: Means, scene: Scene) -> xr.Dataset:
        """Diversity among queries over depth and head; among heads over depth."""
        return over_depth(means, scene, (_NMI, _QUERIES, _COSINE, _KEYS, _SPREAD, _HEADS))

    @classmethod
    def known_answers(cls) -> tuple[Known[AttentionRows], ...]:
        """Sixteen queries that each attend to themselves, or all to the same four keys."""
        same = torch.zeros(16, 16)
        same[:, :4] = 0.25
        weights = torch.stack([torch.eye(16), same])[None, None]
        shared = math.log(4)
        mixed = -(0.625 * math.log(0.625) + 3 * 0.125 * math.log(0.125))
        other = -(0.5 * math.log(0.5) + 4 * 0.125 * math.log(0.125))
        between = (4 * mixed + 12 * other) / 16 - shared / 2
        answer = {
            "mutual_information": torch.tensor([[1.0, 0.0]]),
            "queries": torch.tensor([[math.log(16), 0.0]]),
            "queries_cosine": torch.tensor([[1.0, 0.0]]),
            "spread": torch.tensor([[15 / 16, 0.75]]),
            "heads": torch.tensor([between / math.log(2)]),
        }
        return (Known("a permutation, and one shared row", rows_with(weights, (4, 4)), answer, 1e-4),)
