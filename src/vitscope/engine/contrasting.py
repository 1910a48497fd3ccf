"""The work of a contrast: several subjects read on the same batches, and their changes from the first."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from safetensors.torch import load, save
from typing_extensions import override

from vitscope.data import Broken, Images
from vitscope.data.batch import Batch
from vitscope.engine.reading.activation import ActivationKind, Workspace
from vitscope.engine.reading.diagnostic import AnyDiagnostic, differences
from vitscope.engine.reading.finite import merge_wanting
from vitscope.engine.reading.fold import Means, Observations
from vitscope.engine.reading.jackknife import empty_groups, update_groups
from vitscope.engine.reading.scores import Scores
from vitscope.engine.reading.shard import (
    BatchReading,
    ShardResult,
    batch_shards,
    present_classes,
    read_batch,
)
from vitscope.engine.work.work import AbstractImagesResult, AbstractSubjectWork, Advance, Amount, Shard
from vitscope.measurement.errors import UserError
from vitscope.models.feed import input_like
from vitscope.models.subject import Subject
from vitscope.models.unit import Place
from vitscope.numerics.precision import to_float64


@dataclass(frozen=True)
class ContrastResult(AbstractImagesResult):
    """A shard's result in a contrast, for each subject.

    ``values`` hold a state for each diagnostic, and the scores. ``changes`` are from the first subject, image by image.
    ``groups`` hold the states of the jackknife's groups, diagnostic by diagnostic.
    """

    values: tuple[ShardResult, ...]
    changes: tuple[ShardResult, ...]
    groups: tuple[ShardResult, ...]

    def merge(self, other: "ContrastResult") -> "ContrastResult":
        """Both shards together."""
        parts = (
            tuple(one.merge(two) for one, two in zip(own, its, strict=True))
            for own, its in zip(self._parts, other._parts, strict=True)
        )
        return ContrastResult(self.images + other.images, self.broken + other.broken, *parts)

    @property
    def _parts(self) -> tuple[tuple[ShardResult, ...], ...]:
        return self.values, self.changes, self.groups

    def to_bytes(self) -> bytes:
        """Safetensors of the parts' own bytes."""
        parts = [part.to_bytes() for several in self._parts for part in several]
        head = json.dumps({"subjects": len(self.values), "images": self.images, "broken": list(map(vars, self.broken))})
        contents = {"head": head.encode(), **{str(number): part for number, part in enumerate(parts)}}
        return save({name: torch.frombuffer(bytearray(one), dtype=torch.uint8) for name, one in contents.items()})

    @classmethod
    def from_bytes(cls, content: bytes) -> "ContrastResult":
        """The result that :meth:`to_bytes` wrote."""
        contents = {name: one.numpy().tobytes() for name, one in load(content).items()}
        head = json.loads(contents["head"])
        parts = [ShardResult.from_bytes(contents[str(number)]) for number in range(3 * head["subjects"])]
        count = head["subjects"]
        several = (tuple(parts[start : start + count]) for start in range(0, len(parts), count))
        return cls(head["images"], tuple(Broken(**one) for one in head["broken"]), *several)


@dataclass
class _Tally:
    """A subject's states while a shard is folded."""

    values: list[Means]
    changes: list[Means]
    groups: list[tuple[Means, ...]]


