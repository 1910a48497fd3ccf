"""Discrete Fourier transforms, and the half-diagonal spectrum of feature maps."""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def fourier_transform(values: Float[Tensor, "..."], axes: tuple[int, ...]) -> Complex[Tensor, "..."]:
    """The discrete Fourier transform along some axes; empty for empty values, which Intel's MKL refuses."""
    if not values.numel():
        return values.to(torch.promote_types(values.dtype, torch.complex64))
    return torch.fft.fftn(values, dim=axes)


def inverse_fourier_transform(spectrum: Complex[Tensor, "..."], axes: tuple[int, ...]) -> Float[Tensor, "..."]:
    """The real values whose :func:`fourier_transform` this is."""
    return torch.fft.ifftn(spectrum, dim=axes).real if spectrum.numel() else spectrum.real


def diagonal_frequencies(height: int, width: int) -> Float[Tensor, " frequency"]:
    """Normalised frequencies (1 is Nyquist, pi radians a cell) on the half diagonal of a ``height x width`` map.

    2 k / n for k = 0 .. n // 2 and n the shorter side: the frequencies that the discrete transform of a square map
    has on its diagonal, including zero and, for an even side, the Nyquist frequency.
    """
    side = min(height, width)
    return torch.arange(side // 2 + 1, dtype=torch.float64) * 2 / side


def diagonal_basis(height: int, width: int) -> Float[Tensor, "two frequency cells"]:
    """Cosines and sines of the half diagonal, over the cells of the map row by row."""
    angles = math.pi * diagonal_frequencies(height, width)
    rows = torch.arange(height, dtype=torch.float64)[:, None].expand(height, width).reshape(-1)
    columns = torch.arange(width, dtype=torch.float64)[None].expand(height, width).reshape(-1)
    phase = angles[:, None] * (rows + columns)[None]
    return torch.stack([phase.cos(), -phase.sin()])


def relative_log_amplitude(
    cells: Float[Tensor, "batch cells channels"], basis: Float[Tensor, "two frequency cells"]
) -> Float[Tensor, "batch frequency"]:
    r"""Log amplitude relative to the zero frequency, on the half diagonal, averaged over channels.

    .. math:: \Delta(f) = \tfrac1C\sum_c \log(|F_c(f, f)| + 10^{-6}) - \tfrac1C\sum_c \log(|F_c(0, 0)| + 10^{-6})

    It equals ``log(abs(fft2(x)) + 1e-6)`` read on the diagonal of a square map, at a cost of
    ``2 x frequency x cells x channels`` products instead of a whole transform.
    Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figure 2a.
    """
    parts = torch.matmul(basis.to(cells).flatten(0, 1), cells).unflatten(1, basis.shape[:2])
    amplitude = parts.square().sum(1).sqrt()
    log_amplitude = (amplitude + 1e-6).log().mean(-1)
    return log_amplitude - log_amplitude[:, :1]
