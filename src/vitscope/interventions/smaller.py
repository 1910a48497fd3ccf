"""Subjects on a smaller copy of their module, which must still run by itself."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason
from vitscope.models.catalogue import adapter_of
from vitscope.models.edit import with_module
from vitscope.models.own_forward import probe_images, why_unlike
from vitscope.models.state import buffers_kept
from vitscope.models.subject import Composition, Subject, Unwatched
from vitscope.models.surgery import with_parts


def with_smaller_parts(subject: Subject, parts: Mapping[str, nn.Module], layer: int) -> Subject:
    """The subject, its edits included, on a copy of its module with these submodules; ``layer`` is the first changed.

    Raises ``UserError`` naming that layer if the new module does not run by itself. Cost: a copy that shares all other
    weights, and two forward passes of two images.
    """
    module = with_parts(subject.module, parts)
    why = why_not_by_itself(subject, module)
    if why:
        place = subject.places[layer - 1]
        raise UserError(f"{place.name} (layer {layer} of {subject.name}) cannot be made smaller: {why}.")
    return with_module(subject, module)


def why_not_by_itself(subject: Subject, module: nn.Module) -> str:
    """Why a changed copy of the subject's module does not run by itself; empty if it does.

    It must run, and give what the walk through its parts gives, if the original did. Edits of the walk do not matter.
    """
    try:
        why = _differ(subject, module)
    except Exception as error:  # a module of anybody's raises whatever it likes
        return f"{type(module).__name__} does not run with these shapes ({reason(error)})"
    return why if why and not _differ(subject, subject.module) else ""


def _differ(subject: Subject, module: nn.Module) -> str:
    """Why the own forward pass of this module is not its plain walk; empty if it is, or if the two are the same."""
    adapter, images = adapter_of(module), probe_images(subject.preprocessing.shape)
    plain = with_module(replace(subject, edits=()), module)
    with torch.no_grad(), buffers_kept(module):
        if adapter is None or not isinstance(plain.anatomy, Composition):
            plain.anatomy.walk(images, Unwatched())
            return ""
        return why_unlike(module, plain.anatomy, images, adapter.call_arguments(module, images))
