"""Accuracy under noise of one band of spatial frequency after another."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from vitscope.data import Images
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.engine.grid import STUDIES, AbstractStudy, Axis, StudyGrid
from vitscope.engine.plan import Plan
from vitscope.engine.reading.diagnostic import AnyDiagnostic
from vitscope.interventions.frequency_noise import Energy, FrequencyNoise, Shape, Units
from vitscope.measurement.bounds import SIZE, Bounds, bounded_field
from vitscope.measurement.ranges import parse_numbers
from vitscope.models.subject import Subject

PAPER: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "frequency": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        "ResNet": (-5.0, -8.8, -12.7, -10.7, -10.3, -10.2, -9.7, -13.6, -15.4),
        "ViT": (-5.5, -12.1, -14.9, -13.4, -11.6, -9.8, -6.3, -4.3, -4.8),
    }
)
"""Change of ImageNet accuracy in percentage points at nine bands, digitised from figure 2b of Park and Kim (2022)."""


@STUDIES.add("frequency-noise")
@final
@dataclass(frozen=True)
class FrequencyNoiseStudy(AbstractStudy):
    """What is lost when noise of one band of spatial frequency is added to the images, band by band.

    ``bands`` are centres in units of pi radians a pixel (start:stop:count, or a list), each ``width`` radians wide to
    either side. ``strength`` is the paper's epsilon (0.7 by default) with ``energy`` paper, where a higher band carries
    more noise; with equal it is the root mean square of the added noise (0.25 by default, near the paper's in the
    middle). ``frequency_band_rms`` gives it for every band. With ``units`` input a strength of 1 is one unit of the
    normalised input, with pixels the range from black to white. All bands are cut from the same random signs.

    Park and Kim's models lose most where their own filter lets the noise through: convolutions to high frequencies,
    attention to low and middle ones. Cost: a forward pass of each image for each band, and some 3 ms of noise for
    3 x 224 x 224.
    """

    name = "frequency-noise"
    title = "Noise by frequency band"
    question = "What does it depend on?"
    references = ("Park and Kim, How Do Vision Transformers Work?, ICLR 2022, figure 2b",)

    bands: str = "0.1:0.9:9"
    """Centres of the bands, in units of pi radians a pixel: start:stop:count, or a list."""
    strength: float | None = bounded_field(None, SIZE)
    """The paper's epsilon (0.7 by default), or with equal energy the root mean square (0.25 by default)."""
    width: float = bounded_field(0.2, Bounds(above=0, most=100))
    """Half the width of a band, in radians."""
    shape: Shape = "square"
    """Shape of the band: square as in the paper, or ring."""
    energy: Energy = "paper"
    """paper: a higher band carries more noise; equal: all carry the same."""
    units: Units = "input"
    """Units of the strength: those of the normalised input, or pixels from black (0) to white (1)."""
    seed: int = 0
    """Seed of the noise."""

    def noises(self) -> tuple[FrequencyNoise, ...]:
        """The noise of every band."""
        strength = self.strength if self.strength is not None else {"paper": 0.7, "equal": 0.25}[self.energy]
        return tuple(
            FrequencyNoise(band, strength, self.width, self.shape, self.energy, self.units, self.seed)
            for band in parse_numbers(self.bands)
        )

    def grid(self, subject: Subject, images: Images, plan: Plan) -> StudyGrid:
        """A point for each band. Raises ``UserError`` if images of this size have no frequency in one of them."""
        del images, plan
        noises = self.noises()
        size = subject.preprocessing.shape[1:]
        rms = {"frequency_band_rms": [noise.rms(*size) for noise in noises]}
        axis = Axis("frequency_band", tuple(noise.frequency for noise in noises), "Frequency of the noise", "pi", rms)
        return StudyGrid((axis,), tuple((noise,) for noise in noises))

    def diagnostics(self) -> tuple[AnyDiagnostic, ...]:
        """Accuracy and the losses."""
        return (Accuracy(),)

    def notes(self, subject: Subject) -> tuple[str, ...]:
        """How strong the noise is, from the weakest band to the strongest."""
        unit = "of the normalised input" if self.units == "input" else "of the range from black to white"
        sizes = [noise.rms(*subject.preprocessing.shape[1:]) for noise in self.noises()]
        if self.energy == "equal":
            return (f"The noise of every band has a root mean square of {sizes[0]:.3g} {unit}.",)
        return (
            f"The noise's root mean square is {min(sizes):.3g} to {max(sizes):.3g} {unit}, by the number of "
            "frequencies in its band, as in the paper: part of a difference between bands comes from their energy.",
        )
