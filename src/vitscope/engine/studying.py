"""The work of a study: the intact subject and every setting of a grid on the same batches, each made only once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from math import prod

import torch
from typing_extensions import override

from vitscope.data.batch import Batch
from vitscope.engine.grid import Setting
from vitscope.engine.reading.activation import Workspace
from vitscope.engine.reading.diagnostic import AnyDiagnostic, differences
from vitscope.engine.reading.failure import report_failures
from vitscope.engine.reading.finite import Wanting, merge_wanting, unpredicting, wanting
from vitscope.engine.reading.fold import Means, Observations
from vitscope.engine.reading.shard import (
    BATCHES_PER_SHARD,
    Reading,
    ShardResult,
    batch_shards,
    predictions,
    present_classes,
)
from vitscope.engine.reading.together import cost_together, walk_together
from vitscope.engine.work.work import AbstractSubjectWork, Advance, Amount, Shard
from vitscope.models.feed import input_like
from vitscope.models.subject import Composition, Subject

WALKS_PER_BLOCK = 128
"""At most this many settings that share a module are walked together."""
HELD = 256 * 2**20
"""Bytes of pixels that a worker caches while it reads one changed subject after another on them."""

_Seen = tuple[list[list[Observations]], list[int]]
"""For each subject, what every diagnostic sees of a batch, and how many images' logits predict nothing."""


@dataclass
class _AtHand:
    """A worker's cache between shards: a stretch's batches, the intact subject's numbers, one block's subjects."""

    stretch: int = -1
    batches: dict[int, list[Batch]] = field(default_factory=dict[int, list[Batch]])
    intact: dict[int, list[_Seen]] = field(default_factory=dict[int, list[_Seen]])
    block: int = -1
    subjects: tuple[Subject, ...] = ()


