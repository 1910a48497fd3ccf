"""Edits that leave out whole blocks, carried out: the module without these blocks, an ordinary one."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from vitscope.models.compact import compact
from vitscope.models.edit import with_module
from vitscope.models.probe import probe
from vitscope.models.rewritten import copy_module
from vitscope.models.subject import Subject, Unwatched
from vitscope.models.surgery import double_copy

_TOLERANCE = 1e-9
"""Largest difference of logits in float64, as a share of the largest."""


@final
@dataclass(frozen=True)
class Shortened:
    """A subject without edits on a module without the blocks at these paths (of the longer module)."""

    subject: Subject
    removed: tuple[str, ...]


def shorten(subject: Subject) -> Shortened | None:
    """The subject as an unedited one on a shorter module; None if its edits do anything else than leave out blocks.

    Blocks are children of an ``nn.Sequential`` or ``nn.ModuleList`` of which the walk uses nothing; in the new module
    those that are left have the first of the old names. In float64 its walk must give the edited subject's logits. The
    subject is untouched. Cost: that of a compaction, and two copies in float64 if a block is left out.
    """
    removed = _unused_blocks(subject) if subject.edits else ()
    if not removed:
        return None
    module = _without(copy_module(subject.module), removed)
    try:
        short = with_module(replace(subject, edits=()), module)
    except Exception:  # an adapter may need a block that is gone
        return None
    pairs = ((subject, double_copy(subject.module)), (short, double_copy(module)))
    images = probe(subject, torch.float64)
    with torch.no_grad():
        wanted, found = (with_module(one, double).anatomy.walk(images, Unwatched()) for one, double in pairs)
    return Shortened(short, removed) if _agree(wanted, found) else None


def _agree(wanted: Tensor, found: Tensor) -> bool:
    if wanted.shape != found.shape:
        return False
    return float((wanted - found).abs().amax()) <= _TOLERANCE * float(wanted.abs().amax())


def _unused_blocks(subject: Subject) -> tuple[str, ...]:
    """Paths of blocks that the compacted module does not hold."""
    held = dict(compact(subject).module.named_modules())
    found: list[str] = []
    for path, part in subject.module.named_modules():
        if isinstance(part, nn.Sequential | nn.ModuleList):
            own = ((f"{path}.{name}" if path else name, child) for name, child in part.named_children())
            found += [name for name, child in own if _is_gone(child, held.get(name))]
    return tuple(found)


def _is_gone(block: nn.Module, now: nn.Module | None) -> bool:
    """Whether nothing is left of a block that had weights."""
    weights = any(True for _ in block.parameters())
    return weights and now is not None and not any(True for _ in now.parameters())


def _without(module: nn.Module, removed: Sequence[str]) -> nn.Module:
    """The module with these children taken out of their containers, in place."""
    for parent in dict.fromkeys(path.rpartition(".")[0] for path in removed):
        container = module.get_submodule(parent) if parent else module
        children = dict(container.named_children())
        gone = {path.rpartition(".")[2] for path in removed if path.rpartition(".")[0] == parent}
        left = [child for name, child in children.items() if name not in gone]
        container._modules = OrderedDict(zip(children, left, strict=False))  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    return module
