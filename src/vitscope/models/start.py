"""A subject as the start of a training: how its module is rebuilt, and which weights it starts from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import AbstractLibrary, Size, refuse_misfit
from vitscope.models.amended import apply_changes
from vitscope.models.baked import bake
from vitscope.models.build import build_model, head_names
from vitscope.models.catalogue import library_of
from vitscope.models.pixels import PixelInput
from vitscope.models.remade import making_of
from vitscope.models.subject import Subject

_DROP_PATH = {"timm": "drop_path_rate", "vitscope": "drop_path"}


@dataclass(frozen=True, eq=False)
class Start:
    """The start of a training.

    :func:`~vitscope.models.build.build_model` makes the module from ``model`` and ``arguments``; ``weights`` are then
    loaded: all but those of a new head, which keep their initial values. ``input`` is the model's input.
    """

    model: str
    arguments: Mapping[str, object]
    weights: Mapping[str, Tensor]
    input: PixelInput
    fingerprint: str
    notes: tuple[str, ...] = ()
    changes: Mapping[str, object] = field(default_factory=dict[str, object])
    """The shapes in which it differs from the model of this name."""

    def begin(self, module: nn.Module) -> nn.Module:
        """These weights in a module made from ``model`` and ``arguments``, in the shapes of the start."""
        module = apply_changes(module, self.changes)
        module.load_state_dict({**module.state_dict(), **self.weights})
        return module


def start_of(
    subject: Subject, classes: tuple[str, ...], image: tuple[int, int] | None = None, drop_path: float = 0.0
) -> Start:
    """The subject, its edits included, as a start for these classes and pictures of this size (None: its own).

    The old head is kept if the subject's classes are these, in this order; else a new one replaces it, and a note says
    so. Position embeddings are resampled to the size. The normalisation is the subject's own, whatever the data. Raises
    ``UserError`` for a subject that cannot be rebuilt from a name (the project's own models and timm's can), whose
    normalisation is not known, or whose weights do not fit the size.
    """
    module, zeroed = bake(subject)
    made, library = making_of(subject, module), library_of(module)
    if made is None or library is None or library.name not in _DROP_PATH:
        raise UserError(
            f"{subject.name} cannot be trained, because it cannot be rebuilt from a name. "
            "Load a model of the project's own or of timm by name, folder or checkpoint."
        )
    size = image or subject.preprocessing.shape[1:]
    kept = subject.classes == classes
    changed = library.options(Size(len(classes), size if image else None, None))
    shown = _input(subject, size)
    own = {"mean": shown.mean, "std": shown.std} if library.name == "vitscope" else {}
    arguments = {**made.arguments, **changed, **own, **_drop_path(library, made.arguments, drop_path)}
    weights = _weights(module, library, subject.preprocessing.shape[1:], size)
    new = () if kept else head_names(made.model, arguments)
    weights = {name: tensor for name, tensor in weights.items() if name not in new}
    _refuse_unfit(made.model, arguments, made.changes, weights, new)
    return Start(
        model=made.model,
        arguments=arguments,
        weights=weights,
        input=shown,
        fingerprint=subject.fingerprint + "".join(f" {type(edit).__name__}" for edit in subject.edits),
        notes=tuple(_notes(subject, classes, size, kept, zeroed)),
        changes=made.changes,
    )


def _drop_path(library: type[AbstractLibrary], arguments: Mapping[str, object], rate: float) -> dict[str, object]:
    """The rate under the library's name for it, if it is positive or was set before."""
    key = _DROP_PATH[library.name]
    return {key: rate} if rate or key in arguments else {}


def _weights(
    module: nn.Module, library: type[AbstractLibrary], before: tuple[int, ...], size: tuple[int, int]
) -> dict[str, Tensor]:
    state = module.state_dict() if size == before else library.resample_weights(module, size)
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def _refuse_unfit(
    model: str,
    arguments: Mapping[str, object],
    changes: Mapping[str, object],
    weights: Mapping[str, Tensor],
    new: tuple[str, ...],
) -> None:
    with torch.device("meta"):
        made = apply_changes(build_model(model, arguments, None), changes)
        refuse_misfit(made, {**weights, **{name: made.state_dict()[name] for name in new}})


def _input(subject: Subject, size: tuple[int, int]) -> PixelInput:
    own = subject.preprocessing
    if own.mean is None or own.std is None:
        raise UserError(
            f"The normalisation of {subject.name} is not known, so it cannot be trained on pictures; load it with "
            "input=vitscope.PixelInput(...)."
        )
    return PixelInput(size, own.shape[0], own.mean, own.std)


def _notes(
    subject: Subject, classes: tuple[str, ...], size: tuple[int, int], kept: bool, zeroed: tuple[str, ...]
) -> list[str]:
    said = [f"It began with the weights of {subject.name} ({subject.weights})."]
    own = subject.preprocessing.shape[1:]
    if size != own:
        text = " to ".join(f"{height} x {width}" for height, width in (own, size))
        said.append(f"Its position embeddings, if it has any, were resampled from {text} pixels.")
    if not kept:
        same = subject.classes is not None and sorted(subject.classes) == sorted(classes)
        why = "the same classes in another order" if same else f"{len(classes)} classes of other names"
        unnamed = f"{len(classes)} classes, and those of the start have no names" if subject.classes is None else why
        before = f"head of {subject.class_count} classes" if subject.class_count else "missing head"
        said.append(f"Its {before} was replaced by a new, random one: the images have {unnamed}.")
    if zeroed:
        said.append(
            f"Lesions were written into the weights as zeros ({', '.join(zeroed[:3])}); training may fill them."
        )
    return said
