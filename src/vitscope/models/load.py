"""``load``: a subject from a name, a folder, a checkpoint file or a module."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from vitscope.models.adapter import Size
from vitscope.models.amended import amend_anatomy
from vitscope.models.anatomy import anatomy_of, try_walk
from vitscope.models.catalogue import library_of
from vitscope.models.classes import outputs_of, refuse_probabilities
from vitscope.models.feed import refuse_unmade
from vitscope.models.input import input_of, resize_input
from vitscope.models.made import LoadOptions, make_from_module, make_from_name
from vitscope.models.pixels import PixelInput
from vitscope.models.subject import Subject
from vitscope.models.unwrapped import unwrap

_BY_NAME = ("pretrained", "random")
"""Weights that follow from the model's name, as its classes then do."""


def load(
    model: str | os.PathLike[str] | nn.Module = "digits",
    *,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
    average: bool | None = None,
    part: str | None = None,
    class_count: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    options: Mapping[str, object] | None = None,
    input: PixelInput | None = None,
    crop: float | None = None,
    units: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    device: str = "cpu",
) -> Subject:
    """A vision model as a subject, in evaluation mode.

    ``model`` is one of

    * ``digits``, ``vit-micro`` ... ``vit-base``: the project's own;
    * ``timm/NAME``, ``torchvision/NAME``, ``transformers/NAME``: random weights, ``pretrained`` ones, or ``weights``
      from a file;
    * a local ``save_pretrained`` folder of timm or transformers;
    * a checkpoint file that names its model, as written by ``save``, with its edits, by ``vitscope train`` and by
      timm's trainer;
    * a ``torch.nn.Module``; one of no known library needs ``input``, and is read at ``units`` (names of submodules),
      or at its repeated blocks. For a wrapper (compiled, parallel, an average, a class around one model of a library
      that gives its logits), the model inside is examined.

    ``weights`` is a ``.safetensors`` file or one of ``torch.save``, read with ``weights_only=True``: a state dict, or a
    trainer's checkpoint that holds one under any single prefix. If there are averaged weights (EMA, SWA) beside raw
    ones, the averaged are taken unless ``average`` is False; ``part`` is the key of the set to take if several are
    left. The number of classes and channels comes from the file; ``class_count``, ``image_size`` (a side, or height and
    width), ``channels`` and ``options`` (arguments of the library's constructor) set what a name leaves open.

    ``input`` replaces the model's own preprocessing, ``crop`` (timm, torchvision) only the share of the shorter side
    that its centre crop keeps; ``classes`` names its outputs. A module that you pass is put on ``device`` and in
    evaluation mode, and otherwise left as it is: ``weights`` are loaded into a copy. Raises ``UserError`` naming the
    argument at fault.
    """
    size = Size(class_count, (image_size, image_size) if isinstance(image_size, int) else image_size, channels)
    asked = LoadOptions(
        pretrained, None if weights is None else Path(weights), average, part, size, options or {}, input
    )
    if isinstance(model, str | os.PathLike):
        made = make_from_name(os.fspath(model), asked)
    else:
        held, notes = unwrap(model, None if input is None else input.preprocessing.shape)
        made = make_from_module(held, asked)
        made = replace(made, notes=(*notes, *made.notes))
    refuse_unmade(made.module)
    module = made.module.to(device).eval()
    library = library_of(module)
    preprocessing = input_of(module, library, input or made.input, crop)
    if size.image is not None and preprocessing.shape[1:] != size.image:
        preprocessing = resize_input(preprocessing, size.image)
    amended = made.amendment
    if units is None and amended is not None and amended.plain:
        units = amended.units
    described = anatomy_of(module, units, preprocessing.shape)
    anatomy, edits = (described.anatomy, ()) if amended is None else amend_anatomy(described.anatomy, amended)
    rows = try_walk(module, anatomy, preprocessing.shape)
    outputs = outputs_of(module, library, rows.shape[-1], made.classes, classes, made.labels)
    if outputs.count:
        refuse_probabilities(type(module).__name__, rows)
    guessed = outputs.notes if made.weights not in _BY_NAME else ()
    return Subject(
        name=name or made.name,
        family=described.family,
        module=module,
        anatomy=anatomy,
        preprocessing=preprocessing,
        class_count=outputs.count,
        classes=outputs.names,
        weights=made.weights,
        edits=edits,
        notes=(*made.notes, *preprocessing.notes, *described.notes, *guessed),
    )
