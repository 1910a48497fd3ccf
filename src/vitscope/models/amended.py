"""Subjects that depart from the model of their name: what a file says of them, and how they are made again."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason
from vitscope.models.adapter import load_strictly
from vitscope.models.checkpoint import Amendment, Checkpoint
from vitscope.models.compact import compact, in_own_type
from vitscope.models.edit import plain_anatomy, with_edits, with_module
from vitscope.models.named import NamedModules
from vitscope.models.subject import AbstractAnatomy, AbstractEdit, Subject
from vitscope.models.surgery import reshape
from vitscope.models.written import with_tensors, write_edits

_MOST_ABSENT = 1000
"""How many times more numbers a file may leave out than it holds, so that no file can use up the memory."""


def amendment_of(subject: Subject, changes: Mapping[str, object]) -> Amendment | None:
    """How the subject departs from the model of its name, from which ``changes`` are the shapes that differ.

    None if it does not. Raises ``UserError`` for an edit that no file can say. Cost: that of two compactions.
    """
    if not subject.edits and not changes:
        return None
    return Amendment(
        changes=changes,
        edits=write_edits(with_tensors(subject.edits, lambda tensor: in_own_type(tensor, subject.module))),
        units=tuple(place.name for place in subject.places),
        plain=isinstance(plain_anatomy(subject.anatomy), NamedModules),
        absent=tuple(sorted(_unused_weights(subject))) if subject.edits else (),
    )


def _unused_weights(subject: Subject) -> set[str]:
    """Names of the weights that its walk uses without its edits, but not with them."""
    bare = with_module(replace(subject, edits=()), subject.module)
    before, after = (set(compact(one).module.state_dict()) for one in (bare, subject))
    return before - after


def apply_changes(module: nn.Module, changes: Mapping[str, object]) -> nn.Module:
    """The module in these shapes; itself if there are none."""
    return reshape(module, changes) if changes else module


def all_weights(module: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The checkpoint's weights, and zeros for those of the module that it leaves out, on the module's device.

    Raises ``UserError`` if it leaves out far more than it holds.
    """
    weights = dict(checkpoint.weights)
    if checkpoint.amendment is None:
        return weights
    own = module.state_dict()
    absent = {name: own[name] for name in checkpoint.amendment.absent if name in own and name not in weights}
    held, left = (sum(one.numel() for one in some.values()) for some in (weights, absent))
    if left > _MOST_ABSENT * held:
        raise UserError(f"it leaves out {left:,} numbers and holds only {held:,}")
    return {**weights, **{name: torch.zeros_like(one) for name, one in absent.items()}}


def amend(module: nn.Module, checkpoint: Checkpoint) -> nn.Module:
    """The module in the checkpoint's shapes and with its weights; raises ``UserError`` if they do not fit."""
    module = apply_changes(module, checkpoint.changes)
    return load_strictly(module, all_weights(module, checkpoint))


def amend_anatomy(anatomy: AbstractAnatomy, amendment: Amendment) -> tuple[AbstractAnatomy, tuple[AbstractEdit, ...]]:
    """The anatomy after the file's edits, and these.

    Raises ``UserError`` if its units are not those that the edits count, or if the edits are damaged.
    """
    try:
        edits = amendment.edits.read()
    except UserError as error:
        raise UserError(f"The file's edits cannot be read: {reason(error)}; save it again.") from error
    own = tuple(place.name for place in anatomy.places)
    if edits and own != amendment.units:
        here, there = (f"{len(some)} units ({', '.join(some[:3])}, ...)" for some in (own, amendment.units))
        raise UserError(f"The file's edits are those of a model with {there}, but this one has {here}.")
    try:
        return with_edits(anatomy, edits), edits
    except UserError:
        raise
    except Exception as error:  # a hostile file chooses what is raised
        raise UserError(f"The file's edits are damaged ({type(error).__name__}: {error}); save it again.") from error


def amendment_notes(amendment: Amendment, file: str) -> tuple[str, ...]:
    """A note on the weights that the file leaves out."""
    count, names = len(amendment.absent), ", ".join(amendment.absent[:2])
    if not count:
        return ()
    more = f" and {count - 2} more" if count > 2 else ""
    return (f"{file} leaves out weights that its edits leave unused, which are zero here: {names}{more}.",)
