"""``load``: a subject from a name, a folder, a checkpoint file or a module."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import AbstractLibrary, Size, refuse_crop
from vitscope.models.anatomy import anatomy_of
from vitscope.models.catalogue import library_of
from vitscope.models.made import Asked, made_from_module, made_from_name
from vitscope.models.pixels import PixelInput
from vitscope.models.subject import Preprocessing, Subject
from vitscope.models.unwrapped import unwrapped


def load(
    model: str | os.PathLike[str] | nn.Module = "digits",
    *,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
    average: bool | None = None,
    part: str | None = None,
    class_count: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    options: Mapping[str, object] | None = None,
    input: PixelInput | None = None,
    crop: float | None = None,
    units: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    device: str = "cpu",
) -> Subject:
    """A vision model as a subject, in evaluation mode.

    ``model`` is one of

    * ``digits``, ``vit-micro`` ... ``vit-base``: the project's own;
    * ``timm/NAME``, ``torchvision/NAME``, ``transformers/NAME``: random weights, ``pretrained`` ones, or ``weights``
      from a file;
    * a local ``save_pretrained`` folder of timm or transformers;
    * a checkpoint file that says what it is the weights of, as ``vitscope train`` writes them, and timm's trainer;
    * a ``torch.nn.Module``; one of no known library needs ``input``, and is read at ``units`` (names of submodules),
      or at its repeated blocks. A wrapper (compiled, parallel, an average, a class around one model of a library that
      gives its logits) is examined as what it holds.

    ``weights`` is a ``.safetensors`` file or one of ``torch.save``, read with ``weights_only=True``: a state dict, or a
    trainer's checkpoint in which one lies behind any one prefix. Of averaged weights (EMA, SWA) beside raw ones the
    averaged are taken, unless ``average`` is False; ``part`` is the key of the set that is meant if there are several
    more. Number of classes and channels come from the file; ``class_count``, ``image_size`` (a side, or height and
    width), ``channels`` and ``options`` (arguments of the library's constructor) say what a name leaves open.

    ``input`` replaces the model's own preprocessing, ``crop`` (timm, torchvision) only the share of the shorter side
    that its centre crop keeps; ``classes`` names its outputs. A module that is handed over is put on ``device`` and in
    evaluation mode, and otherwise left as it is: ``weights`` are loaded into a copy. Raises ``UserError`` naming what
    was given.
    """
    size = Size(class_count, (image_size, image_size) if isinstance(image_size, int) else image_size, channels)
    asked = Asked(pretrained, None if weights is None else Path(weights), average, part, size, options or {})
    if isinstance(model, str | os.PathLike):
        made = made_from_name(os.fspath(model), asked)
    else:
        held, notes = unwrapped(model, None if input is None else input.preprocessing.shape)
        made = made_from_module(held, asked)
        made = replace(made, notes=(*notes, *made.notes))
    module = made.module.to(device).eval()
    library = library_of(module)
    preprocessing = _preprocessing(module, library, input or made.input, crop)
    if size.image is not None and preprocessing.shape[1:] != size.image:
        preprocessing = _resized(preprocessing, size.image)
    count, known = library.classes(module) if library else (_outputs(module, preprocessing), None)
    described = anatomy_of(module, units, preprocessing.shape)
    return Subject(
        name=name or made.name,
        family=described.family,
        module=module,
        anatomy=described.anatomy,
        preprocessing=preprocessing,
        class_count=count,
        classes=_class_names(classes, made.classes or known, count),
        weights=made.weights,
        notes=(*made.notes, *described.notes),
    )


def _resized(own: Preprocessing, image: tuple[int, int]) -> Preprocessing:
    """An input of another size with the same normalisation, for models that take pictures of any size."""
    if own.mean is None or own.std is None or image[0] != image[1]:
        raise UserError(
            f"An input of {image[0]} x {image[1]} cannot be made here; give it as input=vitscope.PixelInput(...)."
        )
    return PixelInput(image[0], own.shape[0], own.mean, own.std).preprocessing


def _preprocessing(
    module: nn.Module, library: type[AbstractLibrary] | None, given: PixelInput | None, crop: float | None
) -> Preprocessing:
    if given is not None:
        refuse_crop("its own input", crop)
        return given.preprocessing
    if library is None:
        raise UserError(
            f"{type(module).__name__} is of no known library, so its input is not known: give it as "
            "input=vitscope.PixelInput(image=224, channels=3, mean=(...), std=(...))."
        )
    own = library.preprocessing(module, crop)
    return replace(own, transform=InMode("L" if own.shape[0] == 1 else "RGB", own.transform))


@dataclass(frozen=True)
class InMode:
    """A transform that is given every picture in the colour mode it expects."""

    mode: str
    transform: Callable[[Image.Image], Float[Tensor, "channels height width"]]

    def __call__(self, picture: Image.Image) -> Float[Tensor, "channels height width"]:
        """The transformed picture."""
        return self.transform(picture.convert(self.mode))


def _outputs(module: nn.Module, preprocessing: Preprocessing) -> int:
    """How many classes a plain module tells apart: the width of its output for one image."""
    parameter = next(iter(module.parameters()), torch.empty(0))
    with torch.inference_mode():
        output = module(torch.zeros(1, *preprocessing.shape, device=parameter.device, dtype=parameter.dtype))
    if not isinstance(output, Tensor) or output.ndim != 2:
        found = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"{type(module).__name__} returns {found}; a classifier returns batch x classes logits.")
    return output.shape[1]


def _class_names(given: Sequence[str] | None, known: tuple[str, ...] | None, count: int) -> tuple[str, ...] | None:
    if given is not None and len(given) != count:
        raise UserError(f"{len(given)} class names were given for a model of {count} classes.")
    names = tuple(given) if given is not None else known
    return names if names is None or len(names) == count else None
