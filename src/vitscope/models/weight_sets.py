"""Sets of weights in a file: which of them fit a model, which are averages, and which of several to take."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vitscope.measurement.errors import UserError

_TRANSPARENT = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts that wrappers insert anywhere into names: ``torch.compile``, sharding, activation checkpoints."""
_OPTIMISERS = re.compile(r"optim|sched|scaler|callback|(?<![a-z])(rng|loops|grads?)(?![a-z])", re.IGNORECASE)
"""Keys whose contents are not a model's weights, even if they have the same names."""
_AVERAGES = re.compile(r"(?<![a-z])(ema|swa|avg|averaged?|averaging|polyak|shadow)(?![a-z])")
"""Names of averages of weights."""
_DEEP = 4
"""Levels of nested mappings that are searched for weights."""


@dataclass(frozen=True)
class TensorGroup:
    """All tensors of one mapping of a file, by their names there, and the keys that lead to it."""

    path: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    averaged: bool = False
    """Whether the file marks these as averages by other means than a name."""


@dataclass(frozen=True)
class WeightSet:
    """Weights by a model's own names, and where in a file they were found."""

    group: TensorGroup
    prefix: str
    """The prefix of their names in the file, which the model's names lack."""
    names: Mapping[str, str]
    """From each name without the prefix to the name in the file."""
    lent: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Buffers taken from another set of the file, because averages of parameters are saved without them."""

    @property
    def state(self) -> dict[str, Tensor]:
        """The tensors by their names without the prefix."""
        return {name: self.group.tensors[there] for name, there in self.names.items()} | dict(self.lent)

    @property
    def words(self) -> tuple[str, ...]:
        """The keys and the parts of the prefix that lead to it."""
        return (*self.group.path, *filter(None, self.prefix.split(".")))

    @property
    def label(self) -> str:
        """Its place in the file, as a path of keys."""
        return ".".join(self.words) or "its top level"

    @property
    def dropped_parts(self) -> tuple[str, ...]:
        """The parts that wrappers inserted into the names, besides the prefix."""
        parts = {part for here, there in self.names.items() for part in _surplus(there, self.prefix + here)}
        return tuple(sorted(parts))

    @property
    def averaged(self) -> bool:
        """Whether the file calls them an average, or has a counter of averaged steps beside them."""
        counted = self.prefix.removesuffix("module.") + "n_averaged"
        inside = self.prefix.endswith("module.") and counted in self.group.tensors
        return self.group.averaged or inside or is_average(self.label)

    @property
    def beside(self) -> tuple[str, ...]:
        """Names in the same mapping that are not in this set."""
        taken = set(self.names.values())
        return tuple(name for name in self.group.tensors if name not in taken)


def is_average(words: str) -> bool:
    """Whether these words name an average."""
    return _AVERAGES.search(re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", words).lower()) is not None


def groups_of(data: Mapping[Any, object]) -> tuple[TensorGroup, ...]:
    """Every mapping in a file that holds tensors, except optimisers'; the outermost first."""
    found = tuple(_groups(data, ()))
    if "averaging_state" in data and "current_model_state" in data:  # Lightning's averaging swaps them when it saves
        return tuple(TensorGroup(one.path, one.tensors, one.path == ("state_dict",)) for one in found)
    return found


def _groups(data: Mapping[Any, object], path: tuple[str, ...]) -> Iterator[TensorGroup]:
    tensors = {name: one for name, one in data.items() if isinstance(name, str) and isinstance(one, Tensor)}
    if tensors:
        yield TensorGroup(path, tensors)
    if len(path) < _DEEP:
        for key, inner in data.items():
            if isinstance(key, str) and isinstance(inner, Mapping) and not _OPTIMISERS.search(key):
                yield from _groups(inner, (*path, key))


def fitting_sets(groups: Sequence[TensorGroup], wanted: Sequence[str]) -> tuple[WeightSet, ...]:
    """The sets that have every one of the ``wanted`` names under one prefix; counters of batches may be missing."""
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    found: list[WeightSet] = []
    for group in groups:
        for kept in dict.fromkeys((_TRANSPARENT, _TRANSPARENT | {"module"})):
            sets = list(_behind_prefixes(group, _plain(group, kept), needed)) if needed else []
            if sets:
                found += sets
                break
    return tuple(found)


