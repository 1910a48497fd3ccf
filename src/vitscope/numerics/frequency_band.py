"""Bands of spatial frequency in the two-dimensional discrete Fourier plane, and noise limited to one."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitscope.numerics.precision import to_float64


def square_band(height: int, width: int, centre: float | int, half_width: float | int) -> Bool[Tensor, "height width"]:
    r"""The frequencies between two squares around zero, in the order of ``torch.fft.fft2``.

    On an axis of n cells the square of angular frequency w holds the indices ``-m <= k < m`` with
    ``m = floor(w n / 2 pi)``, or all of them if ``2 m >= n``; the band is the square of ``centre + half_width`` less
    that of ``centre - half_width`` (radians a cell). For even n this is the mask of Park and Kim's ``FreqAttack``, cell
    by cell; for odd n and unequal sides the same inequality is taken on each axis.
    """
    outer = _square(height, width, float(centre + half_width))
    return outer & ~_square(height, width, float(centre - half_width))


def ring_band(height: int, width: int, centre: float | int, half_width: float | int) -> Bool[Tensor, "height width"]:
    """The frequencies whose Euclidean modulus is at most ``half_width`` from ``centre`` (radians a cell)."""
    rows, columns = (2 * math.pi * torch.fft.fftfreq(n, dtype=torch.float64) for n in (height, width))
    modulus = (rows[:, None].square() + columns[None].square()).sqrt()
    return (modulus - centre).abs() <= half_width


def _square(height: int, width: int, frequency: float) -> Bool[Tensor, "height width"]:
    return _side(height, frequency)[:, None] & _side(width, frequency)[None]


def _side(cells: int, frequency: float) -> Bool[Tensor, " cells"]:
    reach = max(0, int(frequency * cells / (2 * math.pi)))
    indices = torch.fft.fftfreq(cells, 1 / cells, dtype=torch.float64).round()
    return (indices >= -reach) & (indices < reach) | torch.tensor(2 * reach >= cells)


def transfer(band: Bool[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    """The factor on each frequency of a real image when the others are cleared and the real part is taken.

    One where the band holds a frequency and its negative, a half where it holds one of the two, else zero.
    """
    negative = band.flip((0, 1)).roll((1, 1), (0, 1))
    return (to_float64(band) + to_float64(negative)) / 2


def energy_share(band: Bool[Tensor, "height width"]) -> float:
    """The share of white noise's energy that is left in the real part of the noise within the band, 0 to 1."""
    return float(transfer(band).square().mean())


def limit_to_band(
    images: Float[Tensor, "batch channels height width"], band: Bool[Tensor, "height width"]
) -> Float[Tensor, "batch channels height width"]:
    """The real part of the images within the band: ``ifft2(band * fft2(images)).real``, by the real transform.

    Cost: two real Fourier transforms of the images; none for an empty batch, which Intel's MKL refuses.
    """
    if not images.numel():
        return images
    height, width = band.shape
    weights = transfer(band)[:, : width // 2 + 1].to(images)
    return torch.fft.irfft2(torch.fft.rfft2(images) * weights, s=(height, width))
