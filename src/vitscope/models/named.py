"""The anatomy of a model without an adapter: its repeated blocks, read in place by temporary hooks."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.bands import band_pictures
from vitscope.models.blocks import NestedBlock, blocks_of, find_bypassed
from vitscope.models.following import layers_apart, same_map
from vitscope.models.found_layout import Evidence, FoundLayout, evidence_of, tensors_of
from vitscope.models.hooks import hooks, takes_hooks
from vitscope.models.own_forward import own_output, probe_images
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractAnatomy, AbstractObserver, Unwatched
from vitscope.models.unit import Place, UnitKind


@final
@dataclass(frozen=True)
class NamedModules(AbstractAnatomy):
    """A module read at the outputs of named submodules, in the order in which they run.

    ``layouts`` are the layouts of their outputs, ``entering`` those of their inputs; if the first of these is None,
    there is no layer 0. ``apart`` are the layers across which no change can be measured (:func:`layers_apart`).
    Feature maps, variance, logits and loss are available; attention weights are not, because no module returns them in
    a reliable way.
    """

    module: nn.Module
    found: tuple[Place, ...]
    layouts: tuple[FoundLayout, ...]
    entering: tuple[FoundLayout | None, ...]
    apart: frozenset[int] = frozenset()

    @property
    def places(self) -> tuple[Place, ...]:
        """The units in order."""
        return self.found

    @property
    def entry(self) -> FoundLayout | None:
        """The layout of the first unit's input, if it is known."""
        return self.entering[0] if self.entering else None

    def walk(self, images: Float[Tensor, "batch channels height width"], observer: AbstractObserver) -> Tensor:
        """The module's own forward pass on a copy of the images; the observer sees each block's output as it comes.

        The input of the first block is shown before it runs, because it may work in place. A layer follows the one
        before only if the map that enters it equals, entry by entry, the one that left last. Cost: one comparison per
        layer, of maps that do not share memory. Raises ``UserError`` if a block does not run exactly once.
        """
        if type(observer) is Unwatched:  # not a subclass, which may watch
            return own_output(self.module, images)
        layers = {place.name: layer for layer, place in enumerate(self.found, start=1)}
        follows: dict[int, bool] = {}
        runs = Counter[str]()
        last: tuple[int, Stream] | None = None

        def read(layer: int, layout: FoundLayout, given: object) -> Stream:
            stream = layout.stream(given)
            if stream is None:
                name = self.found[max(layer - 1, 0)].name
                raise UserError(f"The unit {name!r} has another kind of output than when its layout was determined.")
            return stream

        def before(name: str, ordered: tuple[Any, ...], named: dict[str, Any]) -> None:
            given, layer = (*ordered, *named.values()), layers[name]
            layout = self.entering[layer - 1]
            if layer == 1 and layout is not None:
                observer.stream(0, read(0, layout, given))
            stream = None if layout is None else layout.stream(given)
            known = last is not None and last[0] == layer - 1 and stream is not None and same_map(stream, last[1])
            follows[layer] = (layer == 1 or known) and layer not in self.apart

        def behind(name: str, output: object) -> None:
            nonlocal last
            runs[name] += 1
            layer = layers[name]
            last = layer, read(layer, self.layouts[layer - 1], output)
            observer.stream(layer, replace(last[1], follows=follows[layer]))

        with hooks(self.module, layers, before, behind):
            rows = own_output(self.module, images)
        _refuse_other_runs(runs, layers)
        return rows


def _refuse_other_runs(runs: Counter[str], names: Iterable[str]) -> None:
    odd = next((name for name in names if runs[name] != 1), None)
    if odd is not None:
        times = "did not run" if not runs[odd] else f"ran {runs[odd]} times"
        raise UserError(
            f"The unit {odd!r} {times} for a batch of images, but once for pictures of noise, so images cannot be "
            "compared there; load the model with units=[...] that run once for every image (units=[] reads only its "
            "logits)."
        )


def anatomy_at_blocks(
    module: nn.Module, units: Sequence[str] | None, image: tuple[int, int, int]
) -> tuple[NamedModules, tuple[str, ...]]:
    """The anatomy at ``units``, or at the module's repeated blocks if None, and notes on it.

    The blocks are the innermost modules with parts of their own in an ``nn.Sequential``, ``nn.ModuleList`` or
    ``nn.ModuleDict``; or the one around them, if a shortcut or another branch bypasses those inside, or if the layouts
    of these cannot be determined. A block whose map has another size than the one before counts as downsampling; one
    with a spatial kernel is a convolution.

    The layout of an output is found with pictures that differ in one band: see :class:`FoundLayout`. A block whose
    layout is not found is left out and named in a note. Raises ``UserError`` if a requested unit does not exist, runs
    twice, or returns no feature map. Cost: forward passes of one, eleven and one image; for nested blocks, two more of
    two images.
    """
    known = dict(module.named_modules())
    if units is not None and (wrong := [name for name in units if name not in known]):
        raise UserError(
            f"{type(module).__name__} has no submodule {wrong[0]!r}; it has {', '.join(list(known)[1:9])}, ..."
        )
    blocks = [NestedBlock(name) for name in units] if units is not None else list(blocks_of(module))
    looks = _look_at(module, [name for block in blocks for name in block.names], image)
    layouts = _layouts(looks, known)
    if units is not None:
        _refuse_unread(looks, layouts)
    beside = find_bypassed(module, blocks, layouts, probe_images(image))
    chosen = {name for block in blocks for name in block.readable(layouts, beside)}
    order = [name for name in looks if name in chosen]
    anatomy = NamedModules(
        module,
        tuple(_places([(name, layouts[name]) for name in order], known)),
        tuple(layouts[name] for name in order),
        tuple(looks[name].entering.layout for name in order),
    )
    anatomy = replace(anatomy, apart=layers_apart(module, order, anatomy.layouts, anatomy.entering, image))
    left = [name for block in blocks for name in block.unread(layouts)]
    return anatomy, (*_note_left_out(left, looks), *_note_changes(anatomy))


