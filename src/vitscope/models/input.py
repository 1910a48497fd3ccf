"""The input that a module was made for, in the colour mode it expects."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import AbstractLibrary, refuse_crop
from vitscope.models.pixels import LARGEST, MODES, PixelInput
from vitscope.models.subject import Preprocessing

_EXAMPLE = "input=vitscope.PixelInput(image=224, channels=3, mean=(...), std=(...))"


def input_of(
    module: nn.Module, library: type[AbstractLibrary] | None, given: PixelInput | None, crop: float | None
) -> Preprocessing:
    """The ``given`` input, else the one the module was made for according to its library.

    The preprocessing's notes state guesses. Raises ``UserError`` if the input is unknown, or cannot be a picture:
    channels other than 1 (grey) or 3 (RGB), no pixels, or more than ``LARGEST`` a side.
    """
    if given is not None:
        refuse_crop("an input of your own", crop)
        return given.preprocessing
    name = type(module).__name__
    if library is None:
        raise UserError(f"{name} belongs to no known library, so its input is not known: give it as {_EXAMPLE}.")
    own = library.preprocessing(module, crop)
    channels, *sides = own.shape
    if channels not in MODES:
        raise UserError(f"{name} takes {channels} channels; pictures have 1 (grey) or 3 (RGB), so none can be shown.")
    if not all(1 <= side <= LARGEST for side in sides):
        raise UserError(
            f"The input of {name} is {' x '.join(map(str, sides))} pixels, but a side must have 1 to {LARGEST}: "
            f"give it as {_EXAMPLE}."
        )
    return replace(own, transform=InMode(MODES[channels], own.transform))


def resize_input(own: Preprocessing, image: tuple[int, int]) -> Preprocessing:
    """An input of another size with the same normalisation, for models that take pictures of any size."""
    if own.mean is None or own.std is None:
        raise UserError(
            f"An input of {image[0]} x {image[1]} pixels needs a known normalisation; give it as {_EXAMPLE}."
        )
    return PixelInput(image, own.shape[0], own.mean, own.std).preprocessing


@dataclass(frozen=True)
class InMode:
    """A transform that receives every picture in the colour mode it expects."""

    mode: str
    transform: Callable[[Image.Image], Float[Tensor, "channels height width"]]

    def __call__(self, picture: Image.Image) -> Float[Tensor, "channels height width"]:
        """The transformed picture."""
        return self.transform(picture.convert(self.mode))


def first_channels(module: nn.Module, named: str | tuple[str, ...] | None = None) -> int | None:
    """The input channels of the module's first convolution, or of the layer named as its first; None if none."""
    if named is None:
        layer = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    else:
        parts = dict(module.named_modules())
        layer = parts.get(named if isinstance(named, str) else named[0])
    return layer.in_channels if isinstance(layer, nn.Conv2d) else None
