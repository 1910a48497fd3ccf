"""Which units can be left out, what replaces them, and how a plain module's blocks are left out."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from vitscope.data import Images
from vitscope.engine.reading.failure import report_failures
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason
from vitscope.models.anatomy import as_user_errors
from vitscope.models.edit import AbstractWrapped, Behind
from vitscope.models.feed import input_like
from vitscope.models.hooks import hooks
from vitscope.models.named import NamedModules
from vitscope.models.own_forward import probe_images
from vitscope.models.rewritten import copy_module
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractAnatomy, AbstractObserver, Composition, Subject, Unwatched
from vitscope.models.unit import AbstractUnit, Place, UnitKind, WholeUnit
from vitscope.models.written import WRITTEN
from vitscope.numerics.digest import tensor_digest

_CHANGED = "its shortcut is not the identity"
_UNTRIED = "whether it is residual could not be tested ({})"


@WRITTEN.add("mean")
@final
@dataclass(frozen=True, eq=False, repr=False)  # compared by identity, as modules are
class Mean:
    """A mean over images that replaces something a unit computes."""

    value: Float[Tensor, "..."]

    def like(self, shape: torch.Size, other: Tensor, name: str) -> Tensor:
        """The mean in the type of ``other``, if it has this shape: that of one image at the unit ``name``."""
        if self.value.shape != shape:
            raise UserError(
                f"The mean over data of {name} has the shape {tuple(self.value.shape)} instead of {tuple(shape)}; "
                "take the mean on the present subject, with images of the same size."
            )
        return self.value.to(other)

    def __repr__(self) -> str:
        return f"Mean({tuple(self.value.shape)}, {tensor_digest(self.value)[:16]})"


@final
@dataclass(frozen=True)
class OnlyMean:
    """``through(stream)`` plus a mean of the unit ``name``: a unit whose branch is the same for every image."""

    through: Callable[[Stream], Stream]
    mean: Mean
    name: str

    def __call__(self, stream: Stream) -> Stream:
        """The stream as it came in, plus the mean."""
        stream = self.through(stream)
        return stream.with_values(stream.values + self.mean.like(stream.values.shape[1:], stream.values, self.name))


def without_branch(unit: AbstractUnit, mean: Mean | None) -> WholeUnit:
    """The unit without its residual branch, which a ``mean`` replaces if there is one.

    Raises ``UserError`` if the unit has no bypass.
    """
    if unit.bypass is None:
        raise UserError(
            f"{unit.place.name} cannot be left out: {_reason(unit.place.kind)}, or another intervention replaced it."
        )
    left = unit.bypass if mean is None else OnlyMean(unit.bypass, mean, unit.place.name)
    return WholeUnit(unit.place, left, unit.bypass)


def refuse_unknown(layers: tuple[int, ...], subject: Subject) -> None:
    """Raise ``UserError`` if a layer is not one of the subject's units."""
    count = len(subject.places)
    unknown = next((layer for layer in layers if not 1 <= layer <= count), None)
    if unknown is not None:
        raise UserError(f"{subject.name} has {count} units, layers 1 to {count}; there is no layer {unknown}.")


def irremovable_layers(subject: Subject, layers: Sequence[int] | None = None) -> Mapping[int, str]:
    """The layers (by default of all units) that cannot be left out, and why.

    A described model's adapter says where a shortcut is the identity. A plain module's blocks are tested: one forward
    pass, then each block separately with all its weights at zero, when a residual block returns its input.
    """
    asked = range(1, len(subject.places) + 1) if layers is None else layers
    if not isinstance(subject.anatomy, Composition):
        return _try_blocks(subject, asked)
    units = subject.anatomy.units
    return {layer: _reason(subject.places[layer - 1].kind) for layer in asked if units[layer - 1].bypass is None}


def _reason(kind: UnitKind) -> str:
    changing = (UnitKind.DOWNSAMPLING, UnitKind.REARRANGEMENT)
    return f"it is {kind.value}" if kind in changing else _CHANGED


