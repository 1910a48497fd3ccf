"""A shard of a pass: some batches of images, folded by every diagnostic at once."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from safetensors.torch import load, save
from torch import Tensor
from typing_extensions import override

from vitscope.data import Broken, Images
from vitscope.data.batch import Batch
from vitscope.engine.reading.activation import (
    ActivationKind,
    AttentionRows,
    Every,
    FeatureMap,
    Geometry,
    Predictions,
    Workspace,
)
from vitscope.engine.reading.diagnostic import AnyDiagnostic
from vitscope.engine.reading.failure import report_failures
from vitscope.engine.reading.finite import Wanting, merge_wanting, unpredicting, wanting
from vitscope.engine.reading.fold import Means, Observations, Slot
from vitscope.engine.reading.scores import Scores
from vitscope.engine.work.work import AbstractImagesResult, AbstractSubjectWork, Advance, Shard
from vitscope.models.attention import Attention
from vitscope.models.feed import input_like
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractObserver, Subject
from vitscope.models.unit import Place, UnitKind
from vitscope.numerics.moments import Moments
from vitscope.numerics.precision import at_least_float32

CHUNK = 1 << 20
"""Attention weights computed at a time: few enough to stay in the cache, many enough to keep two cores busy."""


BATCHES_PER_SHARD = 4


@dataclass(frozen=True)
class ShardResult(AbstractImagesResult):
    """A shard's result: the images seen, those left out, and a state for each diagnostic.

    ``scores`` are the model's predictions for each image, and ``wanting`` the images with numbers that are not finite.
    ``silent`` counts, for each of several walks, the images whose logits predict nothing.
    """

    states: tuple[Means, ...]
    scores: Scores | None = None
    wanting: tuple[Wanting, ...] = ()
    silent: tuple[int, ...] = ()

    def merge(self, other: "ShardResult") -> "ShardResult":
        """Both shards together."""
        states = tuple(one.merge(two) for one, two in zip(self.states, other.states, strict=True))
        scores = [one for one in (self.scores, other.scores) if one is not None]
        return ShardResult(
            self.images + other.images,
            self.broken + other.broken,
            states,
            Scores.together(scores) if scores else None,
            merge_wanting((*self.wanting, *other.wanting)),
            tuple(map(sum, zip_longest(self.silent, other.silent, fillvalue=0))),
        )

    def to_bytes(self) -> bytes:
        """Safetensors, with the slots and counts as JSON in the tensor ``head``."""
        tensors: dict[str, Tensor] = {} if self.scores is None else self.scores.tensors
        for index, state in enumerate(self.states):
            if state.moments is not None:
                tensors |= {f"{index}.{name}": value for name, value in vars(state.moments).items()}
        slots = [[asdict(slot) for slot in state.slots] for state in self.states]
        broken = [asdict(broken) for broken in self.broken]
        wanting = [asdict(one) for one in self.wanting]
        counts = {"images": self.images, "silent": self.silent}
        head = json.dumps({**counts, "slots": slots, "broken": broken, "wanting": wanting})
        return save(tensors | {"head": torch.tensor(list(head.encode()), dtype=torch.uint8)})

    @classmethod
    def from_bytes(cls, content: bytes) -> "ShardResult":
        """The result that :meth:`to_bytes` wrote."""
        tensors = load(content)
        head = json.loads(bytes(tensors["head"].tolist()))
        states: list[Means] = []
        for index, stored in enumerate(head["slots"]):
            slots = tuple(Slot(s["layer"], s["quantity"], tuple(s["shape"]), s["start"]) for s in stored)
            parts = [tensors[f"{index}.{name}"] for name in ("count", "mean", "squares") if slots]
            states.append(Means(slots, Moments(*parts)) if slots else Means())
        broken = tuple(Broken(**one) for one in head["broken"])
        wanting = tuple(Wanting(**one) for one in head["wanting"])
        scores, silent = Scores.from_tensors(tensors), tuple(head["silent"])
        return cls(head["images"], broken, tuple(states), scores, wanting, silent)


@dataclass(frozen=True)
class Pass(AbstractSubjectWork[ShardResult]):
    """One pass of a subject over images, watched by diagnostics."""

    diagnostics: tuple[AnyDiagnostic, ...]
    batch_size: int

    def shards(self) -> tuple[Shard, ...]:
        """A few batches each."""
        return batch_shards(self.images.batch_count(self.batch_size))

    @override
    def read(self, content: bytes) -> ShardResult:
        return ShardResult.from_bytes(content)

    def fold(self, shard: Shard, advance: Advance) -> ShardResult:
        """One shard's states; ``advance`` is called with the number of images after each batch."""
        device = input_like(self.subject.module).device
        states = [diagnostic.init() for diagnostic in self.diagnostics]
        present = present_classes(self.images, self.subject.class_count, device)
        seen, workspace = 0, Workspace()
        broken, scores, wanted = list[Broken](), list[Scores](), list[Wanting]()
        for batch in self.images.batches(
            self.subject.preprocessing.transform, self.batch_size, shard.start, shard.stop
        ):
            broken.extend(batch.broken)
            if len(batch.indices):
                found = read_batch(self.subject, self.images, batch, self.diagnostics, present, workspace)
                scores.extend(found.scores)
                wanted.extend(found.wanting)
                states = [d.update(s, o) for d, s, o in zip(self.diagnostics, states, found.observations, strict=True)]
                seen += len(batch.indices)
            advance(len(batch.indices) + len(batch.broken))
        return ShardResult(
            seen, tuple(broken), tuple(states), Scores.together(scores) if scores else None, merge_wanting(wanted)
        )


