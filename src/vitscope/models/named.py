"""The anatomy of a model nobody described: its repeated blocks, read where they stand by hooks that last one call."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.bands import band_pictures
from vitscope.models.found_layout import Evidence, FoundLayout, evidence_of, tensors_of
from vitscope.models.own_forward import own_output
from vitscope.models.subject import AbstractAnatomy, AbstractObserver
from vitscope.models.unit import Place, UnitKind


@final
@dataclass(frozen=True)
class NamedModules(AbstractAnatomy):
    """A module read at the outputs of named submodules, in the order in which they run.

    ``layouts`` say how the output of each is laid out, ``entry`` what enters the first; where that is None, there is
    no layer 0. ``apart`` are the layers before which more lies, since the one before, than the unit itself.
    Feature maps, variance, logits and loss can be had; attention weights, which no module returns in a way that could
    be relied on, cannot.
    """

    module: nn.Module
    found: tuple[Place, ...]
    layouts: tuple[FoundLayout, ...]
    entry: FoundLayout | None = None
    apart: frozenset[int] = frozenset()

    @property
    def places(self) -> tuple[Place, ...]:
        """The units in order."""
        return self.found

    def walk(self, images: Float[Tensor, "batch channels height width"], observer: AbstractObserver) -> Tensor:
        """The module's own forward pass on a copy of the images, its blocks' outputs shown as they come.

        What enters the first block is shown before it runs: it may work in place.
        """
        layers = {place.name: layer for layer, place in enumerate(self.found, start=1)}

        def show(layer: int, layout: FoundLayout, given: object) -> None:
            stream = layout.stream(given)
            if stream is None:
                name = self.found[max(layer - 1, 0)].name
                raise UserError(f"The unit {name!r} met another kind of output than when its layout was looked for.")
            observer.stream(layer, replace(stream, follows=layer not in self.apart))

        def before(name: str, given: object) -> None:
            if layers[name] == 1 and self.entry is not None:
                show(0, self.entry, given)

        def behind(name: str, output: object) -> None:
            show(layers[name], self.layouts[layers[name] - 1], output)

        return watched(self.module, tuple(layers), images, before, behind)


def named_modules(
    module: nn.Module, units: Sequence[str] | None, image: tuple[int, int, int]
) -> tuple[NamedModules, tuple[str, ...]]:
    """The anatomy at ``units``, or at the module's repeated blocks where None; and what must be said of it.

    The blocks are the innermost modules with parts of their own that stand in an ``nn.Sequential`` or
    ``nn.ModuleList``, or, if how these return their maps cannot be found out, the one around them. A block whose map
    is smaller than the one before is downsampling; one with a spatial kernel is a convolution.

    How an output is laid out is found out by pictures that differ in one band: see :class:`FoundLayout`. A block of
    which it is not found is left out, and named. Raises ``UserError`` if a requested unit does not exist,
    runs twice, or returns no feature map. Cost: two forward passes, of one and of eleven images.
    """
    known = dict(module.named_modules())
    if units is not None and (wrong := [name for name in units if name not in known]):
        raise UserError(
            f"{type(module).__name__} has no submodule {wrong[0]!r}; it has {', '.join(list(known)[1:9])}, ..."
        )
    blocks = [_Block(name) for name in units] if units is not None else list(_blocks(module))
    looks = _looked_at(module, [name for block in blocks for name in block.names], image)
    layouts = _layouts(looks, known)
    refused = {name: look.why_not for name, look in looks.items() if name not in layouts}
    if units is not None and refused:
        name = next(iter(refused))
        runs = looks[name].runs
        many = f"ran {runs} times in one pass; a unit must run once"
        raise UserError(f"The unit {name!r} {f'returns no feature map: {refused[name]}' if runs == 1 else many}.")
    chosen = {name for block in blocks for name in block.readable(layouts)}
    order = [name for name in looks if name in chosen]
    found = tuple(_places([(name, layouts[name]) for name in order], known))
    entry = looks[order[0]].entering.layout if order else None
    left = [name for block in blocks for name in block.unread(layouts)]
    apart = _apart(looks, layouts, order, left)
    anatomy = NamedModules(module, found, tuple(layouts[name] for name in order), entry, apart)
    return anatomy, _said(left, looks)


def _apart(
    looks: "Mapping[str, _Look]", layouts: Mapping[str, FoundLayout], order: Sequence[str], left: Sequence[str]
) -> frozenset[int]:
    """The layers that another map enters than the one before left, or before which a block ran that is not read."""
    ran = list(looks)
    found: set[int] = set()
    for layer, (before, name) in enumerate(pairwise(order), start=2):
        entering, last = looks[name].entering.layout, layouts[before]
        same = entering is not None and (entering.grid, entering.channels) == (last.grid, last.channels)
        if not same or set(left) & set(ran[ran.index(before) : ran.index(name)]):
            found.add(layer)
    return frozenset(found)


def _said(left: Sequence[str], looks: "Mapping[str, _Look]") -> tuple[str, ...]:
    """One sentence for all blocks that run and are left out for the same reason."""
    reasons: dict[str, list[str]] = {}
    for name in (name for name in left if looks[name].runs):
        reasons.setdefault(looks[name].why_not, []).append(name)
    return tuple(
        f"{names[0]}{f' and {len(names) - 1} more blocks are' if len(names) > 1 else ' is'} not read: {reason}."
        for reason, names in reasons.items()
    )


@dataclass(frozen=True)
class _Block:
    """A member of a container, and those of the containers inside it."""

    name: str
    inner: tuple["_Block", ...] = ()

    @property
    def names(self) -> list[str]:
        """All names, the innermost first."""
        return [*(name for block in self.inner for name in block.names), self.name]

    def readable(self, layouts: Mapping[str, FoundLayout]) -> list[str]:
        """The innermost, if all of them can be read; else what is around them, if it can; else those that can."""
        inside = [block.readable(layouts) for block in self.inner]
        if self.name in layouts and not (inside and all(inside)):
            return [self.name]
        return [name for names in inside for name in names]

    def unread(self, layouts: Mapping[str, FoundLayout]) -> list[str]:
        """The innermost of which nothing, nor of what is around them, can be read."""
        if self.name in layouts:
            return []
        inside = [name for block in self.inner for name in block.unread(layouts)]
        return inside or ([] if self.readable(layouts) else [self.name])


def _blocks(module: nn.Module, name: str = "") -> Iterator[_Block]:
    """Compound members of containers."""
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        inner = tuple(_blocks(child, path))
        if isinstance(module, nn.Sequential | nn.ModuleList) and any(True for _ in child.children()):
            yield _Block(path, inner)
        else:
            yield from inner


@dataclass
class _Look:
    """What was seen of a submodule with one picture, and with those that differ in a band."""

    runs: int = 0
    single: tuple[object, object] = (None, None)
    entering: Evidence = field(default_factory=lambda: Evidence((), ()))
    leaving: Evidence = field(default_factory=lambda: Evidence((), ()))

    @property
    def why_not(self) -> str:
        """Why it cannot be read."""
        return self.leaving.why_not if self.runs == 1 else f"it runs {self.runs} times in one pass"


def _looked_at(module: nn.Module, names: Sequence[str], image: tuple[int, int, int]) -> dict[str, _Look]:
    """The submodules in the order in which they end, with what they show of their layout."""
    pictures = band_pictures(image)
    single: dict[str, tuple[object, object]] = {}
    entered: dict[str, object] = {}
    looks: dict[str, _Look] = {}

    def note(name: str, output: object) -> None:
        single[name] = (_shapes_only(entered[name]), _shapes_only(output))

    def before(name: str, given: object) -> None:
        entered[name] = given

    def look(name: str, given: object) -> None:
        if name in single:
            looks.setdefault(name, _Look()).entering = evidence_of(single[name][0], given, len(pictures), image[1:])

    def behind(name: str, output: object) -> None:
        if name in single:
            one = looks[name]
            one.runs += 1
            one.leaving = evidence_of(single[name][1], output, len(pictures), image[1:])
            looks[name] = looks.pop(name)

    with torch.no_grad():
        watched(module, names, pictures[:1], before, note)
        watched(module, names, pictures, look, behind)
    return {**looks, **{name: _Look() for name in names if name not in looks}}


def _shapes_only(output: object) -> list[Tensor]:
    """The output's tensors without their numbers."""
    return [torch.empty(tensor.shape, device="meta") for tensor in tensors_of(output)]


