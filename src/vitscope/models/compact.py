"""Compaction: an edited subject as one module that holds only what its walk uses."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscope.models.edit import plain_anatomy, with_module
from vitscope.models.feed import module_input
from vitscope.models.named import NamedModules
from vitscope.models.own_forward import probe_images
from vitscope.models.rewritten import copy_module
from vitscope.models.subject import AbstractAnatomy, Subject, Unwatched


@final
class Compacted(nn.Module):
    """A module whose forward pass is the walk of an edited subject.

    It takes normalised images and returns logits, sets no hooks, and can be exported, compiled and timed. ``module``
    is a copy of the upstream module in which parts that the walk does not use are ``nn.Identity``, so its weights
    have their upstream names. It is for inference on the device and in the type that it has.
    """

    def __init__(self, module: nn.Module, anatomy: AbstractAnatomy) -> None:
        super().__init__()
        self.module, self.anatomy = module, anatomy

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Tensor:
        """The logits."""
        return self.anatomy.walk(images, Unwatched())


def compact(subject: Subject) -> Compacted:
    """The subject, its edits included, as one module in evaluation mode; the subject is untouched.

    Units that are left out take no time and hold no weights: the walk of a model with an adapter skips them, and a
    plain module's blocks are replaced. Its parameters are those that its logits depend on. Cost: a copy of the weights,
    one forward and one backward pass of two pictures of noise.
    """
    copied = with_module(subject, copy_module(subject.module))
    anatomy = copied.anatomy.without_hooks()
    plain = plain_anatomy(anatomy)
    found = Compacted(plain.module if isinstance(plain, NamedModules) else copied.module, anatomy).eval()
    _drop_unused(found, module_input(found.module, probe_images(subject.preprocessing.shape)))
    return found


def _drop_unused(compacted: Compacted, images: Float[Tensor, "batch channels height width"]) -> None:
    """Replace the parts of the module whose parameters change no logit."""
    parameters = [one for one in compacted.parameters() if one.is_floating_point()]
    asks = [one.requires_grad for one in parameters]
    with torch.enable_grad():
        for one in parameters:
            one.requires_grad_(True)
        logits = compacted(images).float().sum()
        found: tuple[Tensor | None, ...] = (
            torch.autograd.grad(logits, parameters, allow_unused=True) if logits.requires_grad else ()
        )
    for one, needed in zip(parameters, asks, strict=True):
        one.requires_grad_(needed)
    used = {id(one) for one, grad in zip(parameters, found, strict=bool(found)) if grad is not None}
    if used:  # a walk without a graph does not show what it uses
        _drop(compacted.module, used)


def _drop(module: nn.Module, used: set[int]) -> None:
    for name, part in list(module.named_children()):
        own = [id(one) for one in part.parameters()]
        if own and not used.intersection(own):
            setattr(module, name, nn.Identity())
        else:
            _drop(part, used)
