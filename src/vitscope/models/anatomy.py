"""How a module is read: taken apart by its family's adapter if the walk is its own forward pass, else at its blocks."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import AbstractAdapter
from vitscope.models.catalogue import adapter_of
from vitscope.models.feed import in_own_precision
from vitscope.models.named import named_modules
from vitscope.models.own_forward import probe_images, why_unlike
from vitscope.models.state import buffers_kept
from vitscope.models.subject import AbstractAnatomy, Composition, Subject, Unwatched


@dataclass(frozen=True)
class Described:
    """A module's anatomy, the family it was taken for, and what must be said of it."""

    anatomy: AbstractAnatomy
    family: str
    notes: tuple[str, ...] = ()


def anatomy_of(module: nn.Module, units: Sequence[str] | None, image: tuple[int, int, int]) -> Described:
    """The module taken apart, or read at ``units`` or at its repeated blocks by its own forward pass.

    An adapter's walk is compared with the module's own forward pass on two pictures of noise. Where they differ
    (forward hooks, a replaced ``forward``, a subclass with another one), or the adapter cannot read a part, the module
    is read at its blocks, which says less and is never wrong; the notes say why. Raises ``UserError`` for a module that
    does not run on such pictures. Cost: two forward passes of two images, or of twelve at the blocks.
    """
    adapter = adapter_of(module) if units is None else None
    with buffers_kept(module), as_user_errors(module, image):
        notes: tuple[str, ...] = ()
        if adapter is not None:
            found, why_not = _take_apart(module, adapter, image)
            if found is not None:
                return Described(found, adapter.name)
            notes = (f"{type(module).__name__} is read at its blocks, without its attention, because {why_not}.",)
        anatomy, more = named_modules(module, units, image)
    return Described(anatomy, f"{type(module).__name__}, read at its blocks", (*notes, *more))


def try_walk(
    module: nn.Module, anatomy: AbstractAnatomy, image: tuple[int, int, int]
) -> Float[Tensor, "images outputs"]:
    """What a walk through the module returns for two pictures of noise, and what it raises on them as one sentence."""
    with torch.no_grad(), buffers_kept(module), as_user_errors(module, image):
        return anatomy.walk(probe_images(image), Unwatched())


def _take_apart(
    module: nn.Module, adapter: type[AbstractAdapter], image: tuple[int, int, int]
) -> tuple[Composition | None, str]:
    try:
        anatomy = in_own_precision(module, adapter.anatomy(module))
    except UserError as error:
        return None, str(error).rstrip(".")
    why_not = _unlike(module, adapter, anatomy, image)
    return (None, why_not) if why_not else (anatomy, "")


def _unlike(
    module: nn.Module, adapter: type[AbstractAdapter], anatomy: Composition, image: tuple[int, int, int]
) -> str:
    images = probe_images(image)
    return why_unlike(module, anatomy, images, adapter.call_arguments(module, images))


def refuse_if_changed(subject: Subject) -> None:
    """Raise ``UserError`` where the module got hooks, or another ``forward``, after the subject was made of it.

    Cost: a forward pass and a walk of two images.
    """
    adapter = adapter_of(subject.module)
    if adapter is None or not isinstance(subject.anatomy, Composition):
        return
    anatomy = in_own_precision(subject.module, adapter.anatomy(subject.module))
    with buffers_kept(subject.module), as_user_errors(subject.module, subject.preprocessing.shape):
        why = _unlike(subject.module, adapter, anatomy, subject.preprocessing.shape)
    if why:
        raise UserError(
            f"{subject.name} was changed since it was loaded: {why}, which the walk through its parts would pass by; "
            "load the module again, and it is read by its own forward pass."
        )


@contextmanager
def as_user_errors(module: nn.Module, image: tuple[int, int, int]) -> Generator[None]:
    """Whatever a stranger's module raises on pictures of this shape, as one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        shape = " x ".join(map(str, image))
        raise UserError(
            f"{type(module).__name__} does not run on pictures of {shape} ({why}); give the input that it takes "
            "(input=vitscope.PixelInput(...)), or the part of it that is a model of pictures."
        ) from error
