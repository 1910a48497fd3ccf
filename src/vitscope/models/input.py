"""What a module is shown: the input it was made for, in the colours it expects."""

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
    """The input that was given, else the one the module was made for, as its library knows it.

    What is a guess is said in the preprocessing's notes. Raises ``UserError`` if nobody knows, or for an input that
    no picture is: channels other than 1 (grey) or 3 (RGB), no pixels, or more than ``LARGEST`` a side.
    """
    if given is not None:
        refuse_crop("its own input", crop)
        return given.preprocessing
    name = type(module).__name__
    if library is None:
        raise UserError(f"{name} is of no known library, so its input is not known: give it as {_EXAMPLE}.")
    own = library.preprocessing(module, crop)
    channels, *sides = own.shape
    if channels not in MODES:
        raise UserError(f"{name} takes {channels} channels; pictures have 1 (grey) or 3 (RGB), so none can be shown.")
    if not all(1 <= side <= LARGEST for side in sides):
        raise UserError(
            f"The input of {name} is {' x '.join(map(str, sides))} pixels, which are no picture's (1 to {LARGEST}): "
            f"give it as {_EXAMPLE}."
        )
    return replace(own, transform=InMode(MODES[channels], own.transform))


def resize_input(own: Preprocessing, image: tuple[int, int]) -> Preprocessing:
    """An input of another size with the same normalisation, for models that take pictures of any size."""
    if own.mean is None or own.std is None:
        raise UserError(f"An input of {image[0]} x {image[1]} cannot be made here; give it as {_EXAMPLE}.")
    return PixelInput(image, own.shape[0], own.mean, own.std).preprocessing


@dataclass(frozen=True)
class InMode:
    """A transform that is given every picture in the colour mode it expects."""

    mode: str
    transform: Callable[[Image.Image], Float[Tensor, "channels height width"]]

    def __call__(self, picture: Image.Image) -> Float[Tensor, "channels height width"]:
        """The transformed picture."""
        return self.transform(picture.convert(self.mode))


def first_channels(module: nn.Module, named: str | tuple[str, ...] | None = None) -> int | None:
    """The channels that enter the module's first convolution, or the layer that is named as its first; None if none."""
    if named is None:
        layer = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    else:
        parts = dict(module.named_modules())
        layer = parts.get(named if isinstance(named, str) else named[0])
    return layer.in_channels if isinstance(layer, nn.Conv2d) else None
