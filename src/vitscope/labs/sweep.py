"""Sweeps: the trials of a lab, or of a grid of its settings, as work that executors carry out chunk by chunk."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any, final

import numpy as np
from safetensors.numpy import load, save

from vitscope.engine.work.work import AbstractResult, AbstractWork, Advance, Shard
from vitscope.labs.lab import AbstractLab, Values


@final
@dataclass(frozen=True, eq=False)
class Chunk(AbstractResult):
    """The results of a chunk of trials."""

    values: Values

    @property
    def done(self) -> int:
        """The number of its trials."""
        return len(next(iter(self.values.values())))

    def to_bytes(self) -> bytes:
        """The values as safetensors."""
        return save({name: np.ascontiguousarray(values) for name, values in self.values.items()})


@final
@dataclass(frozen=True)
class Sweep(AbstractWork[Chunk]):
    """The trials of every variant of a lab. A shard is a chunk: trials of one form that are trained in one computation.

    The chunks depend on the lab alone, so results are the same whichever executor carries out which chunk. A chunk is
    stored as soon as it is done: an interrupt or a worker's death costs the chunks in progress, each of at most
    ``at_once`` trials.
    """

    variants: tuple[AbstractLab[Any], ...]

    def shards(self) -> tuple[Shard, ...]:
        """The chunks of every variant (a block), the most expensive first, so that no worker is left with one."""
        costs: dict[Shard, float] = {}
        for block, lab in enumerate(self.variants):
            trials = lab.plan_trials()
            for shard in _chunks([lab.form(one) for one in trials], lab.at_once, block):
                costs[shard] = sum(map(lab.cost, trials[shard.start : shard.stop]))
        return tuple(sorted(costs, key=lambda shard: costs[shard], reverse=True))

    def fold(self, shard: Shard, advance: Advance) -> Chunk:
        """Train a chunk, then report its trials to ``advance``."""
        lab = self.variants[shard.block]
        trials = lab.plan_trials()[shard.start : shard.stop]
        found = {name: np.asarray(values, dtype=np.float64) for name, values in lab.run_trials(trials).items()}
        wrong = {name: values.shape for name, values in found.items() if values.shape[:1] != (len(trials),)}
        if wrong:
            raise ValueError(f"{lab.name} must give one value for each of {len(trials)} trials, not {wrong}.")
        advance(len(trials))
        return Chunk(found)

    def read(self, content: bytes) -> Chunk:
        """The chunk that ``to_bytes`` wrote."""
        return Chunk(load(content))


def _chunks(forms: list[object], at_once: int, block: int) -> list[Shard]:
    """Runs of equal forms, cut into chunks of at most ``at_once``."""
    shards: list[Shard] = []
    start = 0
    for _, run in groupby(forms):
        stop = start + len(list(run))
        shards += [Shard(one, min(one + at_once, stop), block) for one in range(start, stop, at_once)]
        start = stop
    return shards
