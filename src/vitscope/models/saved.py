"""Edited subjects saved as ordinary models: their edits are written into the weights, or they are refused."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import load_strictly
from vitscope.models.baked import baked, probe
from vitscope.models.build import build_model
from vitscope.models.catalogue import composition_of, root_of
from vitscope.models.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from vitscope.models.feed import input_like
from vitscope.models.own_forward import own_output
from vitscope.models.pixels import PixelInput
from vitscope.models.subject import Subject, Unwatched

_UNFIT = (UserError, TypeError, ValueError, RuntimeError, AssertionError)
"""What making a model with arguments that are not its own may raise."""


@final
@dataclass(frozen=True)
class Saved:
    """A file of weights under the upstream model's own names.

    ``model`` is what ``load(path)`` makes the module from. Where it is None the file holds weights alone: name the
    architecture and give the file as its weights. ``zeroed`` are the parameters that carry lesions.
    """

    path: Path
    model: str | None
    zeroed: tuple[str, ...]


def save(subject: Subject, path: str | os.PathLike[str]) -> Saved:
    """Write the subject, its edits included, to a ``.safetensors`` file that any program can load as usual.

    Changed weights are saved as they are. A unit or head that is left out is written as zeros into the last weights
    of its branch; that the ordinary module then gives the edited subject's logits is checked in float64. The file
    says what it is the weights of where that module can be made again from a name (the project's own models and
    timm's), which is tried before it is said. Preprocessing is kept where it is a ``PixelInput``; otherwise a loaded
    model has its own. Raises ``UserError`` for what weights cannot carry: fewer tokens, noise on the input, another
    shape of attention, means that differ from token to token. Cost: some forward passes of two images for each unit
    that is left out.
    """
    target = Path(path)
    if target.suffix != ".safetensors":
        raise UserError(f"Weights are saved as .safetensors, not as {target.name!r}; give {target.stem}.safetensors.")
    module, zeroed = baked(subject)
    weights = cast("dict[str, Tensor]", module.state_dict())
    made = _description(subject, module, weights)
    given = subject.preprocessing.transform
    checkpoint = Checkpoint(
        weights=weights,
        model=made and made.model,
        arguments=made.arguments if made else {},
        classes=subject.classes,
        input=given if isinstance(given, PixelInput) else None,
        training={"edits": [type(edit).__name__ for edit in subject.edits], "zeroed": zeroed, "from": subject.weights},
    )
    save_checkpoint(checkpoint, target)
    return Saved(target, checkpoint.model, zeroed)


@dataclass(frozen=True)
class _Made:
    model: str
    arguments: Mapping[str, object]


def _description(subject: Subject, module: nn.Module, weights: dict[str, Tensor]) -> _Made | None:
    """What the module can be made from: the first guess that gives the same logits with these weights."""
    images = probe(subject, torch.float32)
    with torch.random.fork_rng(devices=[]):  # making a model draws its first weights
        for made in _guesses(subject, module):
            try:
                rebuilt = load_strictly(build_model(made.model, made.arguments, subject.classes), weights).eval()
            except _UNFIT:
                continue
            wanted, found = (_logits(one, images) for one in (module, rebuilt))
            if found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-4, atol=1e-4):
                return made
    return None


def _logits(module: nn.Module, images: Float[Tensor, "batch channels height width"]) -> Tensor:
    anatomy = composition_of(module)
    with torch.no_grad():
        placed = images.to(input_like(module).device)
        return (anatomy.walk(placed, Unwatched()) if anatomy else own_output(module, placed)).float().cpu()


def _guesses(subject: Subject, module: nn.Module) -> Iterator[_Made]:
    """What the module may be made from: the checkpoint it came from, its configuration, its name in timm."""
    origin = Path(subject.weights)
    if origin.is_file():
        found = read_checkpoint(origin)
        if found.model is not None:
            yield _Made(found.model, found.arguments)
    root = root_of(module)
    if root == "vitscope":
        from vitscope.models.own.vit import Vit

        if isinstance(module, Vit):
            yield _Made("vit-micro", dataclasses.asdict(module.config))
    if root == "timm":
        yield from _timm_guesses(subject, module)


def _timm_guesses(subject: Subject, module: nn.Module) -> Iterator[_Made]:
    from vitscope.models.timm.construction import registered_name

    channels, height, width = subject.preprocessing.shape
    side = height if height == width else [height, width]
    size: dict[str, object] = {"num_classes": subject.class_count, "in_chans": channels}
    named = subject.name.removeprefix("timm/") if subject.name.startswith("timm/") else None
    for name in dict.fromkeys(filter(None, (named, registered_name(module)))):
        for arguments in ({}, size, {**size, "img_size": side}):
            if _fits(name, arguments, module):
                yield _Made(f"timm/{name}", arguments)


def _fits(name: str, arguments: Mapping[str, object], module: nn.Module) -> bool:
    """Whether timm makes a model of the same parameters from these; found without memory for them."""
    try:
        with torch.device("meta"):
            made = build_model(f"timm/{name}", arguments, None)
    except _UNFIT:
        return False
    shapes = [{key: one.shape for key, one in each.state_dict().items()} for each in (made, module)]
    return shapes[0] == shapes[1]
