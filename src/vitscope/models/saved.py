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

    ``load(path)`` builds the module from ``model``. If that is None, the file holds only weights: name the architecture
    and give the file as its weights. ``zeroed`` are the parameters into which lesions were written.
    """

    path: Path
    model: str | None
    zeroed: tuple[str, ...]


def save(subject: Subject, path: str | os.PathLike[str]) -> Saved:
    """Write the subject, its edits included, to a ``.safetensors`` file that any program can load as usual.

    Changed weights are saved as they are. A unit or head that is left out is written as zeros into the last weights
    of its branch; a check in float64 ensures that the ordinary module then gives the edited subject's logits. The file
    names its model if the module can be rebuilt from a name (the project's own models and timm's), which is tried
    first. Preprocessing is saved if it is a ``PixelInput``; otherwise a loaded model has its own. Raises ``UserError``
    for edits that weights cannot express: fewer tokens, noise on the input, another shape of attention, means that
    differ from token to token. Cost: some forward passes of two images for each unit that is left out.
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
