"""How a picture becomes the input of a model that is trained here: one size, one mode, one normalisation."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from vitscope.measurement.errors import UserError
from vitscope.models.subject import Preprocessing

_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class PixelInput:
    """A square input of ``image`` pixels and 1 (grey) or 3 (RGB) channels, scaled to 0..1, less ``mean``, over ``std``.

    A picture of the right size is taken as it is; any other has its shorter side resized (bicubic) and its centre
    cut out. ``mean`` and ``std`` have one value, or one for each channel.
    """

    image: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.channels not in _MODES:
            raise UserError(f"An input of {self.channels} channels was asked for; pictures have 1 (grey) or 3 (RGB).")
        if not {len(self.mean), len(self.std)} <= {1, self.channels}:
            raise UserError(
                f"mean has {len(self.mean)} and std {len(self.std)} values; "
                f"give one value, or one for each of the {self.channels} channels."
            )

    def resized(self, picture: Image.Image) -> Image.Image:
        """The picture in the input's mode and size."""
        picture = picture.convert(_MODES[self.channels])
        width, height = picture.size
        if (width, height) == (self.image, self.image):
            return picture
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return picture.resize((self.image, self.image), Image.Resampling.BICUBIC, box=box)

    def pixels(self, picture: Image.Image) -> UInt8[np.ndarray, "height width channels"]:
        """The resized picture as bytes."""
        return np.array(self.resized(picture)).reshape(self.image, self.image, self.channels)

    def normalised(
        self, pixels: UInt8[Tensor, "batch height width channels"]
    ) -> Float[Tensor, "batch channels height width"]:
        """What the model is given for these bytes, on the device they are on."""
        mean, std = (torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32) / 255 - mean) / std

    def __call__(self, picture: Image.Image) -> Float[Tensor, "channels height width"]:
        """The model's input for one picture."""
        return self.normalised(torch.from_numpy(self.pixels(picture))[None])[0]

    @property
    def preprocessing(self) -> Preprocessing:
        """The same, as what a subject carries."""
        mean, std = ("/".join(f"{value:.3g}" for value in values) for values in (self.mean, self.std))
        text = f"{self.channels} x {self.image} x {self.image}, bicubic, centre crop, mean {mean}, std {std}"
        normalisation = (values * (self.channels // len(values)) for values in (self.mean, self.std))
        return Preprocessing((self.channels, self.image, self.image), self, text, *normalisation)
