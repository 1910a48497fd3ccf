"""Several walks through one module at once: what they have in common runs once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vitscope.engine.shard import Reading
from vitscope.models.stream import Stream
from vitscope.models.subject import Composition, after


@dataclass
class _Branch:
    """Walks that have been the same so far: their numbers, the stream they share and what was read of it."""

    walks: tuple[int, ...]
    position: int
    stream: Stream
    reading: Reading


def walk_together(
    anatomies: Sequence[Composition],
    images: Float[Tensor, "batch channels height width"],
    reading: Callable[[], Reading],
) -> tuple[tuple[Tensor, Reading], ...]:
    """Every walk's logits and what was read on it, equal to those of the walks by themselves.

    Two walks share a unit's work where their units were equal from the stem on: units are compared as values, modules
    by identity. All anatomies have the same number of units. Cost: of ``n`` walks that each differ in one of ``d``
    units, ``d + (d - 1) + ...`` units instead of ``n d``. Memory: two streams at a time where each walk leaves a
    common trunk by itself.
    """
    found: list[tuple[Tensor, Reading] | None] = [None] * len(anatomies)
    branches: list[_Branch] = []
    for walks in _alike([anatomy.stem for anatomy in anatomies], range(len(anatomies))):
        own, stream = reading(), anatomies[walks[0]].stem(images)
        own.stream(0, stream)
        branches.append(_Branch(walks, 0, stream, own))
    while branches:
        branch = branches.pop()  # the smallest first: it ends before the trunk goes on
        if branch.position == len(anatomies[branch.walks[0]].units):
            for walks in _alike([anatomies[walk].tail for walk in branch.walks], branch.walks):
                logits = anatomies[walks[0]].tail(branch.stream)
                for walk in walks:
                    found[walk] = (logits, branch.reading.fork())
            continue
        branches.extend(_advanced(branch, anatomies))
    return tuple(one for one in found if one is not None)


def _advanced(branch: _Branch, anatomies: Sequence[Composition]) -> list[_Branch]:
    """The branches one unit further, the one of most walks first."""
    units = [anatomies[walk].units[branch.position] for walk in branch.walks]
    groups = sorted(_alike(units, branch.walks), key=len, reverse=True)
    further: list[_Branch] = []
    for walks in groups:
        own = branch.reading.fork() if len(groups) > 1 else branch.reading
        unit = anatomies[walks[0]].units[branch.position]
        further.append(_Branch(walks, branch.position + 1, after(unit, branch.position + 1, branch.stream, own), own))
    return further


def _alike(values: Sequence[object], walks: Sequence[int]) -> list[tuple[int, ...]]:
    """The walks in groups of equal values."""
    groups: list[tuple[object, list[int]]] = []
    for value, walk in zip(values, walks, strict=True):
        group = next((members for known, members in groups if known is value or known == value), None)
        if group is None:
            groups.append((value, [walk]))
        else:
            group.append(walk)
    return [tuple(members) for _, members in groups]
