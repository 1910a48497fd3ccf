"""Parts of a model by which its loss is differentiated: all of it, or its blocks, units or modules one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal

import numpy as np
from torch import Tensor

from vitscope.data.batch import Batch
from vitscope.engine.curvature.hessian import ExplicitAttention, loss_of, weights_of
from vitscope.models.stream import Stream
from vitscope.models.subject import Subject
from vitscope.models.unit import Place

Per = Literal["model", "block", "unit", "module"]


@dataclass(frozen=True)
class WeightPart:
    """Weights that belong together: the part's name, the weights' names, and the part's place in the model.

    ``layer`` is the first unit's (0 for the stem); -1 if the part is not a unit: the whole model, its tail, a module.
    """

    name: str
    weights: tuple[str, ...]
    kind: str
    layer: int = -1
    stage: int = -1
    block: int = -1


def read_part(stored: Mapping[str, Any]) -> WeightPart:
    """The part from its fields as JSON gives them."""
    fields: dict[str, Any] = {**stored, "weights": tuple(stored["weights"])}
    return WeightPart(**fields)


def coordinates(parts: Sequence[WeightPart]) -> dict[str, Any]:
    """The labels of an axis over parts."""
    return {
        "part": np.asarray([part.name for part in parts]),
        "part_kind": ("part", [part.kind for part in parts]),
        "part_layer": ("part", [part.layer for part in parts]),
        "part_stage": ("part", [part.stage for part in parts]),
        "part_block": ("part", [part.block for part in parts]),
    }


def parts_of(subject: Subject, batch: Batch, per: Per) -> tuple[WeightPart, ...]:
    """The parts of a trainable copy; those without weights are left out.

    A weight belongs to the first unit that uses it, according to the loss's graph and not to the modules' names: the
    norm before an attention module is part of the attention unit. What comes before and after the units are the parts
    ``stem`` and ``tail``. Cost: a forward pass if ``per`` is block or unit.
    """
    names = tuple(weights_of(subject))
    if per == "model":
        return (WeightPart("model", names, "model"),)
    if per == "module":
        owned: dict[str, list[str]] = {}
        for name in names:
            owned.setdefault(name.rpartition(".")[0], []).append(name)
        return tuple(WeightPart(module or "(model)", tuple(weights), "module") for module, weights in owned.items())
    units = _units(subject, batch)
    return _distinct(_blocks(units, subject.places) if per == "block" else units)


def part_count(subject: Subject, per: Per) -> int:
    """About how many parts there are; parts without weights are counted too. Cost: none."""
    if per == "module":
        return len({name.rpartition(".")[0] for name, _ in subject.module.named_parameters()})
    places = {(place.stage, place.block) for place in subject.places} if per == "block" else subject.places
    return 1 if per == "model" else len(places) + 2


@dataclass
class _Owners(ExplicitAttention):
    """Records which weights each unit's output is the first to depend on."""

    names: Mapping[int, str]
    owned: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    seen: set[Any] = field(default_factory=set[Any])

    def stream(self, layer: int, stream: Stream) -> None:
        self.claim(layer, stream.values)

    def claim(self, layer: int, values: Tensor) -> None:
        """Assign to the layer all weights that these values depend on and no layer has yet."""
        found = self.owned.setdefault(layer, [])
        left = [values.grad_fn]
        while left:
            node: Any = left.pop()
            if node is None or node in self.seen:
                continue
            self.seen.add(node)
            name = self.names.get(id(getattr(node, "variable", None)))
            if name is not None:
                found.append(name)
            left.extend(following for following, _ in node.next_functions)


def _units(subject: Subject, batch: Batch) -> list[WeightPart]:
    weights = weights_of(subject)
    owners = _Owners({id(weight): name for name, weight in weights.items()})
    loss = loss_of(subject, batch, owners)
    owners.claim(-1, loss)
    order = {name: number for number, name in enumerate(weights)}
    parts: list[WeightPart] = []
    for layer in [*sorted(layer for layer in owners.owned if layer >= 0), -1]:
        names = tuple(sorted(owners.owned[layer], key=order.__getitem__))
        if names and layer > 0:
            place = subject.places[layer - 1]
            parts.append(WeightPart(place.name, names, place.kind.value, layer, place.stage, place.block))
        elif names:
            end = "stem" if layer == 0 else "tail"
            parts.append(WeightPart(end, names, end, layer))
    return parts


def _blocks(units: Sequence[WeightPart], places: Sequence[Place]) -> list[WeightPart]:
    groups: dict[tuple[str, int, int], list[WeightPart]] = {}
    for unit in units:
        own = unit.name if unit.kind in ("stem", "tail") else ""
        groups.setdefault((own, unit.stage, unit.block), []).append(unit)
    blocks: list[WeightPart] = []
    for (own, stage, block), members in groups.items():
        weights = tuple(name for member in members for name in member.weights)
        paths = [place.name.split(".") for place in places if (place.stage, place.block) == (stage, block)]
        common = takewhile(lambda words: len(set(words)) == 1, zip(*paths, strict=False))
        name = own or ".".join(words[0] for words in common) or f"stage {stage}, block {block}"
        kinds = dict.fromkeys(member.kind for member in members)
        blocks.append(WeightPart(name, weights, "+".join(kinds), members[0].layer, stage, block))
    return blocks


def _distinct(parts: Sequence[WeightPart]) -> tuple[WeightPart, ...]:
    """The parts, with the layer added to names that occur more than once."""
    names = [part.name for part in parts]
    return tuple(
        part
        if names.count(part.name) == 1
        else WeightPart(
            f"{part.name} (layer {part.layer})", part.weights, part.kind, part.layer, part.stage, part.block
        )
        for part in parts
    )
