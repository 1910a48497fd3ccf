"""How a module can be rebuilt: a name and arguments, checked to give the same logits with the same weights."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import load_strictly
from vitscope.models.amended import apply_changes
from vitscope.models.build import build_model
from vitscope.models.catalogue import composition_of, root_of
from vitscope.models.checkpoint import read_checkpoint
from vitscope.models.feed import input_like
from vitscope.models.own_forward import own_output
from vitscope.models.probe import probe
from vitscope.models.resized import resized_arguments
from vitscope.models.subject import Subject, Unwatched
from vitscope.models.surgery import shape_changes

_UNFIT = (UserError, TypeError, ValueError, RuntimeError, AssertionError)
"""Errors that building a model with wrong arguments may raise."""


@dataclass(frozen=True)
class Making:
    """The name and arguments from which :func:`~vitscope.models.build.build_model` makes a module.

    ``changes`` are the shapes in which the module then differs, for :func:`~vitscope.models.surgery.reshape`.
    """

    model: str
    arguments: Mapping[str, object]
    changes: Mapping[str, object] = field(default_factory=dict[str, object])


def making_of(subject: Subject, module: nn.Module) -> Making | None:
    """How ``module``, the subject's or one made from it, can be rebuilt; None if no guess works.

    Its walk without edits is what counts. Returned is the first guess that gives the same logits with the same weights;
    then the first with another number of blocks, or of hidden neurons in every block; then the one with the fewest
    changes of shape. Cost: for each guess a model without memory; for each whose shapes fit, a model is built and run
    on two images.
    """
    images, tried = probe(subject, torch.float32), list[tuple[Making, nn.Module]]()
    with torch.random.fork_rng(devices=[]):  # building a model draws random weights
        for made in _guesses(subject, module):
            unmade = _without_memory(made)
            if unmade is None:
                continue
            if _shapes(unmade) == _shapes(module) and _is_made(subject, module, made, images):
                return made
            tried.append((made, unmade))
        for made, unmade in tuple(tried):
            for arguments in resized_arguments(made.arguments, unmade, module):
                other = replace(made, arguments=arguments)
                again = _without_memory(other)
                if again is not None and _shapes(again) == _shapes(module) and _is_made(subject, module, other, images):
                    return other
                tried += [] if again is None else [(other, again)]
        changed = [one for made, unmade in tried if (one := _with_changes(made, unmade, module)) is not None]
        likely = sorted(changed, key=lambda made: len(made.changes))
        return next((one for one in likely if _is_made(subject, module, one, images)), None)


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: one.shape for name, one in module.state_dict().items()}


def _with_changes(made: Making, unmade: nn.Module, module: nn.Module) -> Making | None:
    """The guess with the changes of shape that lead to the module; None if none do."""
    try:
        return replace(made, changes=shape_changes(unmade, module))
    except _UNFIT:
        return None


def _without_memory(made: Making) -> nn.Module | None:
    """The model that the guess makes, without memory; None if it makes none."""
    try:
        with torch.device("meta"):
            return build_model(made.model, made.arguments, None)
    except _UNFIT:
        return None


def _is_made(
    subject: Subject, module: nn.Module, made: Making, images: Float[Tensor, "batch channels height width"]
) -> bool:
    """Whether the guess gives the module's logits with its weights."""
    weights = cast("dict[str, Tensor]", module.state_dict())
    try:
        rebuilt = apply_changes(build_model(made.model, made.arguments, subject.classes), made.changes)
        rebuilt = load_strictly(rebuilt, weights).eval()
    except _UNFIT:
        return False
    wanted, found = (_logits(one, images) for one in (module, rebuilt))
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)


def _logits(module: nn.Module, images: Float[Tensor, "batch channels height width"]) -> Tensor:
    anatomy = composition_of(module)
    with torch.no_grad():
        placed = images.to(input_like(module).device)
        return (anatomy.walk(placed, Unwatched()) if anatomy else own_output(module, placed)).float().cpu()


def _guesses(subject: Subject, module: nn.Module) -> Iterator[Making]:
    """Guesses of how to rebuild the module: from its checkpoint, its configuration, its name in its library."""
    origin = Path(subject.weights)
    if origin.is_file():
        found = read_checkpoint(origin)
        if found.model is not None:
            yield Making(found.model, found.arguments)
    root = root_of(module)
    if root == "vitscope":
        from vitscope.models.own.vit import SIZES, Vit

        if isinstance(module, Vit):
            yield Making(subject.name if subject.name in SIZES else "vit-micro", dataclasses.asdict(module.config))
    if root == "timm":
        yield from _timm_guesses(subject, module)
    if root == "torchvision" and subject.name.startswith("torchvision/"):
        size = {"num_classes": subject.class_count}
        for arguments in ({}, size, {**size, "image_size": list(subject.preprocessing.shape[1:])}):
            yield Making(subject.name, arguments)
    if root == "transformers":
        text: str = cast(Any, module).config.to_json_string(use_diff=False)
        yield Making(f"transformers/{type(module).__name__}", {"config": json.loads(text)})


def _timm_guesses(subject: Subject, module: nn.Module) -> Iterator[Making]:
    from vitscope.models.timm.construction import registered_name

    channels, height, width = subject.preprocessing.shape
    side = height if height == width else [height, width]
    size: dict[str, object] = {"num_classes": subject.class_count, "in_chans": channels}
    named = subject.name.removeprefix("timm/") if subject.name.startswith("timm/") else None
    for name in dict.fromkeys(filter(None, (named, registered_name(module)))):
        for arguments in ({}, size, {**size, "img_size": side}):
            yield Making(f"timm/{name}", arguments)
