"""Which units can be left out, what stands in for them, and how a plain module's blocks are left out."""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vitscope.data import Images
from vitscope.engine.failure import failures_told
from vitscope.measurement.errors import UserError
from vitscope.models.edit import AbstractWrapped, Behind
from vitscope.models.feed import fed, input_like
from vitscope.models.named import NamedModules
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractAnatomy, AbstractObserver, Composition, Subject, Unwatched
from vitscope.models.unit import AbstractUnit, Place, Step, UnitKind


@final
@dataclass(frozen=True, eq=False, repr=False)  # compared by identity, as modules are
class Mean:
    """A mean over images of something that a unit computes, in place of it."""

    value: Float[Tensor, "..."]

    def like(self, shape: torch.Size, other: Tensor, name: str) -> Tensor:
        """The mean in the type of ``other``, if it has this shape: that of one image at the unit ``name``."""
        if self.value.shape != shape:
            raise UserError(
                f"The mean over data of {name} has the shape {tuple(self.value.shape)} and meets {tuple(shape)}; "
                "take the mean on the subject as it is now, with images of the same size."
            )
        return self.value.to(other)

    def __repr__(self) -> str:
        content = self.value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"Mean({tuple(self.value.shape)}, {hashlib.sha256(content).hexdigest()[:16]})"


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


def without_branch(unit: AbstractUnit, mean: Mean | None) -> Step:
    """What is left of a unit without its residual branch; a ``mean`` stands in the branch's place.

    Raises ``UserError`` where nothing but the unit's input is to be left, and is not.
    """
    if unit.bypass is None:
        raise UserError(
            f"{unit.place.name} cannot be left out: {_reason(unit.place.kind)}, or another intervention stands there."
        )
    left = unit.bypass if mean is None else OnlyMean(unit.bypass, mean, unit.place.name)
    return Step(unit.place, left, unit.bypass)


def refuse_unknown(layers: tuple[int, ...], subject: Subject) -> None:
    """Raise ``UserError`` where a layer is not one of the subject's units."""
    count = len(subject.places)
    unknown = next((layer for layer in layers if not 1 <= layer <= count), None)
    if unknown is not None:
        raise UserError(f"{subject.name} has {count} units, layers 1 to {count}; there is no layer {unknown}.")


def staying(subject: Subject, layers: Sequence[int] | None = None) -> Mapping[int, str]:
    """Those of the layers (of all units, unless given) that cannot be left out, and why.

    A described model's adapter says where a shortcut is the identity. A plain module's blocks are tried: one forward
    pass, then each block by itself with all its weights at zero, where a residual block returns its input.
    """
    asked = range(1, len(subject.places) + 1) if layers is None else layers
    if isinstance(subject.anatomy, Composition):
        units = subject.anatomy.units
        passing = {layer: units[layer - 1].bypass is not None for layer in asked}
    else:
        passing = _passing(subject, asked)
    return {layer: _reason(subject.places[layer - 1].kind) for layer, passes in passing.items() if not passes}


def _reason(kind: UnitKind) -> str:
    changing = (UnitKind.DOWNSAMPLING, UnitKind.REARRANGEMENT)
    return f"it is {kind.value}" if kind in changing else "its shortcut is not the identity"


@final
@dataclass(frozen=True)
class Bypassed(AbstractWrapped):
    """A module whose ``left`` blocks return their input, or that and their branch's mean, by hooks for one call."""

    anatomy: NamedModules
    left: tuple[tuple[str, Mean | None], ...]

    @property
    def inner(self) -> AbstractAnatomy:
        """The module's anatomy with all its blocks."""
        return self.anatomy

    @property
    def places(self) -> tuple[Place, ...]:
        """The units in order."""
        return self.anatomy.places

    def walk(self, images: Float[Tensor, "batch channels height width"], observer: AbstractObserver) -> Tensor:
        """The module's own forward pass without these blocks' branches, which still run."""
        replaced = {name: _replaced(name, mean) for name, mean in self.left}
        return hooked(self.anatomy.module, replaced, lambda: self.anatomy.walk(images, observer))


