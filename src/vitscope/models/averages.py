"""Averages that are not a complete set of weights: completed from the raw weights, or reported if they cannot be."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

from torch import Tensor

from vitscope.models.weight_sets import TensorGroup, WeightSet, fitting_sets, is_average

_MOMENTS = re.compile(r"(exp|square|sq|grad)_avg")
"""Names that optimisers give to averages of gradients."""
_DEEP, _MOST = 6, 100
"""Levels of nesting searched for averages, and mappings and lists searched for the tensors of one."""


def complete_averages(
    sets: Sequence[WeightSet], groups: Sequence[TensorGroup], wanted: Sequence[str], buffers: Collection[str]
) -> tuple[WeightSet, ...]:
    """The sets, and averages that lack only ``buffers`` among the ``wanted`` names, completed from the one raw set.

    An average of parameters alone thus replaces the model's parameters, as in the training that made it.
    """
    alone = [one for one in sets if not one.averaged]
    raw = alone[0] if len(alone) == 1 else None
    known = {(one.group.path, one.prefix) for one in sets}
    found = fitting_sets(groups, [name for name in wanted if name not in buffers]) if raw else ()
    more = [one for one in found if one.averaged and (one.group.path, one.prefix) not in known]
    lent = {name: value for name, value in raw.state.items() if name in buffers} if raw else {}
    return (*sets, *(replace(one, lent={n: lent[n] for n in lent.keys() - one.names.keys()}) for one in more))


def averages_in(data: Mapping[str, object], taken: Sequence[WeightSet]) -> tuple[str, ...]:
    """Where a file holds averages in any form (also lists and states of callbacks), apart from the ``taken`` sets."""
    used = {id(one.group.tensors[there]) for one in taken for there in one.names.values()}
    return tuple(dict.fromkeys(_averages(data, (), used, set())))


def _averages(data: object, path: tuple[str, ...], used: Collection[int], seen: set[int]) -> Iterator[str]:
    if len(path) > _DEEP or id(data) in seen:
        return
    seen.add(id(data))
    for key, value in _items(data):
        *above, last = key.split(".")
        words = above if isinstance(value, Tensor) else [*above, last]
        if id(value) not in used and any(is_average(one) and not _MOMENTS.search(one) for one in words):
            if _holds_weights(value, set()):
                yield ".".join((*path, *words))
        else:
            yield from _averages(value, (*path, key), used, seen)


def _items(data: object) -> Iterator[tuple[str, object]]:
    if isinstance(data, Mapping):
        table = cast("Mapping[object, object]", data)
        yield from ((str(key), value) for key, value in table.items())
    elif isinstance(data, list | tuple):
        yield from ((str(place), value) for place, value in enumerate(cast("Sequence[object]", data)))


def _holds_weights(value: object, seen: set[int]) -> bool:
    if isinstance(value, Tensor):
        return value.ndim > 0
    if id(value) in seen or len(seen) > _MOST:
        return False
    seen.add(id(value))
    return any(_holds_weights(inner, seen) for _, inner in _items(value))
