"""Subjects: a vision model under study, as a value, and the walk through it that every measurement uses."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.attention import Attention
from vitscope.models.state import weights_and_buffers_of
from vitscope.models.stream import Stream
from vitscope.models.unit import AbstractAttentionUnit, AbstractUnit, Place
from vitscope.numerics.digest import tensor_digest
from vitscope.runs.shown import html_table


class AbstractObserver(ABC):
    """An observer of a walk. It sees activations and must not change them."""

    @abstractmethod
    def stream(self, layer: int, stream: Stream) -> None:
        """See the stream after ``layer``: 0 is the stem, i the i-th unit (from 1)."""

    @abstractmethod
    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        """See the attention of unit ``layer`` and return its context.

        The context is ``attention.context()``, from the fused kernel, or, if the observer computes the weights anyway,
        the weights times the values, so that nothing is computed twice. The two differ by rounding.
        """


class Unwatched(AbstractObserver):
    """An observer that looks at nothing."""

    def stream(self, layer: int, stream: Stream) -> None:
        """Ignore the stream."""

    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        """The fused kernel's context."""
        return attention.context()


class AbstractAnatomy(ABC):
    """How a model can be walked through."""

    @property
    @abstractmethod
    def places(self) -> tuple[Place, ...]:
        """The units in order; the i-th (from 1) is layer i."""

    def without_hooks(self) -> "AbstractAnatomy":
        """An anatomy of equal logits whose walk sets no hooks, so that it can be exported."""
        return self

    @abstractmethod
    def walk(self, images: Float[Tensor, "batch channels height width"], observer: AbstractObserver) -> Tensor:
        """The model's logits, shown to the observer layer by layer."""


@dataclass(frozen=True)
class Composition(AbstractAnatomy):
    """A model taken apart: ``tail(units(stem(images)))`` are its logits."""

    stem: Callable[[Tensor], Stream]
    units: tuple[AbstractUnit, ...]
    tail: Callable[[Stream], Tensor]

    @property
    def places(self) -> tuple[Place, ...]:
        """The units in order."""
        return tuple(unit.place for unit in self.units)

    def walk(self, images: Float[Tensor, "batch channels height width"], observer: AbstractObserver) -> Tensor:
        """The model's logits."""
        stream = self.stem(images)
        observer.stream(0, stream)
        for layer, unit in enumerate(self.units, start=1):
            stream = after(unit, layer, stream, observer)
        return self.tail(stream)


def after(unit: AbstractUnit, layer: int, stream: Stream, observer: AbstractObserver) -> Stream:
    """The stream after one unit, shown to the observer; attention is computed once for both model and observer."""
    if isinstance(unit, AbstractAttentionUnit):
        attention = unit.project(stream)
        stream = unit.finish(stream, unit.branch(attention, observer.attention(layer, attention)))
    else:
        stream = unit(stream)
    observer.stream(layer, stream)
    return stream


class AbstractEdit(ABC):
    """A change to how a model is walked through that keeps the number and the places of its units.

    A frozen value: two edits with the same fields are equal, and it can be sent to workers.
    """

    @abstractmethod
    def apply(self, anatomy: AbstractAnatomy) -> AbstractAnatomy:
        """The edited anatomy of the same module. Raises ``UserError`` if this one does not allow the edit."""


@dataclass(frozen=True)
class Preprocessing:
    """A model's input: its shape, its normalisation, and the transform from a picture to it."""

    shape: tuple[int, int, int]
    transform: Callable[[Image.Image], Float[Tensor, "channels height width"]]
    text: str
    mean: tuple[float, ...] | None = None
    """Subtracted from each channel of pixel values 0 to 1; None if the normalisation is not known."""
    std: tuple[float, ...] | None = None
    """The divisor of each channel after that; None if the normalisation is not known."""
    notes: tuple[str, ...] = ()
    """Sentences on guesses, and on where the input differs from the module's configuration."""