def bypassed(anatomy: AbstractAnatomy, left: Mapping[int, Mean | None]) -> AbstractAnatomy:
    """The anatomy of a plain module with these layers left out."""
    if isinstance(anatomy, Behind):
        return replace(anatomy, anatomy=bypassed(anatomy.anatomy, left))
    names = {anatomy.places[layer - 1].name: mean for layer, mean in left.items()}
    if isinstance(anatomy, Bypassed):
        return replace(anatomy, left=tuple({**dict(anatomy.left), **names}.items()))
    if isinstance(anatomy, NamedModules):
        return Bypassed(anatomy, tuple(names.items()))
    raise UserError(f"Units of a {type(anatomy).__name__} cannot be left out; leave them out before what made it.")


Look = Callable[[tuple[object, ...], object], Tensor | None]
"""Given what entered a submodule, as it was before it ran, and what it returned; what it is to return instead."""


def hooked(module: nn.Module, looks: Mapping[str, Look], call: Callable[[], Tensor]) -> Tensor:
    """What ``call`` returns while these submodules are looked at. Cost: a copy of what enters them, by hooks."""
    handles: list[RemovableHandle] = []
    entered: dict[str, tuple[object, ...]] = {}

    def before(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:  # a copy: the submodule may work in place
            entered[name] = tuple(one.clone() if isinstance(one, Tensor) else one for one in inputs)

        return keep

    def behind(name: str, look: Look) -> Callable[[nn.Module, tuple[Any, ...], Any], Tensor | None]:
        return lambda _, inputs, output: look(entered.pop(name), output)

    try:
        for name, look in looks.items():
            part = module.get_submodule(name)
            handles.extend(
                (part.register_forward_pre_hook(before(name)), part.register_forward_hook(behind(name, look)))
            )
        return call()
    finally:
        for handle in handles:
            handle.remove()


def _replaced(name: str, mean: Mean | None) -> Look:
    def instead(inputs: tuple[object, ...], output: object) -> Tensor:
        first = inputs[0] if inputs else None
        if not isinstance(first, Tensor) or not isinstance(output, Tensor) or first.shape != output.shape:
            raise UserError(f"The unit {name!r} changes the shape of what enters it, so it cannot be left out.")
        return first if mean is None else first + mean.like(first.shape[1:], first, name)

    return instead


def _passing(subject: Subject, layers: Sequence[int]) -> dict[int, bool]:
    """Whether each of these blocks of a plain module is a residual one."""
    names = {layer: subject.places[layer - 1].name for layer in layers}
    entered: dict[str, tuple[tuple[object, ...], object]] = {}

    def look(name: str) -> Look:
        return lambda inputs, output: entered.update({name: (inputs, output)})

    looks = {name: look(name) for name in names.values()}
    with torch.no_grad():
        hooked(subject.module, looks, lambda: subject.anatomy.walk(zero_image(subject), Unwatched()))
        return {
            layer: _is_residual(subject.module.get_submodule(name), *entered[name]) for layer, name in names.items()
        }


def zero_image(subject: Subject) -> Float[Tensor, "1 channels height width"]:
    """One image of zeros of the subject's own shape, device and type."""
    return fed(subject.module, torch.zeros(1, *subject.preprocessing.shape))


def seen(subject: Subject, images: Images, batch_size: int, see: Callable[[Tensor], object]) -> int:
    """Show every batch's pixels to ``see`` without gradients; how many images there were. Raises if there were none."""
    device = input_like(subject.module).device
    count = 0
    for batch in images.batches(subject.preprocessing.transform, batch_size):
        if len(batch.indices):
            with torch.no_grad(), failures_told(subject, images, batch):
                see(batch.pixels.to(device))
            count += len(batch.indices)
    if not count:
        raise UserError(f"None of the {len(images)} images of {images.name} could be read, so there is no mean.")
    return count


def _is_residual(block: nn.Module, inputs: tuple[object, ...], output: object) -> bool:
    """Whether, its weights at zero, it returns a positive input unchanged, and leaves a negative one as it was."""
    first = inputs[0] if len(inputs) == 1 else None
    if not isinstance(first, Tensor) or not isinstance(output, Tensor) or first.shape != output.shape:
        return False
    still = copy.deepcopy(block)
    for tensor in (*still.parameters(), *still.buffers()):
        if tensor.is_floating_point():
            tensor.zero_()
    count = first.numel()
    positive = torch.linspace(0.1, 1, count, device=first.device, dtype=first.dtype).view_as(first)
    negative = -positive
    still(negative)
    return torch.equal(still(positive.clone()), positive) and torch.equal(negative, -positive)
