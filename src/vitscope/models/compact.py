"""Compaction: an edited subject as one module that holds only what its walk uses."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscope.models.edit import plain_anatomy, with_module
from vitscope.models.feed import input_like, module_input
from vitscope.models.named import NamedModules
from vitscope.models.own_forward import probe_images
from vitscope.models.rewritten import copy_module
from vitscope.models.subject import AbstractAnatomy, Subject, Unwatched
from vitscope.models.written import with_tensors


@final
class Compacted(nn.Module):
    """A module whose forward pass is the walk of an edited subject.

    It takes normalised images and returns logits, sets no hooks, and can be exported, compiled and timed. ``module``
    is a copy of the upstream module in which parts that the walk does not use are ``nn.Identity``, so its weights
    have their upstream names. ``added`` are the tensors that edits bring along: means, and maps that replace a branch.
    It is for inference on the device and in the type that it has.
    """

    def __init__(self, module: nn.Module, anatomy: AbstractAnatomy, added: Sequence[nn.Parameter] = ()) -> None:
        super().__init__()
        self.module, self.anatomy = module, anatomy
        self.added = nn.ParameterList(added)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Tensor:
        """The logits."""
        return self.anatomy.walk(images, Unwatched())


def compact(subject: Subject, device: torch.device | None = None) -> Compacted:
    """The subject, its edits included, as one module in evaluation mode; the subject is untouched.

    Units that are left out take no time and hold no weights: the walk of a model with an adapter skips them, and a
    plain module's blocks are replaced. Its parameters are those that its logits depend on. It is on ``device``, by
    default the subject's. Cost: a copy of the weights, one forward and one backward pass of two pictures of noise.
    """
    added: list[nn.Parameter] = []
    module = copy_module(subject.module)
    module = module if device is None else module.to(device)
    edits = with_tensors(subject.edits, lambda tensor: _place(tensor, module, added))
    copied = with_module(replace(subject, edits=edits), module)
    anatomy = copied.anatomy.without_hooks()
    plain = plain_anatomy(anatomy)
    if isinstance(plain, NamedModules):  # whose parts hold the tensors
        found = Compacted(plain.module, anatomy).eval()
    else:
        found = Compacted(copied.module, anatomy, added).eval()
    _drop_unused(found, module_input(found.module, probe_images(subject.preprocessing.shape)))
    return found


def _place(tensor: Tensor, module: nn.Module, added: list[nn.Parameter]) -> Tensor:
    """A tensor of an edit on the module's device, in its type if it has but one; numbers are listed in ``added``."""
    like = input_like(module)
    if not tensor.is_floating_point():
        return tensor.detach().to(like.device)
    numbers = in_own_type(tensor, module).to(like.device, copy=True)
    added.append(nn.Parameter(numbers, requires_grad=False))
    return added[-1]


def in_own_type(tensor: Tensor, module: nn.Module) -> Tensor:
    """A tensor of an edit in the type of the module's weights, in which it is used; as it is if they have several."""
    types = {one.dtype for one in module.parameters() if one.is_floating_point()}
    own = types.pop() if len(types) == 1 and tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to(own)


def _drop_unused(compacted: Compacted, images: Float[Tensor, "batch channels height width"]) -> None:
    """Replace the parts of the module whose parameters change no logit."""
    parameters = [one for one in compacted.parameters() if one.is_floating_point()]
    asks = [one.requires_grad for one in parameters]
    with torch.enable_grad():
        for one in parameters:
            one.requires_grad_(True)
        logits = compacted(images).float().sum()
        known: tuple[Tensor, ...] = ()
        if logits.requires_grad:
            known = torch.autograd.grad(logits, parameters, allow_unused=True)
    found = cast("tuple[Tensor | None, ...]", known)
    for one, needed in zip(parameters, asks, strict=True):
        one.requires_grad_(needed)
    used = {id(one) for one, grad in zip(parameters, found, strict=bool(found)) if grad is not None}
    if used:  # a walk without a graph does not show what it uses
        _drop(compacted.module, used)
        compacted.added = nn.ParameterList(one for one in compacted.added if id(one) in used)


def _drop(module: nn.Module, used: set[int]) -> None:
    for name, part in list(module.named_children()):
        own = [id(one) for one in part.parameters()]
        if own and not used.intersection(own):
            setattr(module, name, nn.Identity())
        else:
            _drop(part, used)
