"""Edited subjects saved as files: weights, the model they belong to, and every edit as data."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, final

import torch
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.amended import amend, amend_anatomy, amendment_notes, amendment_of
from vitscope.models.build import build_model
from vitscope.models.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from vitscope.models.edit import with_module
from vitscope.models.feed import input_like
from vitscope.models.load import load
from vitscope.models.own_forward import allowed_gap, distance
from vitscope.models.pixels import PixelInput
from vitscope.models.probe import probe
from vitscope.models.remade import making_of
from vitscope.models.rewritten import copy_module
from vitscope.models.shortened import shorten
from vitscope.models.subject import Subject, Unwatched
from vitscope.models.surgery import shape_changes
from vitscope.models.written import write_edits


@final
@dataclass(frozen=True)
class Saved:
    """A file of weights under the upstream model's own names, and of the subject's edits.

    ``load(path)`` gives the subject again. If ``model`` is None, the module has no name to build it from: pass it and
    the file, as in ``load(module, weights=path)``. ``absent`` are names of weights that the edits leave unused; they
    are not in the file.
    """

    path: Path
    model: str | None
    absent: tuple[str, ...] = ()


def save(subject: Subject, path: str | os.PathLike[str], original: Subject | None = None) -> Saved:
    """Write the subject, its edits included, to a ``.safetensors`` file from which ``load`` makes it again.

    The file holds the weights that the subject uses, under their upstream names; the name and the arguments from which
    the model is built (the project's own models, timm's, torchvision's and transformers'), the shapes that differ from
    that, and every edit of the walk with its settings and tensors. Without edits it is an ordinary checkpoint; so it is
    if edits leave out whole blocks, or layers became narrower in every block alike, and the model's arguments can say
    so (``depth``, ``mlp_ratio``): the model that is loaded then has fewer units and no edits.
    Preprocessing is saved if it is a ``PixelInput``; otherwise a loaded model has its own. ``original`` is the subject
    that it was made from: give it if its module has no name and layers became smaller. Before it is written, the model
    is made again from what the file says, and its logits are compared. Raises ``UserError`` for an edit that no file
    can say, such as a function of your own. Cost: a copy of the model, and some forward passes of two images.
    """
    target = Path(path)
    if target.suffix != ".safetensors":
        raise UserError(f"Weights are saved as .safetensors, not as {target.name!r}; give {target.stem}.safetensors.")
    checkpoint = checkpoint_from(subject, original)
    save_checkpoint(checkpoint, target)
    return Saved(target, checkpoint.model, checkpoint.amendment.absent if checkpoint.amendment else ())


def load_again(path: str | os.PathLike[str], original: Subject) -> Subject:
    """The subject in a file that :func:`save` wrote of a subject made from ``original``, which is untouched.

    If the file names its model, this is ``load(path)``; otherwise a copy of the original's module gives the
    architecture, and the subject has the original's input, classes and name. Raises ``UserError`` if they do not fit.
    """
    checkpoint = read_checkpoint(Path(path))
    if checkpoint.model is not None:
        return load(path)
    module = amend(copy_module(original.module), checkpoint).eval()
    bare = with_module(replace(original, edits=(), weights=str(path)), module)
    if checkpoint.amendment is None:
        return bare
    anatomy, edits = amend_anatomy(bare.anatomy, checkpoint.amendment)
    notes = (*original.notes, *amendment_notes(checkpoint.amendment, Path(path).name))
    return replace(bare, anatomy=anatomy, edits=edits, notes=notes)


def checkpoint_from(subject: Subject, original: Subject | None = None) -> Checkpoint:
    """What :func:`save` writes: all of the subject that a file can say, checked to give its logits."""
    write_edits(subject.edits)  # refuses what no file can say before anything is computed
    edits, short = [type(edit).__name__ for edit in subject.edits], shorten(subject)
    if short is not None and making_of(short.subject, short.subject.module) is not None:
        subject = short.subject
    made, base = making_of(subject, subject.module), (original or subject).module
    amendment = amendment_of(subject, made.changes if made else shape_changes(base, subject.module))
    absent = amendment.absent if amendment else ()
    weights = cast("dict[str, Tensor]", subject.module.state_dict())
    given = subject.preprocessing.transform
    checkpoint = Checkpoint(
        weights={name: one for name, one in weights.items() if name not in absent},
        model=made and made.model,
        arguments=made.arguments if made else {},
        classes=subject.classes,
        input=given if isinstance(given, PixelInput) else None,
        training={"edits": edits, "from": subject.weights},
        amendment=amendment,
    )
    _refuse_unlike(subject, checkpoint, base)
    return checkpoint


def _refuse_unlike(subject: Subject, checkpoint: Checkpoint, base: nn.Module) -> None:
    """Raise ``UserError`` if what the checkpoint says gives other logits than the subject.

    ``base`` is the module that it departs from, if it has no name.
    """
    if checkpoint.amendment is None:
        return
    with torch.random.fork_rng(devices=[]):  # building a model draws random weights
        if checkpoint.model is None:
            module = copy_module(base)
        else:
            module = build_model(checkpoint.model, checkpoint.arguments, checkpoint.classes)
        module = amend(module, checkpoint).eval().to(input_like(subject.module).device)
    images = probe(subject, torch.float32)
    anatomy, _ = amend_anatomy(with_module(replace(subject, edits=()), module).anatomy, checkpoint.amendment)
    with torch.no_grad():
        wanted, found = (one.walk(images, Unwatched()) for one in (subject.anatomy, anatomy))
    apart = distance(found, wanted)
    if apart > allowed_gap(subject.module):
        raise UserError(
            f"{subject.name} cannot be saved: made again from what a file can say of it, its logits differ by "
            f"{apart:.2g} of the largest."
        )
