"""Relative log amplitude of feature maps by spatial frequency and depth."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import final

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from vitscope.engine.reading.activation import ActivationKind, FeatureMap
from vitscope.engine.reading.diagnostic import DIAGNOSTICS, AbstractDiagnostic, Known, Scene, over_depth
from vitscope.engine.reading.fold import Means
from vitscope.measurement.bounds import Bounds, bounded_field
from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.numerics.fourier import diagonal_basis, diagonal_frequencies, relative_log_amplitude

_SPECTRUM = Quantity(
    "relative_log_amplitude",
    "Relative log amplitude",
    "log",
    "How much weaker a spatial frequency is than the mean (frequency 0), along the half diagonal of the spectrum; more "
    "negative is weaker. A unit that lowers the curve at high frequencies smooths, one that raises it sharpens.",
)
_HIGHEST = Quantity(
    "at_highest_frequency",
    "Relative log amplitude at the highest frequency",
    "log",
    "The end of the spectrum: it falls where the network smooths (low-pass) and rises where it sharpens (high-pass).",
)

_SHARPENING = Quantity(
    "sharpening",
    "Change of the highest frequency's log amplitude across the unit",
    "log",
    "Above 0 the unit sharpens, below 0 it smooths. Computed image by image, so its error is that of the change.",
)


@DIAGNOSTICS.add("fourier-spectrum")
@final
@dataclass(frozen=True)
class FourierSpectrum(AbstractDiagnostic[FeatureMap]):
    r"""Relative log amplitude of the feature maps' Fourier transform, by frequency and depth.

    .. math:: \Delta(f) = \langle \log(|F(f, f)| + 10^{-6}) \rangle_{c} - \langle \log(|F(0, 0)| + 10^{-6}) \rangle_{c}

    F is the two-dimensional discrete Fourier transform of one channel, read on the half diagonal; the mean is over
    channels, then over images; prefix tokens are dropped. Frequencies are in units of the Nyquist frequency. Each
    layer is measured at the frequencies of its own map and interpolated linearly onto a common axis; beyond the
    highest frequency of an odd-sized map the last value is repeated.

    Park and Kim's notebook averages over a batch in the same way but stops one frequency below Nyquist on even maps;
    here the Nyquist frequency itself, pi, is the last. Unit: natural logarithm. Cost: 2 x frequencies x cells x
    channels products per image and layer, without a transform.
    """

    name = "fourier-spectrum"
    title = "Fourier spectrum of feature maps"
    question = "Does it smooth or sharpen?"
    reads = ActivationKind.FEATURES
    places = frozenset({"highest_frequency"})
    references = ("Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figures 2a and 8",)
    changes = MappingProxyType({"at_highest_frequency": "sharpening"})

    frequencies: int = bounded_field(11, Bounds(1, 10_000))
    """Points of the common frequency axis, from 0 to 1."""

    def observe(self, activation: FeatureMap) -> Mapping[str, Float[Tensor, "batch ..."]]:
        """The spectrum of every image at the map's own frequencies; a map of one cell has none."""
        if min(activation.grid) < 2:
            return {}
        spectrum = relative_log_amplitude(activation.cells, _basis(activation.grid).to(activation.cells))
        highest = spectrum.new_full((len(spectrum),), float(diagonal_frequencies(*activation.grid)[-1]))
        return {"spectrum": spectrum, "at_highest_frequency": spectrum[:, -1], "highest_frequency": highest}

    def conclude(self, means: Means, scene: Scene) -> xr.Dataset:
        """The spectrum over depth and frequency, and its end over depth."""
        axis = np.linspace(0.0, 1.0, self.frequencies)
        layers = means.layers("spectrum")
        own = {
            layer: np.linspace(0, means.mean(layer, "highest_frequency"), len(means.mean(layer, "spectrum")))
            for layer in layers
        }
        mean, error = (
            np.stack([np.interp(axis, own[layer], read(layer, "spectrum")) for layer in layers])
            for read in (means.mean, means.error)
        )
        count = np.stack([np.full(len(axis), means.count(layer, "spectrum")[0]) for layer in layers])
        coords = scene.coordinates(layers) | {"frequency": ("frequency", axis, {"units": "Nyquist"})}
        spectrum = label_quantity(_SPECTRUM, ("layer", "frequency"), mean, error, count, coords)
        return spectrum.assign(over_depth(means, scene, (_HIGHEST, _SHARPENING)))

    @classmethod
    def known_answers(cls) -> tuple[Known[FeatureMap], ...]:
        """A checkerboard and a cosine wave, each on a constant, and the ratio of amplitudes."""
        sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2).reshape(1, 16, 1)
        board = FeatureMap((2.0 + sign).expand(2, 16, 3).contiguous(), (4, 4))
        half = -float(np.log(2.0))
        ripple = torch.cos(torch.arange(4) * np.pi / 2)
        wave = FeatureMap((1.0 + ripple[:, None] * ripple[None]).reshape(1, 16, 1), (4, 4))
        return (
            Known(
                "a checkerboard of height 1 on a constant 2 has half the constant's amplitude at Nyquist",
                board,
                {"at_highest_frequency": torch.full((2,), half)},
            ),
            Known(
                "cos(pi y / 2) cos(pi x / 2) on 1: a quarter at the middle frequency, nothing at Nyquist",
                wave,
                {"spectrum": torch.tensor([[0.0, -np.log(4.0), np.log(1e-6 / 16)]]).float()},
                2e-1,
            ),
        )


@lru_cache(maxsize=64)
def _basis(grid: tuple[int, int]) -> Float[Tensor, "two frequency cells"]:
    return diagonal_basis(*grid)
