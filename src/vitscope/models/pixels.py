"""Inputs that a few numbers describe fully: one size, one colour mode, one normalisation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from vitscope.measurement.errors import UserError
from vitscope.models.subject import Preprocessing

MODES = {1: "L", 3: "RGB"}
"""The colour mode of a picture by its number of channels."""
LARGEST = 8192
"""The largest side of an input in pixels, so that no configuration can use up the memory."""


@dataclass(frozen=True)
class PixelInput:
    """An input of ``image`` pixels and 1 (grey) or 3 (RGB) channels, scaled to 0..1, minus ``mean``, over ``std``.

    ``image`` is the side of a square, or height and width. A picture of the right size is taken as it is; otherwise
    the largest centred part of the right shape is resized (bicubic). ``mean`` and ``std`` have one value, or one for
    each channel.
    """

    image: int | Sequence[int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        sides = (self.image, self.image) if isinstance(self.image, int) else tuple(self.image)
        if len(sides) != 2 or not all(1 <= side <= LARGEST for side in sides):
            raise UserError(
                f"An input cannot have {self.image} pixels; give the side of a square, or height and width, "
                f"of 1 to {LARGEST} pixels."
            )
        object.__setattr__(self, "image", sides[0] if sides[0] == sides[1] else sides)
        if self.channels not in MODES:
            raise UserError(f"An input cannot have {self.channels} channels; pictures have 1 (grey) or 3 (RGB).")
        if not {len(self.mean), len(self.std)} <= {1, self.channels}:
            raise UserError(
                f"mean has {len(self.mean)} and std {len(self.std)} values; "
                f"give one value, or one for each of the {self.channels} channels."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        height, width = (self.image, self.image) if isinstance(self.image, int) else self.image
        return self.channels, height, width

    def resize(self, picture: Image.Image) -> Image.Image:
        """The picture in the input's mode and size."""
        picture = picture.convert(MODES[self.channels])
        _, height, width = self.shape
        if picture.size == (width, height):
            return picture
        across, down = picture.size
        if across * height <= down * width:
            kept_across, kept_down = across, across * height / width
        else:
            kept_across, kept_down = down * width / height, down
        left, top = (across - kept_across) / 2, (down - kept_down) / 2
        box = (left, top, left + kept_across, top + kept_down)
        return picture.resize((width, height), Image.Resampling.BICUBIC, box=box)

    def pixels(self, picture: Image.Image) -> UInt8[np.ndarray, "height width channels"]:
        """The resized picture as bytes."""
        channels, height, width = self.shape
        return np.array(self.resize(picture)).reshape(height, width, channels)

    def normalise(
        self, pixels: UInt8[Tensor, "batch height width channels"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The model's input for these bytes, on their device."""
        mean, std = (torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32) / 255 - mean) / std

    def __call__(self, picture: Image.Image) -> Float[Tensor, "channels height width"]:
        """The model's input for one picture."""
        return self.normalise(torch.from_numpy(self.pixels(picture))[None])[0]

    @property
    def preprocessing(self) -> Preprocessing:
        """The input in the form that a subject carries."""
        mean, std = ("/".join(f"{value:.3g}" for value in values) for values in (self.mean, self.std))
        sides = " x ".join(str(side) for side in self.shape)
        text = f"{sides}, bicubic, centre crop, mean {mean}, std {std}"
        every = [values * (self.channels // len(values)) for values in (self.mean, self.std)]
        return Preprocessing(self.shape, self, text, every[0], every[1])