@dataclass(frozen=True, eq=False)
class BatchReading:
    """What was seen of a batch: each diagnostic's numbers per image, the scores, and images with non-finite ones."""

    observations: Sequence[Observations]
    scores: tuple[Scores, ...]
    wanting: tuple[Wanting, ...]


def read_batch(
    subject: Subject,
    images: Images,
    batch: Batch,
    diagnostics: Sequence[AnyDiagnostic],
    present: Tensor | None,
    workspace: Workspace,
) -> BatchReading:
    """Walk the subject once over a batch that is not empty; ``present`` is from :func:`present_classes`."""
    reading = Reading(diagnostics, subject.places, (batch.pixels.shape[2], batch.pixels.shape[3]), workspace)
    scores: tuple[Scores, ...] = ()
    with torch.no_grad(), report_failures(subject, images, batch):
        logits = subject.anatomy.walk(batch.pixels.to(input_like(subject.module).device), reading)
        if batch.labels is not None and subject.class_count:
            said = predictions(batch, logits, present)
            reading.predictions(said)
            scores = (Scores.of(batch, said),)
    spoiled = reading.saw_unfinite or bool(unpredicting(logits, subject.class_count).any())
    return BatchReading(reading.results(), scores, wanting(subject, images, batch) if spoiled else ())


def predictions(batch: Batch, logits: Float[Tensor, "batch classes"], present: Tensor | None) -> Predictions:
    """The logits together with the batch's labels."""
    assert batch.labels is not None, "predictions are read only with labels"
    targets = None if batch.targets is None else batch.targets.to(logits.device)
    return Predictions(logits, batch.labels.to(logits.device), present, targets)


def batch_shards(batches: int, block: int = 0) -> tuple[Shard, ...]:
    """The batches in shards of a few each."""
    starts = range(0, batches, BATCHES_PER_SHARD)
    return tuple(Shard(start, min(start + BATCHES_PER_SHARD, batches), block) for start in starts)


def present_classes(images: Images, class_count: int, device: torch.device) -> Int[Tensor, " present"] | None:
    """The classes that occur among the images; None if all do, or fewer than two."""
    classes = torch.tensor(sorted(set([] if images.labels is None else images.labels.tolist())))
    return classes.long().to(device) if 1 < len(classes) < class_count else None


