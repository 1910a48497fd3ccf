"""The repeated blocks of a module: the members of its containers, and whether the stream goes through those inside."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscope.models.found_layout import FoundLayout
from vitscope.models.hooks import hooks, takes_hooks
from vitscope.models.own_forward import own_output
from vitscope.models.stream import Stream

_DEPENDS = 1e-3
"""Difference, relative to the largest number, that is more than rounding."""


@final
@dataclass(frozen=True)
class NestedBlock:
    """A member of a container, and those of the containers inside it."""

    name: str
    inner: tuple["NestedBlock", ...] = ()

    @property
    def names(self) -> list[str]:
        """All names, the innermost first."""
        return [*(name for block in self.inner for name in block.names), self.name]

    def readable(self, layouts: Mapping[str, FoundLayout], beside: Collection[str] = ()) -> list[str]:
        """The innermost, if all can be read and nothing passes by them; else what is around them; else those that can.

        ``beside`` are the blocks in which something passes by those inside.
        """
        inside = [block.readable(layouts, beside) for block in self.inner]
        if self.name in layouts and (self.name in beside or not (inside and all(inside))):
            return [self.name]
        return [name for names in inside for name in names]

    def unread(self, layouts: Mapping[str, FoundLayout]) -> list[str]:
        """The innermost of which nothing, nor of what is around them, can be read."""
        if self.name in layouts:
            return []
        inside = [name for block in self.inner for name in block.unread(layouts)]
        return inside or ([] if self.readable(layouts) else [self.name])

    def around(self, layouts: Mapping[str, FoundLayout]) -> Iterator[tuple[str, list[str]]]:
        """The blocks that can be read as well as all inside them, and the names of those, in whatever order."""
        for block in self.inner:
            yield from block.around(layouts)
        inside = [block.readable(layouts) for block in self.inner]
        if self.name in layouts and inside and all(inside):
            yield self.name, [name for block in self.inner for name in block.names if name in layouts]


def blocks_of(module: nn.Module, name: str = "") -> Iterator[NestedBlock]:
    """Compound members of containers, and of the containers that hold others without running them."""
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        inner = tuple(blocks_of(child, path)) if takes_hooks(child) else ()
        runs = any(True for _ in child.children()) and not isinstance(child, nn.ModuleList | nn.ModuleDict)
        if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) and runs:
            yield NestedBlock(path, inner)
        else:
            yield from inner


def find_passed_by(
    module: nn.Module,
    blocks: Sequence[NestedBlock],
    layouts: Mapping[str, FoundLayout],
    images: Float[Tensor, "2 channels height width"],
) -> frozenset[str]:
    """The blocks in which something passes by those inside them: a shortcut, or a branch beside them.

    ``layouts`` are in the order in which the submodules end. Each block runs once more on what entered it for two
    pictures, while the last of those inside returns for both what it returned for the first: if what comes out still
    differs, not all of it went through there. Cost: two forward passes of two images, or none.
    """
    order = list(layouts)
    trials: dict[str, _SecondRun] = {}
    for name, inside in (pair for block in blocks for pair in block.around(layouts)):
        last = max(inside, key=order.index)
        block, blind = module.get_submodule(name), module.get_submodule(last)
        trials[name] = _SecondRun(block, layouts[name], blind, layouts[last].axes[0])

    def keep(name: str, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        trials[name].keep(given, named)

    def repeat(name: str, output: object) -> None:
        trials[name].repeat()

    if trials:
        with torch.no_grad(), hooks(module, trials, keep, repeat):
            own_output(module, images)
    return frozenset(name for name, trial in trials.items() if trial.passed_by)


@final
@dataclass
class _SecondRun:
    """A block that runs again after its own run, the ``last`` of those inside being blind to the second picture."""

    block: nn.Module
    layout: FoundLayout
    last: nn.Module
    axis: int
    entered: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    running: bool = False
    passed_by: bool = False

    def keep(self, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Before it runs: a copy of what enters it, for it may work in place."""
        if self.entered is None:
            self.entered = tuple(map(_copy, given)), {key: _copy(one) for key, one in named.items()}

    def repeat(self) -> None:
        """After it ran: again, and look at what comes out."""
        if self.entered is None or self.running:
            return
        ordered, named = self.entered
        self.running = True
        try:
            with hooks(self.last, ("",), after=lambda _, output: as_first(output, self.axis)):
                self.passed_by |= tells_apart(self.layout.stream(self.block(*ordered, **named)))
        finally:
            self.running, self.entered = False, None


def _copy(given: object) -> object:
    return given.clone() if isinstance(given, Tensor) else given


def as_first(output: object, axis: int) -> object:
    """The output, its tensors for two pictures being twice that of the first."""
    if isinstance(output, Tensor):
        two = output.ndim > axis and output.shape[axis] == 2
        return output.narrow(axis, 0, 1).expand_as(output).clone() if two else output
    if type(output) in (tuple, list):
        parts = [as_first(one, axis) for one in cast("tuple[object, ...]", output)]
        return tuple(parts) if isinstance(output, tuple) else parts
    if type(output) is dict:
        return {key: as_first(one, axis) for key, one in cast("dict[str, object]", output).items()}
    return output


def tells_apart(stream: Stream | None) -> bool:
    """Whether the stream of two pictures differs between them, by more than rounding."""
    return stream is not None and unlike(*stream.values)


def unlike(one: Tensor, other: Tensor) -> bool:
    """Whether two values differ by more than rounding; numbers that are none do not."""
    return bool((one - other).float().abs().amax() > _DEPENDS * one.float().abs().amax())
