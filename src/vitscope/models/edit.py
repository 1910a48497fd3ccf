"""Edited subjects: another walk through the same module, or the same walk through another module."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.catalogue import composition_of
from vitscope.models.named import NamedModules
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractAnatomy, AbstractEdit, AbstractObserver, Composition, Subject
from vitscope.models.unit import Place
from vitscope.models.written import WRITTEN


def with_edit(subject: Subject, edit: AbstractEdit) -> Subject:
    """The subject with one more edit; module and old subject are untouched."""
    return replace(subject, anatomy=edit.apply(subject.anatomy), edits=(*subject.edits, edit))


def with_module(subject: Subject, module: nn.Module) -> Subject:
    """The subject, its edits included, on another module of the same architecture."""
    base = plain_anatomy(subject.anatomy)
    anatomy = replace(base, module=module) if isinstance(base, NamedModules) else composition_of(module)
    if anatomy is None:
        raise UserError(f"{type(module).__name__} belongs to no known family, unlike {subject.name}.")
    return replace(subject, module=module, anatomy=with_edits(anatomy, subject.edits))


def plain_anatomy(anatomy: AbstractAnatomy) -> AbstractAnatomy:
    """The anatomy without the wrappers that edits put around it."""
    while isinstance(anatomy, AbstractWrapped):
        anatomy = anatomy.inner
    return anatomy


def with_edits(anatomy: AbstractAnatomy, edits: Sequence[AbstractEdit]) -> AbstractAnatomy:
    """An unedited anatomy after these edits, applied in order."""
    return reduce(lambda current, edit: edit.apply(current), edits, anatomy)


PixelFunction = Callable[[Float[Tensor, "batch channels height width"]], Float[Tensor, "batch channels height width"]]


@WRITTEN.add("on-input")
@final
@dataclass(frozen=True)
class OnInput(AbstractEdit):
    """``function`` applied to the model's input, before the stem; it must treat each image independently."""

    function: PixelFunction

    def apply(self, anatomy: AbstractAnatomy) -> AbstractAnatomy:
        """The anatomy behind the function. Works for any model."""
        if isinstance(anatomy, Composition):
            return replace(anatomy, stem=StemBehind(self.function, anatomy.stem))
        return Behind(self.function, anatomy)


@final
@dataclass(frozen=True)
class StemBehind:
    """``stem(function(images))``; two with the same function and stem are equal."""

    function: PixelFunction
    stem: Callable[[Tensor], Stream]

    def __call__(self, images: Tensor) -> Stream:
        """The stream after the stem."""
        return self.stem(self.function(images))


class AbstractWrapped(AbstractAnatomy):
    """An anatomy that walks through another one, changed."""

    @property
    @abstractmethod
    def inner(self) -> AbstractAnatomy:
        """The anatomy inside."""


@final
@dataclass(frozen=True)
class Behind(AbstractWrapped):
    """``anatomy(function(images))``, for an anatomy that is not a ``Composition``."""

    function: PixelFunction
    anatomy: AbstractAnatomy

    @property
    def inner(self) -> AbstractAnatomy:
        """The anatomy behind the function."""
        return self.anatomy

    def without_hooks(self) -> AbstractAnatomy:
        """The function before an anatomy without hooks."""
        return replace(self, anatomy=self.anatomy.without_hooks())

    @property
    def places(self) -> tuple[Place, ...]:
        """The units in order."""
        return self.anatomy.places

    def walk(self, images: Float[Tensor, "batch channels height width"], observer: AbstractObserver) -> Tensor:
        """The logits of the changed images."""
        return self.anatomy.walk(self.function(images), observer)
