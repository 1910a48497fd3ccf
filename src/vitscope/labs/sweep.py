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
    """What a chunk of trials came to."""

    values: Values

    @property
    def done(self) -> int:
        """Its trials."""
        return len(next(iter(self.values.values())))

    def to_bytes(self) -> bytes:
        """Safetensors."""
        return save({name: np.ascontiguousarray(values) for name, values in self.values.items()})


@final
@dataclass(frozen=True)
class Sweep(AbstractWork[Chunk]):
    """The trials of every variant of a lab. A shard is a chunk: trials of one form that are trained in one computation.

    Which trials are a chunk depends on the lab alone, so that results are the same whoever carries out which of them.
    A chunk is kept as soon as it is done: an interrupt or a worker's death costs the chunks under way, each of at most
    ``at_once`` trials.
    """

    variants: tuple[AbstractLab[Any], ...]

    def shards(self) -> tuple[Shard, ...]:
        """The chunks of every variant, which is a block: the dearest first, so that no worker ends with one alone."""
        costs: dict[Shard, float] = {}
        for block, lab in enumerate(self.variants):
            trials = lab.plan_trials()
            for shard in _chunks([lab.form(one) for one in trials], lab.at_once, block):
                costs[shard] = sum(map(lab.cost, trials[shard.start : shard.stop]))
        return tuple(sorted(costs, key=lambda shard: costs[shard], reverse=True))

    def fold(self, shard: Shard, advance: Advance) -> Chunk:
        """Train a chunk; ``advance`` is told of its trials when they are all done."""
        lab = self.variants[shard.block]
        trials = lab.plan_trials()[shard.start : shard.stop]
        found = {name: np.asarray(values, dtype=np.float64) for name, values in lab.run_trials(trials).items()}
        wrong = {name: values.shape for name, values in found.items() if values.shape[:1] != (len(trials),)}
        if wrong:
            raise ValueError(f"{lab.name} gave values that are not one for each of {len(trials)} trials: {wrong}.")
        advance(len(trials))
        return Chunk(found)

    def read(self, content: bytes) -> Chunk:
        """The chunk whose ``to_bytes`` these are."""
        return Chunk(load(content))


def _chunks(forms: list[object], at_once: int, block: int) -> list[Shard]:
    """Runs of equal forms, cut where they are longer than ``at_once``."""
    shards: list[Shard] = []
    start = 0
    for _, run in groupby(forms):
        stop = start + len(list(run))
        shards += [Shard(one, min(one + at_once, stop), block) for one in range(start, stop, at_once)]
        start = stop
    return shards
