"""``load``: a subject from a name, a folder, a checkpoint file or a module."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import LIBRARIES, AbstractLibrary
from vitscope.models.anatomy import anatomy_of
from vitscope.models.build import restored
from vitscope.models.catalogue import import_adapters, library_of
from vitscope.models.checkpoint import read_checkpoint
from vitscope.models.classes import outputs_of
from vitscope.models.folder import read_folder, refuse_without_weights
from vitscope.models.input import input_of, output_width
from vitscope.models.pixels import PixelInput
from vitscope.models.subject import Subject

_BY_NAME = ("pretrained", "random")
"""Weights that are the name's own, and so are its classes."""
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
    preprocessing = input_of(module, library, input or made.input, crop)
    described = anatomy_of(module, units, preprocessing.shape)
    width = output_width(described.anatomy, preprocessing.shape)
    outputs = outputs_of(module, library, width, made.classes, classes)
    guessed = outputs.notes if made.weights not in _BY_NAME else ()
    return Subject(
        name=name or made.name,
        family=described.family,
        module=module,
        anatomy=described.anatomy,
        preprocessing=preprocessing,
        class_count=outputs.count,
        classes=outputs.names,
        weights=made.weights,
        notes=(*made.notes, *preprocessing.notes, *described.notes, *guessed),
    )


@dataclass(frozen=True)
class _Made:
    module: nn.Module
    name: str
    weights: str
    classes: tuple[str, ...] | None = None
    input: PixelInput | None = None
    notes: tuple[str, ...] = ()


def _made(model: str | os.PathLike[str] | nn.Module, pretrained: bool, weights: str | os.PathLike[str] | None) -> _Made:
    if isinstance(model, nn.Module):
        return _weighted(_Made(model, type(model).__name__, "as handed over"), weights)
    path = Path(model)
    if path.is_file():
        return _from_file(path)
    if (path / "config.json").is_file():
        return _weighted(_from_folder(path, weights is None), weights)
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


def _from_folder(path: Path, weights: bool) -> _Made:
    """The model that a folder was saved from, with the folder's weights, or random ones if others are to come."""
    folder = read_folder(path, weights)
    for prefix in ("timm", "transformers"):
        library = _library(prefix)
        if library.owns_folder(dict(folder.configuration)):
            if weights:
                refuse_without_weights(folder)
            opened = library.from_folder(folder)
            return _Made(opened.module, path.name, str(path), notes=opened.notes)
    keys = ", ".join(folder.configuration)
    raise UserError(f"{path}/config.json names no architecture of timm or transformers; its keys: {keys}.")


def _weighted(made: _Made, weights: str | os.PathLike[str] | None) -> _Made:
    if weights is None:
        return made
    state = dict(read_checkpoint(Path(weights)).weights)
    library = library_of(made.module)
    if library is None:
        raise UserError("Weights can be given for a model that is named, not for a module that is handed over.")
    return replace(made, module=library.load_weights(made.module, state), weights=str(weights))
