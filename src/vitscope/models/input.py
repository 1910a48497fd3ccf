"""What a module is shown: the input it was made for, in the colours it expects, tried once before it is believed."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import AbstractLibrary, refuse_crop
from vitscope.models.output import rows_of
from vitscope.models.pixels import LARGEST, MODES, PixelInput
from vitscope.models.subject import AbstractAnatomy, Preprocessing, Unwatched

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


@dataclass(frozen=True)
class InMode:
    """A transform that is given every picture in the colour mode it expects."""

    mode: str
    transform: Callable[[Image.Image], Float[Tensor, "channels height width"]]

    def __call__(self, picture: Image.Image) -> Float[Tensor, "channels height width"]:
        """The transformed picture."""
        return self.transform(picture.convert(self.mode))


def width_of_output(module: nn.Module, anatomy: AbstractAnatomy | None, preprocessing: Preprocessing) -> int:
    """How many numbers the module, walked through if it has an anatomy, returns for an image of zeros.

    Raises ``UserError`` for a module that does not take the input, or returns no row of numbers. Cost: one forward pass
    of one image.
    """
    name, shape = type(module).__name__, " x ".join(map(str, preprocessing.shape))
    parameter = next((one for one in module.parameters() if one.is_floating_point()), torch.empty(0))
    zeros = torch.zeros(1, *preprocessing.shape, device=parameter.device, dtype=parameter.dtype)
    try:
        with torch.inference_mode():
            output: object = module(zeros) if anatomy is None else anatomy.walk(zeros, Unwatched())
    except UserError:
        raise
    except Exception as error:  # whatever a stranger's module raises
        why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"{name} does not take an input of {shape} ({why}): give the one it takes as {_EXAMPLE}."
        ) from error
    if anatomy is not None and isinstance(output, Tensor) and output.ndim > 2:  # a decoder's patches, for one
        return output.shape[-1]
    rows = rows_of(output)
    if rows is None or len(rows) != 1:
        found = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"{name} returns {found}; a classifier returns batch x classes logits.")
    return rows.shape[1]


def first_channels(module: nn.Module, named: str | tuple[str, ...] | None = None) -> int | None:
    """The channels that enter the module's first convolution, or the layer that is named as its first; None if none."""
    if named is None:
        layer = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    else:
        parts = dict(module.named_modules())
        layer = parts.get(named if isinstance(named, str) else named[0])
    return layer.in_channels if isinstance(layer, nn.Conv2d) else None