def _plain(group: TensorGroup, dropped: frozenset[str]) -> dict[str, str]:
    """Names without the parts that wrappers inserted, mapped to names in the file; unchanged if two would collide."""
    plain = {".".join(part for part in name.split(".") if part not in dropped): name for name in group.tensors}
    return plain if len(plain) == len(group.tensors) else {name: name for name in group.tensors}


def _surplus(long: str, short: str) -> list[str]:
    """The parts of the longer name that the shorter lacks."""
    rest = Counter(long.split("."))
    rest.subtract(short.split("."))
    return list(rest.elements())


def _behind_prefixes(group: TensorGroup, plain: Mapping[str, str], needed: Sequence[str]) -> Iterator[WeightSet]:
    anchor = max(needed, key=lambda name: (name.count("."), len(name)))
    prefixes = [name.removesuffix(anchor) for name in plain if name.endswith(anchor)]
    for prefix in prefixes:
        if (not prefix or prefix.endswith(".")) and all(prefix + name in plain for name in needed):
            names = {name[len(prefix) :]: there for name, there in plain.items() if name.startswith(prefix)}
            yield WeightSet(group, prefix, names)


def candidate(group: TensorGroup, own: Mapping[str, Tensor]) -> WeightSet:
    """The part of a group that may be a model's weights under names of an earlier version.

    It lies under the longest prefix that none of the model's ``own`` names begins with, and that alone holds more than
    half as many numbers as the model has.
    """
    plain = _plain(group, _TRANSPARENT)
    heads = {name.partition(".")[0] for name in own}
    needed, prefix = sum(one.numel() for one in own.values()) / 2, ""
    while True:
        below: Counter[str] = Counter()
        for name, there in plain.items():
            head, dot, _ = name.removeprefix(prefix).partition(".")
            if name.startswith(prefix) and dot:
                below[head] += group.tensors[there].numel()
        enough = [head for head, numbers in below.items() if numbers > needed]
        if heads & below.keys() or len(enough) != 1:
            break
        prefix += f"{enough[0]}."
    names = {name.removeprefix(prefix): there for name, there in plain.items() if name.startswith(prefix)}
    return WeightSet(group, prefix, names)


def only(group: TensorGroup) -> WeightSet:
    """All of a group's tensors, without the parts of their names that wrappers inserted."""
    plain = _plain(group, _TRANSPARENT)
    prefix = "module." if all(name.startswith("module.") for name in plain) else ""
    return WeightSet(group, prefix, {name.removeprefix(prefix): there for name, there in plain.items()})


def choose_set(file: str, sets: Sequence[WeightSet], average: bool | None, part: str | None) -> WeightSet:
    """The set to take: the averaged one if there is one, unless ``average`` or ``part`` say otherwise.

    ``part`` is a key or a part of the prefix that leads to it. Raises ``UserError`` if several different sets are left,
    or none.
    """
    within = [one for one in sets if part is None or part == one.label or part in one.words]
    if not within:
        raise UserError(f"{file} has no weights under {part!r} that fit; those that fit: {_list(sets)}.")
    averaged, raw = [one for one in within if one.averaged], [one for one in within if not one.averaged]
    if average and not averaged:
        raise UserError(f"{file} holds no averaged weights that fit (what fits: {_list(within)}); leave out --ema.")
    if average is False and not raw:
        raise UserError(f"{file} holds only averaged weights ({_list(within)}); leave out --raw.")
    left = raw if average is False or not averaged else averaged
    if any(not _same(left[0], other) for other in left[1:]):
        words = " or ".join(f"--part {_part(one, left)}" for one in left[:4])
        raise UserError(f"{file} holds {len(left)} sets of weights that fit ({_list(left)}); choose one: {words}.")
    return left[0]


def _same(one: WeightSet, other: WeightSet) -> bool:
    """Whether two sets are the same weights, saved under two names."""
    first, second = one.state, other.state
    return first.keys() == second.keys() and all(
        first[name].shape == second[name].shape
        and (first[name].data_ptr() == second[name].data_ptr() or torch.equal(first[name], second[name]))
        for name in first
    )


def _part(one: WeightSet, among: Sequence[WeightSet]) -> str:
    """A word that only this set's label has."""
    others = {word for other in among if other is not one for word in other.words}
    return next((word for word in one.words if word not in others), one.label)


def _list(sets: Sequence[WeightSet]) -> str:
    return ", ".join(dict.fromkeys(one.label for one in sets[:6]))
