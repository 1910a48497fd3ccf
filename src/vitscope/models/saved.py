"""Edited subjects saved as ordinary models: their edits are written into the weights, or they are refused."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast, final

from torch import Tensor

from vitscope.measurement.errors import UserError
from vitscope.models.baked import bake
from vitscope.models.checkpoint import Checkpoint, save_checkpoint
from vitscope.models.pixels import PixelInput
from vitscope.models.remade import making_of
from vitscope.models.subject import Subject


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
    module, zeroed = bake(subject)
    weights = cast("dict[str, Tensor]", module.state_dict())
    made = making_of(subject, module)
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
