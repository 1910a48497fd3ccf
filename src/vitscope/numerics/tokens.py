"""Geometry of the tokens of one image: their similarity, spread and rank."""

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.numerics.attention import mean_pairwise_cosine


def spatial_variance(centred: Float[Tensor, "batch cells channels"]) -> Float[Tensor, " batch"]:
    """Variance over the cells of a map (unbiased), averaged over channels, from the centred cells."""
    _, cells, channels = centred.shape
    return torch.linalg.vector_norm(centred, dim=(1, 2)).square() / ((cells - 1) * channels)


def token_cosine(cells: Float[Tensor, "batch cells channels"]) -> Float[Tensor, " batch"]:
    """Mean cosine between different tokens: 1 when all point the same way."""
    weights = 1 / torch.linalg.vector_norm(cells, dim=-1).clamp(min=torch.finfo(cells.dtype).tiny)
    return mean_pairwise_cosine((weights.unsqueeze(1) @ cells)[:, 0], cells.shape[1])


def participation_rank(centred: Float[Tensor, "batch cells channels"]) -> Float[Tensor, " batch"]:
    r"""Effective rank of order 2 of the centred tokens: the participation ratio of their covariance.

    .. math:: r = \frac{(\sum_i \sigma_i^2)^2}{\sum_i \sigma_i^4}
              = \frac{(\operatorname{tr} G)^2}{\lVert G\rVert_F^2}

    with the Gram matrix G of the centred tokens on its smaller side. 1 (all differences along one line) to
    min(cells - 1, channels); 0 if all tokens are equal. Cost: one Gram matrix, no decomposition.
    """
    left = centred.transpose(1, 2) if centred.shape[1] > centred.shape[2] else centred
    one, two = left.tensor_split(2, dim=1)
    # G is symmetric: three of its four quarters give its norm.
    quarters = [one @ one.transpose(1, 2), two @ two.transpose(1, 2), one @ two.transpose(1, 2)]
    squares = [torch.linalg.matrix_norm(quarter).square() for quarter in quarters]
    size = (squares[0] + squares[1] + 2 * squares[2]).sqrt()
    trace = torch.linalg.vector_norm(centred, dim=(1, 2)).square()
    return torch.where(size > 0, (trace / size.clamp(min=torch.finfo(centred.dtype).tiny)).square(), 0.0)