@dataclass(frozen=True)
class ContrastWork(AbstractSubjectWork[ContrastResult]):
    """Subjects on the same images: first ``subject``, then ``others``, each with the images fitted to it."""

    others: tuple[Subject, ...]
    images_of_others: tuple[Images, ...]
    diagnostics: tuple[AnyDiagnostic, ...]
    batch_size: int

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """All subjects, the first one first."""
        return (self.subject, *self.others)

    @cached_property
    def alike(self) -> tuple[bool, ...]:
        """Whether each subject has the units of the first, in kind and place, so that layers mean the same."""
        return tuple(_plan(subject.places) == _plan(self.subject.places) for subject in self.subjects)

    def shards(self) -> tuple[Shard, ...]:
        """A few batches each."""
        return batch_shards(self.images.batch_count(self.batch_size))

    def passes(self, shard: Shard) -> Amount:
        """A pass through every subject."""
        del shard
        return len(self.subjects)

    @override
    def read(self, content: bytes) -> ContrastResult:
        return ContrastResult.from_bytes(content)

    def diagnostic_numbers(self, place: int) -> list[int]:
        """The numbers of the diagnostics measured on subject ``place``: those that mean the same as on the first."""
        alike = self.alike[place] and (place > 0 or any(self.alike[1:]))
        return [i for i, one in enumerate(self.diagnostics) if alike or one.reads is ActivationKind.PREDICTIONS]

    def fold(self, shard: Shard, advance: Advance) -> ContrastResult:
        """Each subject's states, its changes from the first, and the states of the jackknife's groups."""
        kinds = len(self.diagnostics)
        groups = [empty_groups(len(self.images)) if one.nonlinear else () for one in self.diagnostics]
        tallies = [_Tally([Means()] * kinds, [Means()] * kinds, list(groups)) for _ in self.subjects]
        found: list[list[BatchReading]] = [[] for _ in self.subjects]
        seen, broken, workspaces = 0, list[Broken](), [Workspace() for _ in self.subjects]
        for batches in self._batches(shard):
            first: Sequence[Observations] = ()
            for place, batch in enumerate(batches):
                if len(batch.indices):
                    reading = self._read(place, batch, workspaces[place])
                    found[place].append(reading)
                    first = first if place else reading.observations
                    self._update(tallies[place], reading.observations, first if place else None, batch)
                advance(len(batch.indices) + len(batch.broken))
            seen += len(batches[0].indices)
            broken.extend(batches[0].broken)
        values = (
            ShardResult(
                seen, (), tuple(one.values), _scores(each), merge_wanting(w for part in each for w in part.wanting)
            )
            for one, each in zip(tallies, found, strict=True)
        )
        changes = (ShardResult(seen, (), tuple(one.changes)) for one in tallies)
        grouped = (ShardResult(seen, (), tuple(g for several in one.groups for g in several)) for one in tallies)
        return ContrastResult(seen, tuple(broken), tuple(values), tuple(changes), tuple(grouped))

    def groups(self, result: ContrastResult, index: int) -> list[Sequence[Means]]:
        """For each subject, the states of the jackknife's groups of a nonlinear diagnostic."""
        size = len(empty_groups(len(self.images)))
        start = size * sum(bool(one.nonlinear) for one in self.diagnostics[:index])
        return [part.states[start : start + size] for part in result.groups]

    def _batches(self, shard: Shard) -> Iterator[tuple[Batch, ...]]:
        """The batches through each subject's transform; subjects with the same transform and labels share them."""
        sources = [
            (subject.preprocessing.transform, images)
            for subject, images in zip(self.subjects, (self.images, *self.images_of_others), strict=True)
        ]
        keys = [tuple(map(id, source)) for source in sources]
        read = {
            key: images.batches(transform, self.batch_size, shard.start, shard.stop)
            for key, (transform, images) in zip(keys, sources, strict=True)
        }
        for batches in zip(*read.values(), strict=True):
            made = dict(zip(read, batches, strict=True))
            together = tuple(made[key] for key in keys)
            if any(not torch.equal(one.indices, together[0].indices) for one in together):
                raise UserError(
                    f"Some images of {self.images.name} can be read for one model and not for another; leave them out."
                )
            yield together

    def _read(self, place: int, batch: Batch, workspace: Workspace) -> BatchReading:
        subject = self.subjects[place]
        images = (self.images, *self.images_of_others)[place]
        present = present_classes(images, subject.class_count, input_like(subject.module).device)
        chosen = [self.diagnostics[index] for index in self.diagnostic_numbers(place)]
        reading = read_batch(subject, images, batch, chosen, present, workspace)
        observations: list[Observations] = [{} for _ in self.diagnostics]
        for index, seen in zip(self.diagnostic_numbers(place), reading.observations, strict=True):
            observations[index] = seen
        return BatchReading(observations, reading.scores, reading.wanting)

    def _update(
        self, tally: _Tally, seen: Sequence[Observations], first: Sequence[Observations] | None, batch: Batch
    ) -> None:
        """Add a batch; ``first`` holds the first subject's observations, None for that subject itself."""
        for index, diagnostic in enumerate(self.diagnostics):
            tally.values[index] = diagnostic.update(tally.values[index], seen[index])
            if diagnostic.nonlinear:
                count = len(self.images)
                tally.groups[index] = update_groups(tally.groups[index], seen[index], batch.indices, count)
            if first is not None:
                apart = differences(diagnostic, _to_double(seen[index]), _to_double(first[index]))
                tally.changes[index] = diagnostic.update(tally.changes[index], apart)


def _to_double(seen: Observations) -> Observations:
    """The observations in float64 on the CPU, so that differences are not rounded and devices may differ."""
    return {key: to_float64(values).cpu() for key, values in seen.items()}


def _scores(readings: Sequence[BatchReading]) -> Scores | None:
    several = [one for reading in readings for one in reading.scores]
    return Scores.together(several) if several else None


def _plan(places: Sequence[Place]) -> tuple[tuple[object, ...], ...]:
    return tuple((place.kind, place.stage, place.block) for place in places)
