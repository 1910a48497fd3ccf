"""The anatomy of a model nobody described: its repeated blocks, read where they stand by hooks that last one call."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.stream import Layout, Stream, map_stream, token_stream
from vitscope.models.subject import AbstractAnatomy, AbstractObserver
from vitscope.models.unit import Place, UnitKind


@final
@dataclass(frozen=True)
class NamedModules(AbstractAnatomy):
    """A module read at the outputs of named submodules, in the order in which they run.

    Feature maps, variance, logits and loss can be had; attention weights, which no module returns in a way that
    could be relied on, cannot.
    """

    module: nn.Module
    found: tuple[Place, ...]

    @property
    def places(self) -> tuple[Place, ...]:
        """The units in order."""
        return self.found

    def walk(self, images: Float[Tensor, "batch channels height width"], observer: AbstractObserver) -> Tensor:
        """The module's own forward pass, its blocks' outputs shown to the observer as they come."""
        layers = {place.name: layer for layer, place in enumerate(self.found, start=1)}

        def show(name: str, entering: object, output: object) -> None:
            if layers[name] == 1:
                observer.stream(0, _stream(entering) or _refuse(name, entering))
            observer.stream(layers[name], _stream(output) or _refuse(name, output))

        return cast(Tensor, _hooked(self.module, tuple(layers), images, show))


def named_modules(module: nn.Module, units: Sequence[str] | None, image: tuple[int, int, int]) -> NamedModules:
    """The anatomy at ``units``, or at the module's repeated blocks where None; one image of zeros is sent through.

    The blocks are the innermost modules with parts of their own that stand in an ``nn.Sequential`` or
    ``nn.ModuleList``. A block whose map is smaller than the one before is downsampling; one with a spatial kernel is
    a convolution. Raises ``UserError`` where a name does not exist, runs twice, or returns no feature map.
    """
    known = dict(module.named_modules())
    if units is not None and (wrong := [name for name in units if name not in known]):
        raise UserError(
            f"{type(module).__name__} has no submodule {wrong[0]!r}; it has {', '.join(list(known)[1:9])}, ..."
        )
    names = tuple(units) if units is not None else tuple(_blocks(module))
    seen: list[tuple[str, Stream | None]] = []
    parameter = next(iter(module.parameters()), torch.empty(0))
    with torch.inference_mode():
        zeros = torch.zeros(1, *image, device=parameter.device, dtype=parameter.dtype)
        _hooked(module, names, zeros, lambda name, _, output: seen.append((name, _stream(output))))
    if units is not None:
        _refuse_unreadable(seen, names)
    readable = [(name, stream) for name, stream in seen if stream is not None]
    return NamedModules(module, tuple(_places(readable, known)))


def _refuse_unreadable(seen: list[tuple[str, Stream | None]], names: tuple[str, ...]) -> None:
    for name in names:
        outputs = [stream for other, stream in seen if other == name]
        if len(outputs) != 1:
            raise UserError(f"The unit {name!r} ran {len(outputs)} times in one pass; a unit must run once.")
        if outputs[0] is None:
            raise UserError(f"The unit {name!r} returns no feature map (batch x channels x height x width) or tokens.")


def _blocks(module: nn.Module, name: str = "") -> Iterator[str]:
    """Innermost compound members of containers, by name."""
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        inner = list(_blocks(child, path))
        if inner:
            yield from inner
        elif isinstance(module, nn.Sequential | nn.ModuleList) and any(True for _ in child.children()):
            yield path


def _places(seen: list[tuple[str, Stream]], known: dict[str, nn.Module]) -> Iterator[Place]:
    stage, grid = 0, seen[0][1].grid if seen else (0, 0)
    for block, (name, stream) in enumerate(seen):
        kind = UnitKind.CONVOLUTION if _has_kernel(known[name]) else UnitKind.BLOCK
        if stream.grid != grid:
            stage, grid, kind = stage + 1, stream.grid, UnitKind.DOWNSAMPLING
        yield Place(kind, name, stage, block)


def _has_kernel(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Conv2d) and max(part.kernel_size) > 1 for part in module.modules())


def _stream(output: object) -> Stream | None:
    """A feature map, or tokens on a square grid with at most one token before it."""
    value = cast(tuple[object, ...], output)[0] if isinstance(output, tuple) and output else output
    if not isinstance(value, Tensor):
        return None
    if value.ndim == len(Layout.CHANNELS_FIRST.value.split()):
        return map_stream(value)
    if value.ndim != len(Layout.TOKENS.value.split()):
        return None
    side = isqrt(value.shape[1])
    prefix = value.shape[1] - side * side
    return token_stream(value, (side, side), prefix) if prefix <= 1 and side > 1 else None


def _refuse(name: str, found: object) -> Stream:
    raise UserError(f"The unit {name!r} met a {type(found).__name__} that is no feature map for this input.")


def _hooked(
    module: nn.Module, names: tuple[str, ...], images: Tensor, show: Callable[[str, object, object], None]
) -> object:
    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        return lambda _, inputs, output: show(name, inputs, output)

    handles = [module.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        return module(images)
    finally:
        for handle in handles:
            handle.remove()