@dataclass
class Reading(AbstractObserver):
    """The observer of one batch: hands each activation to the diagnostics that read its kind."""

    diagnostics: Sequence[AnyDiagnostic]
    places: Sequence[Place]
    image: tuple[int, int]
    workspace: Workspace
    _stream: Stream | None = None
    _seen: dict[tuple[int, int, str], list[Tensor]] = field(default_factory=dict)
    _sums: list[Tensor] = field(default_factory=list)

    def fork(self) -> "Reading":
        """A copy that continues independently from here."""
        return replace(self, _seen={key: list(pieces) for key, pieces in self._seen.items()})

    def stream(self, layer: int, stream: Stream) -> None:
        """Feed the feature map to the diagnostics that read one; a mere rearrangement makes no new one.

        If tokens were removed, the patches no longer fill the grid, and neither they nor their attention are fed.
        """
        self._stream = stream
        self._sums.append(stream.values.sum(dtype=torch.float32))
        if stream.kept is not None or (layer and self.places[layer - 1].kind is UnitKind.REARRANGEMENT):
            return
        features = FeatureMap.of(stream)
        self._feed(
            ActivationKind.FEATURES,
            layer,
            features,
            (Every.UNIT, Every.BLOCK) if self._ends_block(layer) else (Every.UNIT,),
        )
        if not stream.follows:
            self._forget_changes(layer)

    def _forget_changes(self, layer: int) -> None:
        """Mark every change across the unit as not observed, since it spans more than the unit."""
        for index, diagnostic in enumerate(self.diagnostics):
            for quantity, change in diagnostic.changes.items():
                seen = self._seen.get((index, layer, quantity))
                if seen is not None:
                    self._seen[index, layer, change] = [torch.full_like(values, torch.nan) for values in seen]

    def _ends_block(self, layer: int) -> bool:
        here, after = self.places[max(layer - 1, 0)], self.places[layer : layer + 1]
        return layer == 0 or not after or (here.stage, here.block) != (after[0].stage, after[0].block)

    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        """Feed the attention weights, a few images at a time, to the diagnostics that read them; returns the context.

        If no diagnostic reads them, or tokens were removed, the context is the fused kernel's.
        """
        assert self._stream is not None, "a walk shows the stem's stream before any attention"
        readers = any(diagnostic.reads is ActivationKind.ATTENTION for diagnostic in self.diagnostics)
        if self._stream.kept is not None or not readers:
            return attention.context()
        norms = torch.linalg.vector_norm(at_least_float32(self._stream.tokens), dim=-1)
        own, attention = attention.queries.dtype, attention.full()
        geometry = Geometry.of(attention, self.image)
        step = max(1, CHUNK // (attention.queries.shape[1:-1].numel() * attention.keys.shape[-2]))
        contexts: list[Tensor] = []
        for start in range(0, attention.queries.shape[0], step):
            part = attention.images(start, start + step)
            rows = AttentionRows(part, norms[start : start + step], geometry, self.workspace)
            self._feed(ActivationKind.ATTENTION, layer, rows)
            contexts.append(rows.context.to(own))
        return torch.cat(contexts)

    @property
    def saw_unfinite(self) -> bool:
        """Whether some sum over a layer's values is not finite, so that one of them may not be."""
        return bool(self._sums) and not bool(torch.stack(self._sums).isfinite().all())

    def predictions(self, predictions: Predictions) -> None:
        """Feed the predictions, at layer 0 since a model has them only once."""
        self._feed(ActivationKind.PREDICTIONS, 0, predictions)

    def results(self) -> list[dict[tuple[int, str], Tensor]]:
        """The batch's numbers, for each diagnostic."""
        results: list[dict[tuple[int, str], Tensor]] = [{} for _ in self.diagnostics]
        for (index, layer, quantity), pieces in self._seen.items():
            results[index][layer, quantity] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return results

    def _feed(
        self,
        kind: ActivationKind,
        layer: int,
        activation: FeatureMap | AttentionRows | Predictions,
        every: tuple[Every, ...] = (Every.UNIT,),
    ) -> None:
        for index, diagnostic in enumerate(self.diagnostics):
            if diagnostic.reads is kind and diagnostic.every in every:
                for quantity, values in diagnostic.observe(cast(Any, activation)).items():
                    self._seen.setdefault((index, layer, quantity), []).append(values)
