"""The attention of a shallow vision transformer, by the roles of queries and keys."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vitscope.labs.shallow.shallow_vit import ShallowVit
from vitscope.labs.shallow.token_model import Role
from vitscope.labs.shallow.weights import Weights
from vitscope.numerics.attention import entropy


@dataclass(frozen=True, eq=False)
class AttentionProfile:
    """Attention by class of query: a mean over the queries of that role in all images, NaN if there is none."""

    mass: Float[Tensor, "trials query_roles key_roles"]
    """Attention on keys of each role, in the order of `Role`; a row sums to 1."""
    entropy: Float[Tensor, "trials query_roles"]
    """Entropy of the attention in nats, 0 to log(tokens)."""
    queries: Int64[Tensor, "trials query_roles"]
    """Queries of each role."""

    @property
    def overall(self) -> Float[Tensor, "trials key_roles"]:
        """The mean mass over all queries, whatever their role."""
        share = self.queries / self.queries.sum(1, keepdim=True)
        return (self.mass.nan_to_num() * share.unsqueeze(2).to(self.mass)).sum(1)


def attention(
    model: ShallowVit,
    weights: Weights,
    tokens: Float[Tensor, "trials images tokens dim"],
    keep: Bool[Tensor, "trials images tokens"] | None = None,
) -> Float[Tensor, "trials images queries keys"]:
    """Attention weights, softmax of ``scale x_k^T W_K^T W_Q x_q`` over keys; uniform without attention."""
    joint = torch.bmm(weights.query.mT, weights.key).unsqueeze(1) * (model.scale if model.attention else 0.0)
    scores = tokens @ joint @ tokens.mT
    if keep is not None and model.drops_keys:
        scores = scores.masked_fill(~keep.unsqueeze(2), -torch.inf)
    return scores.softmax(3)


def profile(
    model: ShallowVit,
    weights: Weights,
    tokens: Float[Tensor, "trials images tokens dim"],
    roles: Int64[Tensor, "trials images tokens"],
    keep: Bool[Tensor, "trials images tokens"] | None = None,
) -> AttentionProfile:
    """The profile over all images. Cost: a forward pass that holds the attention of all images."""
    found = attention(model, weights, tokens, keep)
    member = torch.nn.functional.one_hot(roles, len(Role))
    asking = member if keep is None else member * keep.unsqueeze(3)
    queries = asking.sum((1, 2))
    onto = found @ member.to(found)
    by_role = asking.to(found).flatten(1, 2).mT
    return AttentionProfile(
        by_role @ onto.flatten(1, 2) / queries.unsqueeze(2),
        (by_role @ entropy(found).flatten(1, 2).unsqueeze(2)).squeeze(2) / queries,
        queries,
    )


def attention_received(
    model: ShallowVit, weights: Weights, tokens: Float[Tensor, "trials images tokens dim"]
) -> Float[Tensor, "trials images keys"]:
    """Mean attention on each key over the queries of its image; sums to 1 over keys."""
    return attention(model, weights, tokens).mean(2)
