"""Sets of weights in a file: which of them fit a model, which are averages, and which of several is meant."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vitscope.measurement.errors import UserError

_TRANSPARENT = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that wrappers put in at any place: ``torch.compile``, sharding, activation checkpoints."""
_OPTIMISERS = re.compile(r"optim|sched|scaler|callback|(?<![a-z])(rng|loops|grads?)(?![a-z])", re.IGNORECASE)
"""Keys under which nothing is a model's weights, even if it has their names."""
_AVERAGES = re.compile(r"(?<![a-z])(ema|swa|avg|averaged?|averaging|polyak|shadow)(?![a-z])")
"""What averages of weights are called."""
_DEEP = 4
"""Mappings in mappings in which weights are looked for."""


@dataclass(frozen=True)
class TensorGroup:
    """All tensors of one mapping of a file, by their names there, and the keys that lead to it."""

    path: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    averaged: bool = False
    """Whether the file says by other means than a name that these are averages."""


@dataclass(frozen=True)
class WeightSet:
    """Weights by a model's own names, and where in a file they were found."""

    group: TensorGroup
    prefix: str
    """What their names begin with in the file, and none of the model's do."""
    names: Mapping[str, str]
    """From each name without the prefix to the name in the file."""
    lent: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """What it lacks and another set of the file has: buffers, which averages of parameters are saved without."""

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
        """Where it lies, in the words of the file."""
        return ".".join(self.words) or "its top level"

    @property
    def dropped(self) -> tuple[str, ...]:
        """The parts that wrappers had put into the names, besides the prefix."""
        parts = {part for here, there in self.names.items() for part in _surplus(there, self.prefix + here)}
        return tuple(sorted(parts))

    @property
    def averaged(self) -> bool:
        """Whether the file calls them an average, or counts what was averaged beside them."""
        counted = self.prefix.removesuffix("module.") + "n_averaged"
        inside = self.prefix.endswith("module.") and counted in self.group.tensors
        return self.group.averaged or inside or is_average(self.label)

    @property
    def beside(self) -> tuple[str, ...]:
        """Names in the same mapping that are not of this set."""
        taken = set(self.names.values())
        return tuple(name for name in self.group.tensors if name not in taken)


def is_average(words: str) -> bool:
    """Whether what is called so is an average."""
    return _AVERAGES.search(re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", words).lower()) is not None


def groups_of(data: Mapping[Any, object]) -> tuple[TensorGroup, ...]:
    """Every mapping in a file that holds tensors, optimisers' apart; the outermost first."""
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
    """The sets that have every one of the ``wanted`` names behind one prefix; counters of batches may be missing."""
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
    """From each name without the parts that wrappers put in, to the name in the file; as it is where two would meet."""
    plain = {".".join(part for part in name.split(".") if part not in dropped): name for name in group.tensors}
    return plain if len(plain) == len(group.tensors) else {name: name for name in group.tensors}


def _surplus(long: str, short: str) -> list[str]:
    """The parts of the longer name that the shorter has not."""
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
    """What of a group may be a model's weights under names of an earlier version.

    That is what lies behind the longest prefix that none of the model's ``own`` names begins with, and behind which
    alone there are more than half as many numbers as the model has.
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
    """All of a group's tensors, without the parts of their names that wrappers put in at any place."""
    plain = _plain(group, _TRANSPARENT)
    prefix = "module." if all(name.startswith("module.") for name in plain) else ""
    return WeightSet(group, prefix, {name.removeprefix(prefix): there for name, there in plain.items()})


def choose_set(file: str, sets: Sequence[WeightSet], average: bool | None, part: str | None) -> WeightSet:
    """The set that is meant: the averaged one if there is one, unless ``average`` or ``part`` say otherwise.

    ``part`` is a key or a part of the prefix that leads to it. Raises ``UserError`` where several are left that differ,
    and where none is.
    """
    within = [one for one in sets if part is None or part == one.label or part in one.words]
    if not within:
        raise UserError(f"{file} has no weights under {part!r} that fit; those that fit: {_list(sets)}.")
    averaged, raw = [one for one in within if one.averaged], [one for one in within if not one.averaged]
    if average and not averaged:
        raise UserError(f"{file} holds no averaged weights that fit (what fits: {_list(within)}); leave out --ema.")
    if average is False and not raw:
        raise UserError(f"{file} holds averaged weights alone ({_list(within)}); leave out --raw.")
    left = raw if average is False or not averaged else averaged
    if any(not _same(left[0], other) for other in left[1:]):
        words = " or ".join(f"--part {_part(one, left)}" for one in left[:4])
        raise UserError(f"{file} holds {len(left)} sets of weights that fit ({_list(left)}); say which: {words}.")
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
