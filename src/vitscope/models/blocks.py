"""The repeated blocks of a module: the members of its containers, and whether something bypasses nested ones."""

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
    """A member of a container, and the members of the containers inside it."""

    name: str
    inner: tuple["NestedBlock", ...] = ()

    @property
    def names(self) -> list[str]:
        """All names, the innermost first."""
        return [*(name for block in self.inner for name in block.names), self.name]

    def readable(self, layouts: Mapping[str, FoundLayout], beside: Collection[str] = ()) -> list[str]:
        """The innermost blocks if all are readable and none is bypassed; else the enclosing one; else the readable.

        ``beside`` are the blocks in which something bypasses those inside.
        """
        inside = [block.readable(layouts, beside) for block in self.inner]
        if self.name in layouts and (self.name in beside or not (inside and all(inside))):
            return [self.name]
        return [name for names in inside for name in names]

    def unread(self, layouts: Mapping[str, FoundLayout]) -> list[str]:
        """The innermost blocks that cannot be read and are in no block that can."""
        if self.name in layouts:
            return []
        inside = [name for block in self.inner for name in block.unread(layouts)]
        return inside or ([] if self.readable(layouts) else [self.name])

    def around(self, layouts: Mapping[str, FoundLayout]) -> Iterator[tuple[str, list[str]]]:
        """The readable blocks in which all inner blocks are readable, with the names of those, in any order."""
        for block in self.inner:
            yield from block.around(layouts)
        inside = [block.readable(layouts) for block in self.inner]
        if self.name in layouts and inside and all(inside):
            yield self.name, [name for block in self.inner for name in block.names if name in layouts]


def blocks_of(module: nn.Module, name: str = "") -> Iterator[NestedBlock]:
    """Members of containers that have parts of their own; nested ``ModuleList`` and ``ModuleDict`` are searched."""
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        inner = tuple(blocks_of(child, path)) if takes_hooks(child) else ()
        runs = any(True for _ in child.children()) and not isinstance(child, nn.ModuleList | nn.ModuleDict)
        if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) and runs:
            yield NestedBlock(path, inner)
        else:
            yield from inner


def find_bypassed(
    module: nn.Module,
    blocks: Sequence[NestedBlock],
    layouts: Mapping[str, FoundLayout],
    images: Float[Tensor, "2 channels height width"],
) -> frozenset[str]:
    """The blocks in which something bypasses those inside them: a shortcut, or a branch beside them.

    ``layouts`` are in the order in which the submodules end. Each block runs once more on its input for two pictures,
    while the last of those inside returns for both what it returned for the first: if the block's output still differs
    between them, not all of it went through there. Cost: two forward passes of two images, or none.
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
    """A second run of a block, in which the ``last`` of those inside is blind to the second picture."""

    block: nn.Module
    layout: FoundLayout
    last: nn.Module
    axis: int
    entered: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    running: bool = False
    passed_by: bool = False

    def keep(self, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Copy the block's input before it runs, because it may work in place."""
        if self.entered is None:
            self.entered = tuple(map(_copy, given)), {key: _copy(one) for key, one in named.items()}

    def repeat(self) -> None:
        """Run the block again after its own run, and look whether its output differs between the pictures."""
        if self.entered is None or self.running:
            return
        ordered, named = self.entered
        self.running = True
        try:
            with hooks(self.last, ("",), after=lambda _, output: as_first(output, self.axis)):
                self.passed_by |= images_differ(self.layout.stream(self.block(*ordered, **named)))
        finally:
            self.running, self.entered = False, None


def _copy(given: object) -> object:
    return given.clone() if isinstance(given, Tensor) else given


def as_first(output: object, axis: int) -> object:
    """The output with the first picture's values repeated for the second."""
    if isinstance(output, Tensor):
        two = output.ndim > axis and output.shape[axis] == 2
        return output.narrow(axis, 0, 1).expand_as(output).clone() if two else output
    if type(output) in (tuple, list):
        parts = [as_first(one, axis) for one in cast("tuple[object, ...]", output)]
        return tuple(parts) if isinstance(output, tuple) else parts
    if type(output) is dict:
        return {key: as_first(one, axis) for key, one in cast("dict[str, object]", output).items()}
    return output


def images_differ(stream: Stream | None) -> bool:
    """Whether the streams of two pictures differ by more than rounding."""
    return stream is not None and unlike(*stream.values)


def unlike(one: Tensor, other: Tensor) -> bool:
    """Whether two values differ by more than rounding; False if a difference is NaN."""
    return bool((one - other).float().abs().amax() > _DEPENDS * one.float().abs().amax())