def _refuse_unread(looks: "Mapping[str, _Look]", layouts: Mapping[str, FoundLayout]) -> None:
    """Raise ``UserError`` if a requested unit cannot be read."""
    for name, look in looks.items():
        if name not in layouts:
            why = f"returns no feature map: {look.why_not}" if look.runs == 1 else f"cannot be read: {look.why_not}"
            many = f"ran {look.runs} times in one pass; a unit must run once"
            raise UserError(f"The unit {name!r} {why if look.runs == 1 or not look.watched else many}.")


def _note_changes(anatomy: NamedModules) -> tuple[str, ...]:
    """One sentence for all units across which no change is measured."""
    names = [anatomy.found[layer - 1].name for layer in sorted(anatomy.apart)]
    if not names:
        return ()
    one = "each of them" if len(names) > 1 else "it"
    return (
        f"The change across {_first(names, 'unit')} is not measured: something lies between {one} and the unit "
        "before, or a shortcut bypasses it.",
    )


def _first(names: Sequence[str], what: str) -> str:
    """The first name, and how many more there are."""
    more = f" and {len(names) - 1} more {what}{'s' * (len(names) > 2)}" if len(names) > 1 else ""
    return f"{names[0]}{more}"


def _note_left_out(left: Sequence[str], looks: "Mapping[str, _Look]") -> tuple[str, ...]:
    """One sentence per reason, for all blocks that are left out for it."""
    reasons: dict[str, list[str]] = {}
    for name in left:
        reasons.setdefault(looks[name].why_not, []).append(name)
    return tuple(
        f"{_first(names, 'block')} {'are' if len(names) > 1 else 'is'} not read: {reason}."
        for reason, names in reasons.items()
    )


@dataclass
class _Look:
    """What a submodule did with one picture, and with those that differ in a band."""

    runs: int = 0
    watched: bool = True
    entering: Evidence = field(default_factory=lambda: Evidence((), ()))
    leaving: Evidence = field(default_factory=lambda: Evidence((), ()))

    @property
    def why_not(self) -> str:
        """Why it cannot be read."""
        if not self.watched:
            return "it is a TorchScript program, which does not show its output"
        if self.runs == 1:
            return self.leaving.why_not
        return f"it runs {self.runs} times in one pass" if self.runs else "it does not run for pictures of noise"


def _look_at(module: nn.Module, names: Sequence[str], image: tuple[int, int, int]) -> dict[str, _Look]:
    """The submodules in the order in which they end, with evidence on their layouts."""
    pictures = band_pictures(image)
    single: dict[str, tuple[object, object]] = {}
    entered: dict[str, object] = {}
    looks: dict[str, _Look] = {}

    def note(name: str, output: object) -> None:
        single[name] = (_shapes_only(entered[name]), _shapes_only(output))

    def before(name: str, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        entered[name] = (*given, *named.values())

    def look(name: str, ordered: tuple[Any, ...], named: dict[str, Any]) -> None:
        if name in single:
            given = (*ordered, *named.values())
            looks.setdefault(name, _Look()).entering = evidence_of(single[name][0], given, len(pictures), image[1:])

    def behind(name: str, output: object) -> None:
        if name in single:
            one = looks[name]
            one.runs += 1
            one.leaving = evidence_of(single[name][1], output, len(pictures), image[1:])
            looks[name] = looks.pop(name)

    with torch.no_grad():
        shown = [name for name in names if takes_hooks(module.get_submodule(name))]
        with hooks(module, shown, before, note):
            own_output(module, pictures[:1])
        with hooks(module, shown, look, behind):
            own_output(module, pictures)
    return {**looks, **{name: _Look(watched=name in shown) for name in names if name not in looks}}


def _shapes_only(output: object) -> list[Tensor]:
    """Tensors of the same shapes as the output's, without data."""
    return [torch.empty(tensor.shape, device="meta") for tensor in tensors_of(output)]


def _layouts(looks: Mapping[str, _Look], known: Mapping[str, nn.Module]) -> dict[str, FoundLayout]:
    """The layouts that were found; else that of an earlier block of the same class and shape, or of the input.

    An input whose layout is not found takes that of the latest earlier output that it can share.
    """
    found: dict[str, FoundLayout] = {}
    earlier: dict[tuple[type[nn.Module], tuple[tuple[int, ...], ...]], FoundLayout] = {}
    for name, look in looks.items():
        if look.entering.layout is None:
            alike = (look.entering.like(before) for before in reversed(found.values()))
            look.entering = look.entering.with_layout(next((one for one in alike if one is not None), None))
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
