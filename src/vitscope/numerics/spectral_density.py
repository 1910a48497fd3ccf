"""Stochastic Lanczos quadrature: the eigenvalue density of a symmetric operator, as nodes and weights."""

from math import pi, sqrt

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vitscope.numerics.lanczos import Krylov, Product, norm


def lanczos_quadrature(
    product: Product, start: Float[Tensor, " size"], steps: int, generator: torch.Generator, rows: int
) -> tuple[Float64[Tensor, " steps"], Float64[Tensor, " steps"]]:
    r"""Nodes and weights of Gauss' quadrature for the spectral measure of ``start``.

    .. math:: \sum_i w_i f(\theta_i) = \frac{v^\top f(H)\,v}{v^\top v} \quad\text{for polynomials of degree} < 2m

    The weights are positive and sum to 1. With ``start`` of independent entries of mean 0 and equal variance, the mean
    over starts tends to the eigenvalue density. If ``steps`` vectors fit in ``rows``, each is orthogonalised against
    all earlier ones; otherwise the plain three-term recurrence is used, whose ghost copies share the weight of the
    eigenvalue they copy. An operator of fewer than ``steps`` dimensions has nodes of weight 0 at the end. Cost:
    ``steps`` products. Source: Ghorbani et al., ICML 2019; Golub and Meurant, Matrices, Moments and Quadrature, 2010.
    """
    count = min(steps, start.numel())
    projected = _full(product, start, count, generator) if count <= rows else _recurrence(product, start, count)
    values, vectors = torch.linalg.eigh(projected)
    missing = steps - count
    nodes = torch.cat([values, values[-1:].expand(missing)])
    return nodes, torch.cat([vectors[0].square(), values.new_zeros(missing)])


def _full(
    product: Product, start: Float[Tensor, " size"], steps: int, generator: torch.Generator
) -> Float64[Tensor, "steps steps"]:
    krylov = Krylov(product, start, steps, generator)
    for _ in range(steps):
        krylov.extend()
    return krylov.projected[:steps, :steps]


def _recurrence(product: Product, start: Float[Tensor, " size"], steps: int) -> Float64[Tensor, "steps steps"]:
    projected = torch.zeros(steps + 1, steps + 1, dtype=torch.float64)
    vector, before, beta = start / norm(start), torch.zeros_like(start), 0.0
    for j in range(steps):
        image = product(vector) - beta * before
        alpha = float((vector * image).sum())
        image = image - alpha * vector
        beta = float(norm(image))
        projected[j, j] = alpha
        if beta <= 4 * torch.finfo(start.dtype).eps * float(projected.abs().max()):  # the rounding of a product
            break
        projected[j, j + 1] = projected[j + 1, j] = beta
        vector, before = image / beta, vector
    return projected[:steps, :steps]


def kernel_density(
    nodes: Float64[Tensor, " nodes"],
    weights: Float64[Tensor, " nodes"],
    points: Float64[Tensor, " points"],
    width: float,
) -> Float64[Tensor, " points"]:
    r"""Nodes smoothed by Gaussian kernels of standard deviation ``width``: :math:`\sum_i w_i\,N(x;\theta_i,\sigma^2)`.

    Its mean is that of the nodes, its variance larger by ``width`` squared.
    """
    scaled = (points[:, None] - nodes) / width
    return (torch.exp(-0.5 * scaled.square()) @ weights) / (width * sqrt(2 * pi))