@final
@dataclass(frozen=True)
class Bypassed(AbstractWrapped):
    """A module whose ``left`` blocks return their input, or its sum with their branch's mean, by hooks for one call."""

    anatomy: NamedModules
    left: tuple[tuple[str, Mean | None], ...]

    @property
    def inner(self) -> AbstractAnatomy:
        """The module's anatomy with all its blocks."""
        return self.anatomy

    def without_hooks(self) -> AbstractAnatomy:
        """A copy of the module in which something that passes its input on replaces each of these blocks."""
        module = copy_module(self.anatomy.module)
        for name, mean in self.left:
            module.set_submodule(name, _Passage(name, mean))
        return replace(self.anatomy, module=module)

    @property
    def places(self) -> tuple[Place, ...]:
        """The units in order."""
        return self.anatomy.places

    def walk(self, images: Float[Tensor, "batch channels height width"], observer: AbstractObserver) -> Tensor:
        """The module's own forward pass without these blocks' branches, which still run."""
        replaced = {name: _replace(name, mean) for name, mean in self.left}
        with look_at(self.anatomy.module, replaced):
            return self.anatomy.walk(images, observer)


def bypass(anatomy: AbstractAnatomy, left: Mapping[int, Mean | None]) -> AbstractAnatomy:
    """The anatomy of a plain module with these layers left out."""
    if isinstance(anatomy, Behind):
        return replace(anatomy, anatomy=bypass(anatomy.anatomy, left))
    names = {anatomy.places[layer - 1].name: mean for layer, mean in left.items()}
    if isinstance(anatomy, Bypassed):
        return replace(anatomy, left=tuple({**dict(anatomy.left), **names}.items()))
    if isinstance(anatomy, NamedModules):
        return Bypassed(anatomy, tuple(names.items()))
    raise UserError(f"Units of a {type(anatomy).__name__} cannot be left out; leave them out before what made it.")


@dataclass(frozen=True)
class Entered:
    """What a submodule was called with, as it was before it ran."""

    given: tuple[object, ...]
    named: Mapping[str, object]

    @classmethod
    def of(cls, given: tuple[Any, ...], named: Mapping[str, Any]) -> "Entered":
        """Copies of these arguments: the submodule may work in place."""
        copies = [one.clone() if isinstance(one, Tensor) else one for one in (*given, *named.values())]
        return cls(tuple(copies[: len(given)]), dict(zip(named, copies[len(given) :], strict=True)))

    @property
    def first(self) -> Tensor | None:
        """Its first argument, if that is a tensor: what its shortcut passes on."""
        first = next(iter((*self.given, *self.named.values())), None)
        return first if isinstance(first, Tensor) else None

    def through(self, block: nn.Module, first: Tensor) -> object:
        """What a block returns for another first argument and the others as they were."""
        if self.given:
            return block(first, *self.given[1:], **self.named)
        return block(**{**self.named, next(iter(self.named)): first})


Look = Callable[[Entered, object], Tensor | None]
"""From what entered a submodule and what it returned, what it returns instead; None leaves its output."""


