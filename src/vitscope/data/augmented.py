"""Augmented images: as in training, but with the same pixels and targets at every reading, in any batch."""

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from vitscope.data.augmentation import DRAWS, apply_randaugment, mirror_half, randaugment, random_part, shift_crops
from vitscope.measurement.errors import UserError

FILL = {1: (118,), 3: (124, 116, 104)}
"""Colour of uncovered areas: the mean colour of ImageNet, or an equally light grey."""


@final
@dataclass(frozen=True)
class Augmentation:
    """Crop, mirror and RandAugment of each image, then Mixup or CutMix with another, and smoothed targets.

    The defaults (``STRONG``) are those of vitscope's training: DeiT's (Touvron et al. 2021) at the scale of CIFAR.
    ``WEAK`` only crops and mirrors. Crop and RandAugment change the picture before the model's own preprocessing;
    mixing combines the model's inputs.
    """

    crop: Literal["padded", "resized", "none"] = "padded"
    """``padded`` (shifted within a border), ``resized`` (a random part, resized), or ``none``."""
    padding: float = 0.125
    """Border of a padded crop, as a share of the side."""
    least_area: float = 0.08
    """Smallest share of the image that a resized crop may show."""
    flip: bool = True
    """Whether half of the images are mirrored left to right."""
    randaugment: int = 9
    """Magnitude of RandAugment, from 1 to 10: two operations, standard deviation 1; 0 for none."""
    mixup: float = 0.8
    """Mixup's (Zhang et al. 2018) alpha; 0 for none."""
    cutmix: float = 1.0
    """CutMix's (Yun et al. 2019) alpha; 0 for none. If both are on, a fair coin picks one for each image."""
    label_smoothing: float = 0.1
    """Share of the target's mass that is spread over all classes."""

    def __post_init__(self) -> None:
        limits = {"padding": 1.0, "least_area": 1.0, "label_smoothing": 1.0, "mixup": np.inf, "cutmix": np.inf}
        for name, most in {**limits, "randaugment": 10}.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise UserError(f"{name} is {value}; it must be at least 0" + f" and at most {most}." * (most < np.inf))

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0


STRONG = Augmentation()
WEAK = Augmentation(randaugment=0, mixup=0.0, cutmix=0.0, label_smoothing=0.0)


@final
@dataclass(frozen=True, eq=False)
class _ImageDraws:
    """The random numbers of one image."""

    uniforms: Float[np.ndarray, " draws"]
    seed: int
    partner: float
    cuts: bool
    mixup: float
    cutmix: float
    centre: tuple[float, float]


@final
@dataclass(frozen=True)
class Augmenting:
    """An augmentation and its seed: together they determine every pixel and target.

    An image's numbers are drawn from the seed and the image's place in its source, whatever the batch, the order and
    the other images. The same numbers pick its partner in mixing among the other chosen images, with equal
    probability; the partner is cropped, mirrored and changed by its own numbers.
    """

    augmentation: Augmentation
    seed: int = 0
    classes: int | None = None
    """The number of classes of a target; None for that of the labels."""

    def partner(self, index: int, positions: Int[np.ndarray, "chosen"]) -> int | None:
        """The index of the image that this one is mixed with; None if nothing is mixed."""
        count = len(positions)
        if not self.augmentation.mixes or count < 2:
            return None
        offset = int(self._draws(int(positions[index])).partner * (count - 1))
        return (index + 1 + min(offset, count - 2)) % count

    def change_picture(self, picture: Image.Image, position: int) -> Image.Image:
        """The picture at ``position`` of the source, cropped, mirrored and changed by RandAugment."""
        chosen, draws = self.augmentation, self._draws(position)
        if chosen.crop == "resized":
            box = random_part(picture.size, chosen.least_area, draws.uniforms)
            picture = picture.resize(picture.size, Image.Resampling.BICUBIC, box=box)
        pixels = np.asarray(picture).reshape(1, picture.height, picture.width, -1)
        fill = FILL[pixels.shape[3]]
        if chosen.crop == "padded":
            pixels = shift_crops(pixels, draws.uniforms[None], chosen.padding, fill)
        pixels = (mirror_half(pixels, draws.uniforms[None]) if chosen.flip else pixels)[0]
        if chosen.randaugment:
            policy = randaugment(chosen.randaugment, min(picture.size), fill)
            pixels = apply_randaugment(policy, pixels, draws.seed)
        return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))

    def mix(
        self, one: Float[Tensor, "channels height width"], other: Float[Tensor, "channels rows columns"], position: int
    ) -> tuple[Float[Tensor, "channels height width"], float]:
        """The image at ``position`` mixed with its partner, and the share of the target that it keeps."""
        draws = self._draws(position)
        if one.shape != other.shape:
            shown = " and ".join("x".join(map(str, each.shape)) for each in (one, other))
            raise UserError(f"the transform made images of different sizes ({shown}): it must resize.")
        if not draws.cuts:
            return torch.lerp(other, one, draws.mixup), draws.mixup
        rows, columns = (
            _span(centre, side, (1 - draws.cutmix) ** 0.5)
            for centre, side in zip(draws.centre, one.shape[1:], strict=True)
        )
        cut = one.clone()
        cut[:, rows, columns] = other[:, rows, columns]
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        return cut, 1 - area / (one.shape[1] * one.shape[2])

    def target(self, label: int, partner: int | None, share: float, classes: int) -> Float[Tensor, " classes"]:
        """Smoothed probabilities of the classes: ``share`` for the label, the rest for the partner's."""
        smoothing = self.augmentation.label_smoothing
        target = torch.full((self.classes or classes,), smoothing / (self.classes or classes))
        target[label] += (1 - smoothing) * share
        if partner is not None:
            target[partner] += (1 - smoothing) * (1 - share)
        return target

    @property
    def softens(self) -> bool:
        """Whether targets differ from the labels."""
        return self.augmentation.mixes or self.augmentation.label_smoothing > 0

    def _draws(self, position: int) -> _ImageDraws:
        """Draw the same numbers in the same order always, so that no setting changes what another one does."""
        generator = np.random.default_rng([self.seed, position])
        uniforms = generator.random(DRAWS + 4)
        seed = int(generator.integers(0, 2**32))
        chosen = self.augmentation
        weights = [float(generator.beta(alpha, alpha)) if alpha else 1.0 for alpha in (chosen.mixup, chosen.cutmix)]
        cuts = bool(uniforms[DRAWS] < 0.5) if chosen.mixup and chosen.cutmix else chosen.cutmix > 0
        centre = (float(uniforms[DRAWS + 2]), float(uniforms[DRAWS + 3]))
        partner = float(uniforms[DRAWS + 1])
        return _ImageDraws(uniforms[:DRAWS].astype(np.float32), seed, partner, cuts, weights[0], weights[1], centre)


def _span(centre: float, side: int, share: float) -> slice:
    """``share`` of a side around a place on it, cut at the border."""
    middle, half = int(centre * side), int(share * side) // 2
    return slice(max(middle - half, 0), min(middle + half, side))
