"""What attention weights say, row by row: entropy, concentration, distance, diversity. Natural logarithms (nats)."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def row_entropy(
    weights: Float[Tensor, "*rows keys"], scores: Float[Tensor, "*rows keys"], scratch: Float[Tensor, "*rows keys"]
) -> Float[Tensor, "*rows"]:
    r"""Entropy of softmax rows, from the scores and without a logarithm per weight.

    .. math:: H = \log\sum_k e^{s_k} - \sum_k p_k s_k, \qquad \log\sum_k e^{s_k} = \max s - \log\max p

    0 (one key) to log(keys) (uniform). ``scratch`` is overwritten. Cost: four passes over the rows.
    """
    normaliser = scores.amax(-1) - weights.amax(-1).log()
    return (normaliser - torch.mul(weights, scores, out=scratch).sum(-1)).clamp(min=0)


def entropy(probabilities: Float[Tensor, "*rows keys"]) -> Float[Tensor, "*rows"]:
    """Entropy -sum p log p of each row; 0 log 0 is 0.

    Not ``torch.special.entr``, which is several times slower on a CPU.
    """
    return -(probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log_().mul_(probabilities).sum(-1))


def query_diversity(
    mean_row: Float[Tensor, "*rows keys"], mean_entropy: Float[Tensor, "*rows"]
) -> Float[Tensor, "*rows"]:
    r"""Generalised Jensen-Shannon divergence between the rows of all queries.

    .. math:: J = H(\tfrac1n\sum_q p_q) - \tfrac1n\sum_q H(p_q)

    It is the mutual information between a uniform query and its key: 0 when all queries look at the same keys, at
    most log(queries). Lin, Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 1991, eq. 5.2.
    """
    return (entropy(mean_row) - mean_entropy).clamp(min=0)


def mean_pairwise_cosine(unit_sum: Float[Tensor, "*rows dim"], count: int) -> Float[Tensor, "*rows"]:
    """Mean cosine over ordered pairs of different vectors, from the sum of the ``count`` unit vectors.

    (|sum u|^2 - n) / (n (n - 1)); NaN for one vector. Cost: linear in the number of vectors, not quadratic.
    """
    if count < 2:
        return torch.full_like(unit_sum[..., 0], torch.nan)
    return (unit_sum.square().sum(-1) - count) / (count * (count - 1))


def sort_rows(weights: Float[Tensor, "*rows keys"]) -> Float[Tensor, "*rows keys"]:
    """Each row sorted, smallest first (on a CPU by NumPy, whose vectorised sort is several times faster)."""
    if weights.device.type == "cpu":
        return torch.from_numpy(np.sort(weights.numpy(), axis=-1))
    return weights.sort(-1).values


def keys_for_mass(ordered: Float[Tensor, "*rows keys"], mass: float) -> Int[Tensor, "*rows"]:
    """How many of the largest weights it takes to hold ``mass``, to within 1e-6; rows sorted smallest first."""
    bound = ordered.new_full((*ordered.shape[:-1], 1), 1 - mass + 1e-6)
    return ordered.shape[-1] - torch.searchsorted(ordered.cumsum(-1), bound, right=True)[..., 0]


def distinct_keys(
    weights: Float[Tensor, "*maps queries keys"],
    smallest: Float[Tensor, "*maps queries"],
) -> Int[Tensor, "*maps"]:
    """Keys that are among the top k of at least one query; ``smallest`` is each row's k-th largest weight."""
    return ((weights - smallest.unsqueeze(-1)).amax(-2) >= 0).sum(-1)
