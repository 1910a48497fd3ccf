"""How a module is read: by its family's adapter if the walk reproduces its forward pass, else at its blocks."""

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
from vitscope.models.named import anatomy_at_blocks
from vitscope.models.own_forward import probe_images, why_unlike
from vitscope.models.state import buffers_kept
from vitscope.models.subject import AbstractAnatomy, Composition, Subject, Unwatched


@dataclass(frozen=True)
class Described:
    """A module's anatomy, the family it was recognised as, and notes on both."""

    anatomy: AbstractAnatomy
    family: str
    notes: tuple[str, ...] = ()


def anatomy_of(module: nn.Module, units: Sequence[str] | None, image: tuple[int, int, int]) -> Described:
    """The module taken apart, or read at ``units`` or at its repeated blocks by its own forward pass.

    An adapter's walk is compared with the module's own forward pass on two pictures of noise. If they differ (forward
    hooks, a replaced ``forward``, a subclass with another one), or the adapter cannot read a part, the module is read
    at its blocks, which reveals less but is never wrong; the notes say why. Raises ``UserError`` for a module that does
    not run on such pictures. Cost: two forward passes of two images, or of twelve at the blocks.
    """
    adapter = adapter_of(module) if units is None else None
    with buffers_kept(module), as_user_errors(module, image):
        notes: tuple[str, ...] = ()
        if adapter is not None:
            found, why_not = _take_apart(module, adapter, image)
            if found is not None:
                return Described(found, adapter.name)
            notes = (f"{type(module).__name__} is read at its blocks, without its attention, because {why_not}.",)
        anatomy, more = anatomy_at_blocks(module, units, image)
    return Described(anatomy, f"{type(module).__name__}, read at its blocks", (*notes, *more))


def try_walk(
    module: nn.Module, anatomy: AbstractAnatomy, image: tuple[int, int, int]
) -> Float[Tensor, "images outputs"]:
    """The output of a walk through the module for two pictures of noise; any error becomes one sentence."""
    with torch.no_grad(), buffers_kept(module), as_user_errors(module, image):
        return anatomy.walk(probe_images(image), Unwatched())


def _take_apart(
    module: nn.Module, adapter: type[AbstractAdapter], image: tuple[int, int, int]
) -> tuple[Composition | None, str]:
    try:
        anatomy = in_own_precision(module, adapter.anatomy(module))
    except UserError as error:
        return None, str(error).rstrip(".")
    why_not = _find_mismatch(module, adapter, anatomy, image)
    return (None, why_not) if why_not else (anatomy, "")


def _find_mismatch(
    module: nn.Module, adapter: type[AbstractAdapter], anatomy: Composition, image: tuple[int, int, int]
) -> str:
    images = probe_images(image)
    return why_unlike(module, anatomy, images, adapter.call_arguments(module, images))


def refuse_if_changed(subject: Subject) -> None:
    """Raise ``UserError`` if the module got hooks, or another ``forward``, after the subject was made from it.

    Cost: a forward pass and a walk of two images.
    """
    adapter = adapter_of(subject.module)
    if adapter is None or not isinstance(subject.anatomy, Composition):
        return
    anatomy = in_own_precision(subject.module, adapter.anatomy(subject.module))
    with buffers_kept(subject.module), as_user_errors(subject.module, subject.preprocessing.shape):
        why = _find_mismatch(subject.module, adapter, anatomy, subject.preprocessing.shape)
    if why:
        raise UserError(
            f"{subject.name} was changed since it was loaded: {why}, which the walk through its parts would skip; "
            "load the module again to have it read by its own forward pass."
        )


@contextmanager
def as_user_errors(module: nn.Module, image: tuple[int, int, int]) -> Generator[None]:
    """Turn whatever the module raises on pictures of this shape into a one-sentence ``UserError``."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        shape = " x ".join(map(str, image))
        raise UserError(
            f"{type(module).__name__} does not run on pictures of {shape} ({why}); give the input that it takes "
            "(input=vitscope.PixelInput(...)), or load only the part of it that takes pictures."
        ) from error
