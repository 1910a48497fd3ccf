"""How a module can be rebuilt: a name and arguments, checked to give the same logits with the same weights."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import load_strictly
from vitscope.models.baked import probe
from vitscope.models.build import build_model
from vitscope.models.catalogue import composition_of, root_of
from vitscope.models.checkpoint import read_checkpoint
from vitscope.models.feed import input_like
from vitscope.models.own_forward import own_output
from vitscope.models.subject import Subject, Unwatched

_UNFIT = (UserError, TypeError, ValueError, RuntimeError, AssertionError)
"""Errors that building a model with wrong arguments may raise."""


@dataclass(frozen=True)
class Making:
    """The name and arguments from which :func:`~vitscope.models.build.build_model` makes a module."""

    model: str
    arguments: Mapping[str, object]


def making_of(subject: Subject, module: nn.Module) -> Making | None:
    """How ``module``, the subject's with its edits in the weights, can be rebuilt; None if no guess works.

    The first guess that gives the same logits with the same weights is returned. Cost: for each guess whose shapes fit,
    a model is built and run on two images.
    """
    images, weights = probe(subject, torch.float32), cast("dict[str, Tensor]", module.state_dict())
    with torch.random.fork_rng(devices=[]):  # building a model draws random weights
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


def _guesses(subject: Subject, module: nn.Module) -> Iterator[Making]:
    """Guesses of how to rebuild the module: from its checkpoint, its configuration, its name in timm."""
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


def _timm_guesses(subject: Subject, module: nn.Module) -> Iterator[Making]:
    from vitscope.models.timm.construction import registered_name

    channels, height, width = subject.preprocessing.shape
    side = height if height == width else [height, width]
    size: dict[str, object] = {"num_classes": subject.class_count, "in_chans": channels}
    named = subject.name.removeprefix("timm/") if subject.name.startswith("timm/") else None
    for name in dict.fromkeys(filter(None, (named, registered_name(module)))):
        for arguments in ({}, size, {**size, "img_size": side}):
            if _fits(name, arguments, module):
                yield Making(f"timm/{name}", arguments)


def _fits(name: str, arguments: Mapping[str, object], module: nn.Module) -> bool:
    """Whether timm makes a model with the same parameters from these; checked without memory for them."""
    try:
        with torch.device("meta"):
            made = build_model(f"timm/{name}", arguments, None)
    except _UNFIT:
        return False
    shapes = [{key: one.shape for key, one in each.state_dict().items()} for each in (made, module)]
    return shapes[0] == shapes[1]
