"""Several walks through one module at once: what they have in common runs once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vitscope.engine.reading.activation import ActivationKind
from vitscope.engine.reading.shard import Reading
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractAnatomy, Composition, Subject, after
from vitscope.models.unit import AbstractUnit

IMAGES_TOGETHER = 64
"""Most images in one batch of branches that share a unit, if only predictions are read."""
IMAGES_TOGETHER_ON_CPU = 4
"""The same on a CPU, where it pays only for single images.

In a ViT-Tiny's lesion study, up to 64 images together saved 13 % of the time in batches of 1, and cost 5 % more in
batches of 4 and 13 % in batches of 16.
"""


@dataclass
class _Branch:
    """Walks that have been the same so far: their numbers, the stream they share and what was read of it."""

    walks: tuple[int, ...]
    stream: Stream
    reading: Reading


def walk_together(
    anatomies: Sequence[Composition],
    images: Float[Tensor, "batch channels height width"],
    reading: Callable[[], Reading],
) -> tuple[tuple[Tensor, Reading], ...]:
    """Every walk's logits and what was read on it, equal to those of separate walks.

    Two walks share a unit's work as long as their units are equal from the stem on: units are compared as values,
    modules by identity. All anatomies have the same number of units. Branches that split and meet equal units again go
    through them in one batch, if only predictions are read and memory allows (:data:`IMAGES_TOGETHER`). Cost: for ``n``
    walks that each differ in one of ``d`` units, ``d + (d - 1) + ...`` units instead of ``n d``. Memory: two streams at
    a time if each walk leaves a common trunk separately, and the branches of one batch.
    """
    found: dict[int, tuple[Tensor, Reading]] = {}
    for walks in _alike([anatomy.stem for anatomy in anatomies], range(len(anatomies))):
        own, stream = reading(), anatomies[walks[0]].stem(images)
        own.stream(0, stream)
        found |= _walk(_Branch(walks, stream, own), anatomies, images)
    return tuple(found[walk] for walk in range(len(anatomies)))


def cost_together(subjects: Sequence[Subject]) -> float:
    """The cost of :func:`walk_together` per image, in forward passes: one, plus what differs in each further subject.

    All units count the same. Subjects that are not divided into units share nothing.
    """
    first, *others = (subject.anatomy for subject in subjects)
    return 1.0 + sum(1 - _in_common(first, other) for other in others)


def _in_common(one: AbstractAnatomy, other: AbstractAnatomy) -> float:
    """The share of its units that a walk has in common with another, from the stem on."""
    if not (isinstance(one, Composition) and isinstance(other, Composition)) or one.stem != other.stem:
        return 0.0
    pairs = zip(one.units, other.units, strict=True)
    alike = next((place for place, (own, its) in enumerate(pairs) if own is not its and own != its), len(one.units))
    return alike / max(len(one.units), 1)


def _walk(root: _Branch, anatomies: Sequence[Composition], images: Tensor) -> dict[int, tuple[Tensor, Reading]]:
    """Logits and readings of the walks that share a stem."""
    found: dict[int, tuple[Tensor, Reading]] = {}
    waiting: list[tuple[int, list[_Branch]]] = [(0, [root])]
    while waiting:
        position, bundle = waiting.pop()  # the smallest branches first: they end before the trunk goes on
        if position == len(anatomies[0].units):
            for branch in bundle:
                for walks in _alike([anatomies[walk].tail for walk in branch.walks], branch.walks):
                    logits = anatomies[walks[0]].tail(branch.stream)
                    for walk in walks:
                        found[walk] = (logits, branch.reading.fork())
            continue
        further = _advance(bundle, position, anatomies)
        waiting.extend((position + 1, part) for part in _bundles(further, images))
    return found


def _advance(bundle: Sequence[_Branch], position: int, anatomies: Sequence[Composition]) -> list[_Branch]:
    """The branches one unit further, split where their walks' units differ."""
    parted: list[_Branch] = []
    units: list[AbstractUnit] = []
    for branch in bundle:
        groups = _alike([anatomies[walk].units[position] for walk in branch.walks], branch.walks)
        for walks in groups:
            own = branch.reading.fork() if len(groups) > 1 else branch.reading
            parted.append(_Branch(walks, branch.stream, own))
            units.append(anatomies[walks[0]].units[position])
    further: list[_Branch] = []
    for members in _alike(units, range(len(units))):
        branches = [parted[member] for member in members]
        streams = _through(units[members[0]], position + 1, branches)
        further.extend(replace(branch, stream=stream) for branch, stream in zip(branches, streams, strict=True))
    return further


def _through(unit: AbstractUnit, layer: int, branches: Sequence[_Branch]) -> list[Stream]:
    """The branches' streams after a unit they have in common, in one batch if possible."""
    streams = [branch.stream for branch in branches]
    if len(streams) > 1 and _can_join(streams):
        out = unit(streams[0].with_values(torch.cat([stream.values for stream in streams])))
        if not _travels(out):
            return [out.with_values(values) for values in out.values.chunk(len(streams))]
    return [after(unit, layer, branch.stream, branch.reading) for branch in branches]


def _can_join(streams: Sequence[Stream]) -> bool:
    """Whether these streams differ only in their values, and carry nothing that belongs to single images."""
    first = streams[0].values
    if any(_travels(stream) or stream.values.shape != first.shape for stream in streams):
        return False
    return all(stream.with_values(first) == streams[0] for stream in streams)


def _travels(stream: Stream) -> bool:
    return bool(stream.carried) or stream.kept is not None or stream.merged is not None


def _bundles(branches: Sequence[_Branch], images: Tensor) -> list[list[_Branch]]:
    """The branches in bundles that continue together; the branch of most walks is first, and so continues last."""
    ordered = sorted(branches, key=lambda branch: len(branch.walks), reverse=True)
    watched = any(one.reads is not ActivationKind.PREDICTIONS for one in ordered[0].reading.diagnostics)
    allowed = IMAGES_TOGETHER_ON_CPU if images.device.type == "cpu" else IMAGES_TOGETHER
    most = 1 if watched else max(1, allowed // len(images))
    if len(ordered) <= most:
        return [ordered]
    rest = ordered[1:]
    return [ordered[:1], *(rest[start : start + most] for start in range(0, len(rest), most))]


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