@dataclass(frozen=True)
class Subject:
    """A vision model under study.

    ``module`` is the upstream model in evaluation mode and is never changed; ``anatomy`` is how it is walked
    through, ``edits`` included; ``classes`` names its outputs if they are known; ``weights`` says where the weights
    come from. ``notes`` are sentences that every run of it repeats.
    """

    name: str
    family: str
    module: nn.Module
    anatomy: AbstractAnatomy
    preprocessing: Preprocessing
    class_count: int
    classes: tuple[str, ...] | None = None
    weights: str = "as handed over"
    edits: tuple[AbstractEdit, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader of its numbers must know about its loading: guesses, and choices among several."""

    def __call__(self, images: Tensor) -> Tensor:
        """The logits that are measured, edits included, of images normalised as the model takes them.

        Raises ``UserError`` for images of another shape than ``(batch, *preprocessing.shape)``.
        """
        if not isinstance(images, Tensor) or images.ndim != 4 or tuple(images.shape[1:]) != self.preprocessing.shape:  # pyright: ignore[reportUnnecessaryIsInstance]
            given = f"{tuple(images.shape)}" if hasattr(images, "shape") else type(images).__name__
            shape = " x ".join(map(str, self.preprocessing.shape))
            raise UserError(f"{self.name} takes a tensor of images x {shape}, not {given}; see its preprocessing.")
        return self.anatomy.walk(images, Unwatched())

    def __repr__(self) -> str:
        said = (text for name, text in self._facts if name in ("parameters", "units", "input", "classes", "edits"))
        return f"<Subject: {self.name}, {', '.join(said)}>"

    def _repr_html_(self) -> str:
        return html_table("Subject", self._facts)

    @property
    def _facts(self) -> list[tuple[str, str]]:
        """A summary for people, as names and texts."""
        kinds = Counter(place.kind.value for place in self.places)
        edits = [type(edit).__name__ for edit in self.edits]
        facts = [
            ("model", f"{self.name} ({self.family})"),
            ("parameters", f"{self.parameter_count:,} parameters, {self.weights}"),
            ("units", f"{len(self.places)} units ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})"),
            ("input", f"input {self.preprocessing.text}"),
            ("classes", f"{self.class_count} classes" if self.class_count else "no classifier"),
            ("edits", f"edited by {', '.join(edits)}" if edits else ""),
            *(("note", note) for note in self.notes),
        ]
        return [(name, text) for name, text in facts if text]

    @property
    def places(self) -> tuple[Place, ...]:
        """The units in order; the i-th (from 1) is layer i."""
        return self.anatomy.places

    @property
    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the names, shapes and bytes of all weights and buffers. Cost: one pass over the weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name}{_describe(tensor)}".encode())
        return digest.hexdigest()


def _describe(value: object) -> str:
    """A tensor by shape, type and bytes, a quantised one also by its scales; anything else by its ``repr``."""
    if isinstance(value, tuple | list):
        return "".join(_describe(one) for one in cast("tuple[object, ...]", value))
    if not isinstance(value, Tensor):
        return repr(value)
    stored, scales = value.detach().cpu(), ""
    if value.is_quantized:
        channels = value.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
        scales = repr((value.q_per_channel_scales().tolist() if channels else value.q_scale(), value.qscheme()))
        stored = stored.int_repr()
    return f"{tuple(value.shape)}{value.dtype}{scales}{tensor_digest(stored)}"


def _find_written(subject: Subject, images: Float[Tensor, "batch channels height width"]) -> str | None:
    """The first weight or buffer that a walk changes, or None; all changes are undone."""
    before = weights_and_buffers_of(subject.module)
    with torch.no_grad():
        subject.anatomy.walk(images.clone(), Unwatched())
    changed = [held.path for held in before if held.put_back()]
    return changed[0] if changed else None


def refuse_if_random(subject: Subject, images: Float[Tensor, "batch channels height width"]) -> None:
    """Raise if a part is in training mode, or if the same images give different logits: no result would be reliable.

    Each walk gets a copy of the images. A weight or buffer that a forward pass writes into is named, because such a
    module changes with every batch.
    """
    training = next((name or "itself" for name, part in subject.module.named_modules() if part.training), None)
    if training is not None:
        raise UserError(f"{subject.name} is in training mode ({training}); call model.eval() and measure again.")
    with torch.no_grad():
        first, second = (subject.anatomy.walk(images.clone(), Unwatched()) for _ in range(2))
        if bool(((first == second) | (first.isnan() & second.isnan())).all()):
            return
    if changed := _find_written(subject, images):
        raise UserError(
            f"{subject.name} writes into {changed} in its forward pass, so it gives different logits every time; "
            "make it work on a copy, and load it again."
        )
    raise UserError(
        f"{subject.name} gave different logits for the same images twice; "
        "turn off what is random in it (set dropout to 0, fix its noise) and load it again."
    )