def _layouts(looks: Mapping[str, _Look], known: Mapping[str, nn.Module]) -> dict[str, FoundLayout]:
    """The layouts that were found; else that of an earlier block of the same class and shape, or of what enters.

    What enters without showing its layout has that of the last that left before and may be the same.
    """
    found: dict[str, FoundLayout] = {}
    earlier: dict[tuple[type[nn.Module], tuple[tuple[int, ...], ...]], FoundLayout] = {}
    for name, look in looks.items():
        if look.entering.layout is None:
            alike = (look.entering.like(before) for before in reversed(found.values()))
            look.entering = look.entering.known_as(next((one for one in alike if one is not None), None))
        kind = (type(known[name]), look.leaving.shapes)
        layout = look.leaving.layout
        for other in (earlier.get(kind), look.entering.layout):
            if layout is None and other is not None:
                layout = look.leaving.like(other)
        if layout is not None and look.runs == 1:
            found[name] = earlier[kind] = layout
    return found


def _places(seen: Sequence[tuple[str, FoundLayout]], known: Mapping[str, nn.Module]) -> Iterator[Place]:
    stage, grid = 0, seen[0][1].grid if seen else (0, 0)
    for block, (name, layout) in enumerate(seen):
        kind = UnitKind.CONVOLUTION if _has_kernel(known[name]) else UnitKind.BLOCK
        if layout.grid != grid:
            stage, grid, kind = stage + 1, layout.grid, UnitKind.DOWNSAMPLING
        yield Place(kind, name, stage, block)


def _has_kernel(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Conv2d) and max(part.kernel_size) > 1 for part in module.modules())


def watched(
    module: nn.Module,
    names: Sequence[str],
    images: Float[Tensor, "batch channels height width"],
    before: Callable[[str, object], None],
    behind: Callable[[str, object], None],
) -> Tensor:
    """The module's own output, what enters and leaves these submodules being shown as they run."""

    def entering(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        return lambda _, given, named: before(name, (*given, *named.values()))

    def leaving(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        return lambda _, given, output: behind(name, output)

    handles: list[Any] = []
    try:
        for name in names:
            part = module.get_submodule(name)
            handles.append(part.register_forward_pre_hook(entering(name), with_kwargs=True))
            handles.append(part.register_forward_hook(leaving(name)))
        return own_output(module, images)
    finally:
        for handle in handles:
            handle.remove()