@dataclass(frozen=True)
class StudyWork(AbstractSubjectWork[ShardResult]):
    """All settings of a study on the images, in blocks; a block's result has the intact subject's states first.

    Settings that share the subject's module are grouped into blocks and walk together. A setting with its own weights
    is a block of its own. Such blocks are done stretch by stretch of the images, a stretch holding :data:`HELD` bytes
    of pixels: on each stretch a worker makes each changed subject once, decodes the images once, and reads the intact
    subject once. Memory: one changed subject at a time, and the pixels of a stretch.
    """

    settings: tuple[Setting, ...]
    diagnostics: tuple[AnyDiagnostic, ...]
    batch_size: int

    @cached_property
    def blocks(self) -> tuple[tuple[Setting, ...], ...]:
        """Settings that are done together: those that share the subject's module, and each of the others separately."""
        blocks: list[list[Setting]] = []
        for setting in self.settings:
            light = not changes_weights(setting)
            if light and blocks and len(blocks[-1]) < WALKS_PER_BLOCK and not changes_weights(blocks[-1][0]):
                blocks[-1].append(setting)
            else:
                blocks.append([setting])
        return tuple(map(tuple, blocks))

    def shards(self) -> tuple[Shard, ...]:
        """A few batches each: first the blocks of settings that walk together, then the others stretch by stretch."""
        count, step = self.images.batch_count(self.batch_size), self._stretch * BATCHES_PER_SHARD
        numbers = range(len(self.blocks))
        light = [shard for block in numbers if not self._is_heavy(block) for shard in batch_shards(count, block)]
        heavy = [
            shard
            for start in range(0, count, step)
            for block in numbers
            if self._is_heavy(block)
            for shard in batch_shards(count, block)
            if start <= shard.start < start + step
        ]
        return (*light, *heavy)

    @cached_property
    def _stretch(self) -> int:
        """How many shards' pixels a worker caches."""
        shard = BATCHES_PER_SHARD * self.batch_size * 4 * prod(self.subject.preprocessing.shape)
        return max(1, HELD // shard)

    @cached_property
    def costs(self) -> tuple[Amount, ...]:
        """What each block costs an image, in forward passes; the intact subject is read with the first one."""
        return tuple(
            1 + (number == 0) if self._is_heavy(number) else cost_together((self.subject, *self._subjects(number)))
            for number in range(len(self.blocks))
        )

    def passes(self, shard: Shard) -> Amount:
        """The block's cost per image; what its settings and the intact subject have in common counts once."""
        return self.costs[shard.block]

    @override
    def read(self, content: bytes) -> ShardResult:
        return ShardResult.from_bytes(content)

    def fits(self, shard: Shard, result: ShardResult) -> bool:
        """Whether the result has as many settings as the block."""
        return len(result.silent) == len(self.blocks[shard.block]) + 1

    def fold(self, shard: Shard, advance: Advance) -> ShardResult:
        """For the intact subject, then every setting: each diagnostic's state, and that of its changes."""
        heavy = self._is_heavy(shard.block)
        batches = self._batches_at_hand(shard) if heavy else self._batches(shard)
        states = [[(Means(), Means()) for _ in self.diagnostics] for _ in range(len(self.blocks[shard.block]) + 1)]
        wanted, quiet = list[Wanting](), [0] * len(states)
        for number, batch in enumerate(batches):
            with report_failures(self.subject, self.images, batch):
                seen, silent = self._see_heavy(shard, number, batch) if heavy else self._see_light(shard, batch)
            if silent[0] and shard.block == 0:
                wanted.extend(wanting(self.subject, self.images, batch))
            for walk, (found, count) in enumerate(zip(seen, silent, strict=True)):
                quiet[walk] += count
                states[walk] = self._update(states[walk], found, seen[0])
            advance(self.costs[shard.block] * (len(batch.indices) + len(batch.broken)))
        flat = tuple(state for walk in states for pair in walk for state in pair)
        broken = tuple(one for batch in batches for one in batch.broken)
        return ShardResult(sum(map(len, batches)), broken, flat, None, merge_wanting(wanted), tuple(quiet))

    def _is_heavy(self, block: int) -> bool:
        return changes_weights(self.blocks[block][0])

    def _subjects(self, block: int) -> tuple[Subject, ...]:
        """The subjects of a block's settings, made anew when the block changes."""
        hand = self._at_hand
        if hand.block != block:
            hand.block, hand.subjects = -1, ()  # frees the old ones before the next are made
            hand.subjects = tuple(apply_setting(self.subject, setting) for setting in self.blocks[block])
            hand.block = block
        return hand.subjects

    def _see_light(self, shard: Shard, batch: Batch) -> _Seen:
        """The intact subject's numbers, then those of the settings, which are compared with them."""
        return self._observe((self.subject, *self._subjects(shard.block)), batch)

    def _see_heavy(self, shard: Shard, number: int, batch: Batch) -> _Seen:
        """The intact subject's numbers, which may be cached, and those of the block's only setting."""
        known = self._at_hand.intact.setdefault(shard.start, [])
        if len(known) <= number:
            known.append(self._observe((self.subject,), batch))
        seen, silent = self._observe(self._subjects(shard.block), batch)
        intact, quiet = known[number]
        return [*intact, *seen], [*quiet, *silent]

    @cached_property
    def _at_hand(self) -> _AtHand:
        return _AtHand()

    def _batches(self, shard: Shard) -> list[Batch]:
        transform = self.subject.preprocessing.transform
        return list(self.images.batches(transform, self.batch_size, shard.start, shard.stop))

    def _batches_at_hand(self, shard: Shard) -> list[Batch]:
        """The shard's batches, cached until the next stretch begins."""
        hand, stretch = self._at_hand, shard.start // (self._stretch * BATCHES_PER_SHARD)
        if hand.stretch != stretch:
            hand.stretch, hand.batches, hand.intact = stretch, {}, {}
        if shard.start not in hand.batches:
            hand.batches[shard.start] = self._batches(shard)
        return hand.batches[shard.start]

    def _observe(self, subjects: Sequence[Subject], batch: Batch) -> _Seen:
        if not len(batch.indices):
            return [[{} for _ in self.diagnostics] for _ in subjects], [0] * len(subjects)
        device = input_like(self.subject.module).device
        present = present_classes(self.images, self.subject.class_count, device)
        pixels = batch.pixels.to(device)
        with torch.no_grad():
            walked = _walk_all(subjects, pixels, lambda: self._reading(pixels))
            for logits, reading in walked:
                if batch.labels is not None and self.subject.class_count:
                    reading.predictions(predictions(batch, logits, present))
        silent = [int(unpredicting(logits, self.subject.class_count).sum()) for logits, _ in walked]
        return [list(reading.results()) for _, reading in walked], silent

    def _reading(self, pixels: torch.Tensor) -> Reading:
        image = (pixels.shape[2], pixels.shape[3])
        return Reading(self.diagnostics, self.subject.places, image, Workspace())

    def _update(
        self, states: Sequence[tuple[Means, Means]], found: Sequence[Observations], intact: Sequence[Observations]
    ) -> list[tuple[Means, Means]]:
        return [
            (one.update(values, seen), changes.update(differences(one, seen, before)))
            for one, (values, changes), seen, before in zip(self.diagnostics, states, found, intact, strict=True)
        ]


def apply_setting(subject: Subject, setting: Setting) -> Subject:
    """The subject after all interventions of a setting."""
    return reduce(lambda current, intervention: intervention(current), setting, subject)


def changes_weights(setting: Setting) -> bool:
    """Whether the setting needs a module of its own."""
    return any(intervention.changes_weights for intervention in setting)


def _walk_all(
    subjects: Sequence[Subject], pixels: torch.Tensor, reading: Callable[[], Reading]
) -> Sequence[tuple[torch.Tensor, Reading]]:
    anatomies = [subject.anatomy for subject in subjects]
    compositions = [anatomy for anatomy in anatomies if isinstance(anatomy, Composition)]
    if len(compositions) == len(anatomies):
        return walk_together(compositions, pixels, reading)
    walked: list[tuple[torch.Tensor, Reading]] = []
    for anatomy in anatomies:
        own = reading()
        walked.append((anatomy.walk(pixels, own), own))
    return walked
