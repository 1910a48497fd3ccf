"""Common corruptions of the images."""

import zlib
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.interventions.common_corruptions.catalogue import corrupt
from vitscope.interventions.common_corruptions.severity import KINDS, Scale
from vitscope.measurement.bounds import Bounds, bounded_field
from vitscope.measurement.errors import UserError
from vitscope.models.edit import OnInput, with_edit
from vitscope.models.subject import Preprocessing, Subject
from vitscope.models.written import WRITTEN
from vitscope.numerics.precision import to_float64

Kind = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
]


@INTERVENTIONS.add("corruption")
@WRITTEN.add("corruption")
@final
@dataclass(frozen=True)
class Corruption(AbstractIntervention):
    """One of the fifteen common corruptions of Hendrycks and Dietterich, at a level of severity from 1 to 5.

    The model's input is converted back to pixels (its normalisation undone, 0 to 255, rounded), corrupted there as the
    published sets were, and normalised again. ``scale`` chooses the parameters: those of CIFAR-10-C (made for 32
    pixels), Tiny-ImageNet-C (64) or ImageNet-C (224), which differ; auto takes the nearest in size to the shorter side.
    Radii stay in pixels as published; glass blur copies neighbours although its program means to swap them, since the
    published pictures were made that way.

    There are two differences from the published sets, so compare figures with one another, not with published ones to
    the last digit: frost is drawn, since the sets' photographs may not be redistributed, and pictures are not saved as
    JPEG of quality 85 afterwards, as those of ImageNet-C were.

    The corrupted image depends only on the image's pixels and ``seed``, not on batches, order, workers or devices.
    Images have 1 (grey) or 3 (RGB) channels. Cost on one CPU core for 3 x 224 x 224: 0.5 to 50 ms an image by kind, at
    most 3 ms for 3 x 32 x 32.
    """

    name = "corruption"
    title = "Common corruption"
    references = (
        "Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, "
        "ICLR 2019",
    )

    kind: Kind = "gaussian_noise"
    severity: int = bounded_field(3, Bounds(1, 5))
    scale: Scale = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"There is no common corruption named {self.kind!r}; there are: {', '.join(KINDS)}.")
        if self.severity not in range(1, 6):
            raise UserError(f"The severity is {self.severity}; there are five levels, 1 to 5.")
        if self.seed < 0:
            raise UserError(f"The seed is {self.seed}; it must be 0 or more.")
        super().__post_init__()

    def __call__(self, subject: Subject) -> Subject:
        """The subject behind the corruption; works for any model whose normalisation is known."""
        mean, std = _normalisation(subject.name, subject.preprocessing)
        return with_edit(subject, OnInput(CorruptedPictures(self, mean, std)))

    @classmethod
    def examples(cls) -> "tuple[Corruption, ...]":
        """One deterministic and one random corruption."""
        return cls("contrast", 5), cls("impulse_noise", 3, seed=1)

    @classmethod
    def nothing(cls) -> "tuple[Corruption, ...]":
        """None: even the mildest level changes every picture."""
        return ()


def _normalisation(name: str, preprocessing: Preprocessing) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if preprocessing.mean is None or preprocessing.std is None:
        raise UserError(
            f"The normalisation of {name}'s input is not known, so its pixels cannot be corrupted; load it with "
            "input=vitscope.PixelInput(...)."
        )
    if preprocessing.shape[0] not in (1, 3):
        raise UserError(f"{name} takes {preprocessing.shape[0]} channels; pictures have 1 (grey) or 3 (RGB).")
    return preprocessing.mean, preprocessing.std


@WRITTEN.add("corrupted-pictures")
@final
@dataclass(frozen=True)
class CorruptedPictures:
    """The images after the corruption; ``mean`` and ``std`` are the normalisation of the model's input."""

    corruption: Corruption
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The corrupted images, in the type and on the device of the images."""
        mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (self.mean, self.std))
        if not len(images):
            return images
        levels = ((to_float64(images.detach()).cpu() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        pictures = levels.permute(0, 2, 3, 1).contiguous().numpy()
        after = torch.from_numpy(np.stack([self._after(picture) for picture in pictures]))
        return ((to_float64(after.permute(0, 3, 1, 2)) / 255 - mean) / std).to(images)

    def _after(self, picture: UInt8[np.ndarray, "height width channels"]) -> UInt8[np.ndarray, "height width channels"]:
        content = zlib.crc32(picture.tobytes())
        generator = np.random.Generator(np.random.PCG64((self.corruption.seed, content)))
        one = self.corruption
        return corrupt(picture, one.kind, one.severity, generator, one.scale)
