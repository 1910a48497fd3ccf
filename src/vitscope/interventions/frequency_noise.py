"""Noise of a band of spatial frequency, added to the images."""

import math
import zlib
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.measurement.bounds import SHARE, SIZE, Bounds, bounded_field
from vitscope.measurement.errors import UserError
from vitscope.models.edit import OnInput, with_edit
from vitscope.models.subject import Subject
from vitscope.models.written import WRITTEN
from vitscope.numerics.frequency_band import energy_share, limit_to_band, ring_band, square_band

Shape = Literal["square", "ring"]
Energy = Literal["paper", "equal"]
Units = Literal["input", "pixels"]


@INTERVENTIONS.add("frequency-noise")
@WRITTEN.add("frequency-noise")
@final
@dataclass(frozen=True)
class FrequencyNoise(AbstractIntervention):
    r"""Random noise of one band of spatial frequency, added to every image.

    .. math:: x + \Re\,\mathcal{F}^{-1}\big(1_B \cdot \mathcal{F}(\epsilon\, s)\big), \qquad s = \pm 1

    ``s`` is a fair sign for each pixel and channel. The band B holds the frequencies within ``width`` (radians a pixel)
    of ``frequency`` (in units of pi radians a pixel: 1 is the finest): by the larger of the horizontal and vertical
    frequency (``shape`` square, as in the paper), or by their Euclidean length (ring).

    ``strength`` with ``energy`` paper is the paper's epsilon, the noise's amplitude before it is limited to the band:
    low bands hold few frequencies, so at 224 pixels the root mean square of the added noise rises threefold from 0.1 to
    0.9 (its energy ninefold), which confounds a fall of accuracy. With equal it is the root mean square of the added
    noise, the same for every image and band.

    ``units`` says what a strength of 1 is: one unit of the model's input (after normalisation), as in the authors'
    code, or with pixels the range from black to white. Nothing is clipped, since clipping would spill into other bands.

    The noise depends only on the image's bytes, ``seed`` and the band, not on batches, order, workers or devices, and
    every band is cut from the same signs. Cost for 3 x 224 x 224: some 3 ms an image on one CPU core.
    """

    name = "frequency-noise"
    title = "Noise of a frequency band"
    references = ("Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figure 2b",)

    frequency: float = bounded_field(0.5, SHARE)
    strength: float = bounded_field(0.7, SIZE)
    width: float = bounded_field(0.2, Bounds(above=0, most=100))
    shape: Shape = "square"
    energy: Energy = "paper"
    units: Units = "input"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.frequency <= 1:
            raise UserError(f"The frequency is {self.frequency:g}; it is in units of pi, from 0 to 1.")
        if not (self.width > 0 and math.isfinite(self.width)):
            raise UserError(f"The band's half-width is {self.width:g}; it must be more than 0 radians.")
        if not (self.strength >= 0 and math.isfinite(self.strength)):
            raise UserError(f"The noise's strength is {self.strength:g}; it must be finite and 0 or more.")
        if self.seed < 0:
            raise UserError(f"The seed is {self.seed}; it must be 0 or more.")
        super().__post_init__()

    def __call__(self, subject: Subject) -> Subject:
        """The subject on noisy images; works for any model.

        Raises ``UserError`` if the band holds no frequency of the images, or the strength is in pixels and the model's
        normalisation is not known.
        """
        self.band(*subject.preprocessing.shape[1:])
        return with_edit(subject, OnInput(AddedNoise(self, self._scale(subject))))

    def _scale(self, subject: Subject) -> tuple[float, ...]:
        """What one unit of strength is in the model's input, channel by channel."""
        if self.units == "input":
            return (1.0,)
        if subject.preprocessing.std is None:
            raise UserError(
                f"The normalisation of {subject.name}'s input is not known, so noise cannot be measured in pixels; "
                "use units='input', or load it with input=vitscope.PixelInput(...)."
            )
        return tuple(1 / std for std in subject.preprocessing.std)

    def band(self, height: int, width: int) -> Bool[Tensor, "height width"]:
        """The frequencies that images of this size have in the band; ``UserError`` if there are none."""
        centre = self.frequency * math.pi
        band = (square_band if self.shape == "square" else ring_band)(height, width, centre, self.width)
        if not band.any():
            step = 2 * math.pi / min(height, width)
            enough = math.floor(100 * max(step / 2, step - centre)) / 100 + 0.01
            raise UserError(
                f"Images of {height} x {width} have no frequency within {self.width:g} radians of {self.frequency:g} "
                f"pi; give a width of at least {enough:.2f}."
            )
        return band

    def rms(self, height: int, width: int) -> float:
        """The root mean square of the noise on images of this size, in the strength's units (in expectation)."""
        if self.energy == "equal":
            return self.strength
        return self.strength * math.sqrt(energy_share(self.band(height, width)))

    @classmethod
    def examples(cls) -> "tuple[FrequencyNoise, ...]":
        """A band wide enough for the smallest images."""
        return cls(0.5, 0.3, width=1.2), cls(0.5, 0.3, width=1.2, shape="ring", energy="equal", seed=1)

    @classmethod
    def nothing(cls) -> "tuple[FrequencyNoise, ...]":
        """Noise of strength 0."""
        return cls(0.5, 0.0, width=1.2), cls(0.5, 0.0, width=1.2, energy="equal")


@WRITTEN.add("added-noise")
@final
@dataclass(frozen=True)
class AddedNoise:
    """The images and their noise; ``scale`` is one unit of strength in the input, for all channels or each."""

    noise: FrequencyNoise
    scale: tuple[float, ...]

    def __call__(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The noisy images, in the type and on the device of the images."""
        band = self.noise.band(*images.shape[2:])
        working = images.detach() if images.dtype == torch.float64 else images.detach().float()
        noise = limit_to_band(signs(working, self.noise.seed), band.to(images.device))
        if self.noise.energy == "equal":
            noise = noise / noise.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-30)
        scale = torch.tensor(self.scale).to(noise).view(-1, 1, 1)
        return images + (self.noise.strength * scale * noise).to(images)


def signs(
    images: Float[Tensor, "batch channels height width"], seed: int
) -> Float[Tensor, "batch channels height width"]:
    """Fair signs for each pixel and channel, drawn for each image from the seed and the CRC-32 of its float32 bytes."""
    count = images[0].numel() if len(images) else 0
    drawn = np.empty((len(images), count), np.int8)
    for row, image in zip(drawn, images.float().cpu(), strict=True):
        source = np.random.PCG64((seed, zlib.crc32(image.contiguous().numpy().tobytes())))
        words = source.random_raw(-(-count // 64)).astype("<u8")  # raw words, which no release of numpy changes
        row[:] = np.unpackbits(words.view(np.uint8))[:count]
    return torch.from_numpy(drawn).to(images.device).to(images).view(images.shape) * 2 - 1
