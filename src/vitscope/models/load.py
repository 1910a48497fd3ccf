"""``load``: a subject from a name, a folder, a checkpoint file or a module."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import LIBRARIES, AbstractLibrary, refuse_crop
from vitscope.models.anatomy import anatomy_of
from vitscope.models.build import restored
from vitscope.models.catalogue import import_adapters, library_of
from vitscope.models.checkpoint import read_checkpoint
from vitscope.models.pixels import PixelInput
from vitscope.models.subject import Preprocessing, Subject

_LIBRARIES = ("timm", "torchvision", "transformers", "vitscope")


def load(
    model: str | os.PathLike[str] | nn.Module = "digits",
    *,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
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
      from a file (``.safetensors``, or ``.pt`` loaded with ``weights_only=True``);
    * a local ``save_pretrained`` folder of timm or transformers;
    * a checkpoint file that says what it is the weights of, as ``vitscope train`` writes them;
    * a ``torch.nn.Module``; one of no known library needs ``input``, and is read at ``units`` (names of submodules),
      or at its repeated blocks.

    ``input`` replaces the model's own preprocessing, ``crop`` (timm, torchvision) only the share of the shorter side
    that its centre crop keeps; ``classes`` names its outputs. A module that is handed over is
    put on ``device`` and in evaluation mode, and otherwise left as it is. Raises ``UserError`` naming what was given.
    """
    made = _made(model, pretrained, weights)
    module = made.module.to(device).eval()
    library = library_of(module)
    preprocessing = _preprocessing(module, library, input or made.input, crop)
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
        notes=described.notes,
    )


@dataclass(frozen=True)
class _Made:
    module: nn.Module
    name: str
    weights: str
    classes: tuple[str, ...] | None = None
    input: PixelInput | None = None


def _made(model: str | os.PathLike[str] | nn.Module, pretrained: bool, weights: str | os.PathLike[str] | None) -> _Made:
    if isinstance(model, nn.Module):
        return _weighted(_Made(model, type(model).__name__, "as handed over"), weights)
    path = Path(model)
    if path.is_file():
        return _from_file(path)
    if (path / "config.json").is_file():
        return _weighted(_from_folder(path), weights)
    prefix, _, rest = str(model).partition("/")
    prefix, rest = (prefix, rest) if rest else ("vitscope", prefix)
    if prefix not in _LIBRARIES:
        raise UserError(
            f"{str(model)!r} is no file, no saved folder and no model name; a name is digits, vit-micro, "
            "timm/NAME, torchvision/NAME or transformers/NAME."
        )
    library = _library(prefix)
    trained = "pretrained" if pretrained or rest == "digits" else "random"
    return _weighted(_Made(library.create(rest, pretrained), str(model), trained), weights)


def _library(prefix: str) -> type[AbstractLibrary]:
    import_adapters(prefix)
    return next(library for _, library in LIBRARIES.items() if library.name == prefix)


def _from_file(path: Path) -> _Made:
    checkpoint = read_checkpoint(path)
    if checkpoint.model is None:
        raise UserError(
            f"{path} does not say which model it holds the weights of; name the architecture and give the file "
            f"beside it: timm/NAME --weights {path}."
        )
    return _Made(restored(checkpoint), checkpoint.model, str(path), checkpoint.classes, checkpoint.input)


def _from_folder(path: Path) -> _Made:
    config = json.loads((path / "config.json").read_text())
    for prefix in ("timm", "transformers"):
        library = _library(prefix)
        if library.owns_folder(config):
            return _Made(library.create(str(path), True), path.name, str(path))
    raise UserError(f"{path}/config.json names no architecture of timm or transformers; its keys: {', '.join(config)}.")


def _weighted(made: _Made, weights: str | os.PathLike[str] | None) -> _Made:
    if weights is None:
        return made
    state = dict(read_checkpoint(Path(weights)).weights)
    library = library_of(made.module)
    if library is None:
        raise UserError("Weights can be given for a model that is named, not for a module that is handed over.")
    return replace(made, module=library.load_weights(made.module, state), weights=str(weights))


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
