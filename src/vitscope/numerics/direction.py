"""Directions in the space of weights: Gaussian draws, and two ways to scale them to the weights."""

import hashlib

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def gaussian(shape: tuple[int, ...], seed: int, name: str) -> Float[Tensor, "..."]:
    """Independent standard normal numbers in float32, a function of ``seed`` and ``name`` alone.

    A parameter's draw does not depend on which other parameters there are, nor on their order. Cost: about 10 ns a
    number, on one core.
    """
    digest = hashlib.sha256(name.encode()).digest()
    words = np.frombuffer(digest, np.uint32).tolist()
    generator = np.random.default_rng([seed, *words])
    return torch.from_numpy(generator.standard_normal(shape, np.float32))


def normalise_filters(direction: Float[Tensor, "..."], weights: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    r"""Each filter of a direction at the weights' norm: :math:`d_f \lVert w_f \rVert / \lVert d_f \rVert`.

    A filter is an entry of the first axis: the weights of one output unit or channel. It becomes zero if the weights'
    is. Biases and the factors of norms have no filters (Li et al. leave them out): tensors of fewer than two axes
    become zero. Li, Xu, Taylor, Studer, Goldstein, *Visualizing the Loss Landscape of Neural Nets*, NeurIPS 2018.
    """
    if weights.ndim < 2:
        return torch.zeros_like(weights)
    return _scale(direction.to(weights).flatten(1), weights.flatten(1), 1).reshape(weights.shape)


def normalise_columns(direction: Float[Tensor, "..."], weights: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    r"""The direction, with its norms over the first axis scaled to those of the weights; 1-D tensors become zero.

    This is what the code of Park and Kim (*How Do Vision Transformers Work?*, ICLR 2022) does under the name of filter
    normalisation: each norm runs over all output units, one for each input (and place in the kernel). A tensor
    whose first axis has one entry (position embeddings) is displaced by plus or minus itself.
    """
    if weights.ndim < 2:
        return torch.zeros_like(weights)
    return _scale(direction.to(weights), weights, 0)


def _scale(direction: Tensor, weights: Tensor, axis: int) -> Tensor:
    """The direction with its norms along ``axis`` scaled to those of the weights; zero where either is."""
    wanted = torch.linalg.vector_norm(weights, dim=axis, keepdim=True)
    found = torch.linalg.vector_norm(direction, dim=axis, keepdim=True)
    return direction * torch.where(found > 0, wanted / torch.where(found > 0, found, 1), 0)
