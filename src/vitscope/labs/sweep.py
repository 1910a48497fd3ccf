"""Sweeps: the trials of a lab, or of a grid of its settings, as work that executors carry out chunk by chunk."""

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from safetensors.numpy import load, save
from torch import Tensor, nn

from vitscope.data import Images, images
from vitscope.engine.work import AbstractResult, AbstractWork, Advance, Shard
from vitscope.labs.lab import AbstractLab, Values
from vitscope.measurement.errors import UserError
from vitscope.models.subject import AbstractAnatomy, AbstractObserver, Preprocessing, Subject
from vitscope.models.unit import Place


@final
@dataclass(frozen=True, eq=False)
class Chunk(AbstractResult):
    """What a chunk of trials came to; ``images`` is their number."""

    values: Values

    def to_bytes(self) -> bytes:
        """Safetensors."""
        return save({name: np.ascontiguousarray(values) for name, values in self.values.items()})


@final
@dataclass(frozen=True)
class NoModel(AbstractAnatomy):
    """The anatomy of a subject that is not there: a lab makes its own models."""

    @property
    def places(self) -> tuple[Place, ...]:
        """None."""
        return ()

    def walk(self, images: Float[Tensor, "batch channels height width"], observer: AbstractObserver) -> Tensor:
        """There is nothing to walk through."""
        raise UserError("A lab has no model to walk through: it makes and trains its own.")


def no_subject() -> Subject:
    """The subject of work that has none."""
    return Subject("none", "none", nn.Identity(), NoModel(), Preprocessing((1, 1, 1), _refused, "none"), 0)


def no_images() -> Images:
    """The images of work that has none."""
    return images(np.zeros((1, 1, 1), dtype=np.uint8))


@final
@dataclass(frozen=True, kw_only=True)
class Sweep(AbstractWork[Chunk]):
    """The trials of every variant of a lab. A shard is a chunk: trials of one form that are trained in one computation.

    Which trials are a chunk depends on the lab alone, so that results are the same whoever carries out which of them.
    A chunk is kept as soon as it is done: an interrupt or a worker's death costs the chunks under way, each of at most
    ``at_once`` trials.
    """

    subject: Subject = field(default_factory=no_subject)
    images: Images = field(default_factory=no_images)
    variants: tuple[AbstractLab[Any], ...]

    def shards(self) -> tuple[Shard, ...]:
        """The chunks of each variant in order; a variant is a block."""
        return tuple(
            shard for block, lab in enumerate(self.variants) for shard in _chunks([lab.form(t) for t in lab.planned()],
                                                                                  lab.at_once, block)
        )  # fmt: skip

    def fold(self, shard: Shard, advance: Advance) -> Chunk:
        """Train a chunk; ``advance`` is told of its trials when they are all done."""
        lab = self.variants[shard.block]
        trials = lab.planned()[shard.start : shard.stop]
        found = {name: np.asarray(values, dtype=np.float64) for name, values in lab.carried_out(trials).items()}
        wrong = {name: values.shape for name, values in found.items() if values.shape[:1] != (len(trials),)}
        if wrong:
            raise ValueError(f"{lab.name} gave values that are not one for each of {len(trials)} trials: {wrong}.")
        advance(len(trials))
        return Chunk(len(trials), (), found)

    def read(self, content: bytes) -> Chunk:
        """The chunk whose ``to_bytes`` these are."""
        values = load(content)
        return Chunk(len(next(iter(values.values()))), (), values)


def _chunks(forms: list[object], at_once: int, block: int) -> list[Shard]:
    """Runs of equal forms, cut where they are longer than ``at_once``."""
    shards: list[Shard] = []
    start = 0
    for _, run in groupby(forms):
        stop = start + len(list(run))
        shards += [Shard(one, min(one + at_once, stop), block) for one in range(start, stop, at_once)]
        start = stop
    return shards


def _refused(_: object) -> Float[Tensor, "channels height width"]:
    return torch.zeros(1, 1, 1)