@contextmanager
def look_at(module: nn.Module, looks: Mapping[str, Look]) -> Generator[None]:
    """Call each look when its submodule runs, until the block ends. Cost: a copy of what enters the submodules."""
    entered: dict[str, Entered] = {}

    def keep(name: str, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        entered[name] = Entered.of(given, named)

    with hooks(module, looks, keep, lambda name, output: looks[name](entered.pop(name), output)):
        yield


class _Passage(nn.Module):
    """Returns its first argument, plus a mean if there is one."""

    def __init__(self, name: str, mean: Mean | None) -> None:
        super().__init__()
        self.name = name
        self.mean: Tensor | None
        held = None if mean is None else nn.Parameter(mean.value.detach().clone(), requires_grad=False)
        self.register_parameter("mean", held)

    def forward(self, first: Tensor, *others: object, **named: object) -> Tensor:
        del others, named
        return first if self.mean is None else first + Mean(self.mean).like(first.shape[1:], first, self.name)


def _replace(name: str, mean: Mean | None) -> Look:
    def instead(entered: Entered, output: object) -> Tensor:
        first = entered.first
        if first is None or not isinstance(output, Tensor) or first.shape != output.shape:
            raise UserError(f"The unit {name!r} changes the shape of its input, so it cannot be left out.")
        return first if mean is None else first + mean.like(first.shape[1:], first, name)

    return instead


def _try_blocks(subject: Subject, layers: Sequence[int]) -> dict[int, str]:
    """The blocks of a plain module, among these, that are not residual, and why."""
    seen_through: dict[str, tuple[Entered, object]] = {}

    def look(name: str) -> Look:
        return lambda entered, output: seen_through.update({name: (entered, output)})

    places = {layer: subject.places[layer - 1] for layer in layers}
    looks = {place.name: look(place.name) for place in places.values()}
    picture, found = probe_images(subject.preprocessing.shape)[:1], dict[int, str]()
    with torch.no_grad():
        with as_user_errors(subject.module, subject.preprocessing.shape), look_at(subject.module, looks):
            subject.anatomy.walk(picture, Unwatched())
        for layer, place in places.items():
            if place.name not in seen_through:
                found[layer] = _UNTRIED.format("it did not run on the test picture")
            else:
                why = _why_not_residual(subject.module.get_submodule(place.name), *seen_through[place.name])
                found[layer] = _reason(place.kind) if why == _CHANGED else why
    return {layer: why for layer, why in found.items() if why}


def show_batches(subject: Subject, images: Images, batch_size: int, see: Callable[[Tensor], object]) -> int:
    """Show every batch's pixels to ``see`` without gradients; returns the number of images. Raises if it is 0."""
    device = input_like(subject.module).device
    count = 0
    for batch in images.batches(subject.preprocessing.transform, batch_size):
        if len(batch.indices):
            with torch.no_grad(), report_failures(subject, images, batch):
                see(batch.pixels.to(device))
            count += len(batch.indices)
    if not count:
        raise UserError(f"None of the {len(images)} images of {images.name} could be read, so there is no mean.")
    return count


def _why_not_residual(block: nn.Module, entered: Entered, output: object) -> str:
    """Why the block is not residual; empty if it is.

    With its weights at zero, a residual block returns a positive input unchanged and does not modify a negative one.
    """
    first = entered.first
    if first is None or not isinstance(output, Tensor) or first.shape != output.shape:
        return _CHANGED
    positive = torch.linspace(0.1, 1, first.numel(), device=first.device, dtype=first.dtype).view_as(first)
    negative = -positive
    try:
        still = _with_zero_weights(block)
        entered.through(still, negative)
        passed = entered.through(still, positive.clone())
    except Exception as error:  # a user's block may raise anything
        return _UNTRIED.format(reason(error))
    if not isinstance(passed, Tensor) or not bool(passed.isfinite().all()):
        return _UNTRIED.format("with zero weights it returns numbers that are not finite")
    return "" if torch.equal(passed, positive) and torch.equal(negative, -positive) else _CHANGED


def _with_zero_weights(block: nn.Module) -> nn.Module:
    """A copy with all weights at zero, also those that it computes from others by parametrisations or hooks."""
    still = copy_module(block)
    for part in list(still.modules()):
        if parametrize.is_parametrized(part):
            _make_plain(part)
        hooks: dict[int, Any] = part._forward_pre_hooks  # pyright: ignore[reportPrivateUsage]
        for number, hook in list(hooks.items()):
            if isinstance(hook, WeightNorm | SpectralNorm | BasePruningMethod):
                hook.remove(part)
                del hooks[number]
    for tensor in (*still.parameters(), *still.buffers()):
        if tensor.is_floating_point():
            tensor.zero_()
    return still


def _make_plain(part: nn.Module) -> None:
    """Turn what a copied module computes from others into parameters; torch's own way would change the original too."""
    values = {name: getattr(part, name) for name in cast("nn.ModuleDict", part.parametrizations)}
    del part.parametrizations
    part.__class__ = type(part).__bases__[0]
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value))
