"""A shard of a pass: some batches of images, folded by every diagnostic at once."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

from vitscope.data import Broken, Images
from vitscope.engine.activation import Every, Features, Geometry, Kind, Predictions, Rows, Workspace
from vitscope.engine.diagnostic import AnyDiagnostic
from vitscope.engine.fold import Means, Slot
from vitscope.models.attention import Attention
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractObserver, Subject
from vitscope.models.unit import Place, UnitKind
from vitscope.numerics.moments import Moments

CHUNK = 1 << 20
"""Attention weights made at a time: few enough to stay in the cache, many enough to keep two cores busy."""


@dataclass(frozen=True)
class Shard:
    """The batches ``start`` to ``stop``."""

    start: int
    stop: int

    @property
    def name(self) -> str:
        """Its file's name among the parts of an unfinished run."""
        return f"shard-{self.start:06d}-{self.stop:06d}.safetensors"


@dataclass(frozen=True)
class ShardResult:
    """What a shard came to: a state for each diagnostic, the images seen and those left out."""

    states: tuple[Means, ...]
    images: int
    broken: tuple[Broken, ...]

    def merge(self, other: "ShardResult") -> "ShardResult":
        """Both shards together."""
        states = tuple(one.merge(two) for one, two in zip(self.states, other.states, strict=True))
        return ShardResult(states, self.images + other.images, self.broken + other.broken)

    def to_bytes(self) -> bytes:
        """Safetensors, the slots and counts in its metadata."""
        tensors: dict[str, Tensor] = {}
        for index, state in enumerate(self.states):
            if state.moments is not None:
                tensors |= {f"{index}.{name}": value for name, value in vars(state.moments).items()}
        slots = [[asdict(slot) for slot in state.slots] for state in self.states]
        broken = [asdict(broken) for broken in self.broken]
        head = json.dumps({"slots": slots, "images": self.images, "broken": broken})
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
        return cls(tuple(states), head["images"], tuple(Broken(**broken) for broken in head["broken"]))


@dataclass(frozen=True)
class Pass:
    """All that folding a shard needs; sent once to every worker."""

    subject: Subject
    images: Images
    diagnostics: tuple[AnyDiagnostic, ...]
    batch_size: int

    def fold(self, shard: Shard, advance: Callable[[int], None]) -> ShardResult:
        """One shard's states; ``advance`` is told the number of images after each batch."""
        device = next(iter(self.subject.module.parameters()), torch.empty(0)).device
        states = [diagnostic.init() for diagnostic in self.diagnostics]
        present = self._present(device)
        seen, broken, workspace = 0, [], Workspace()
        for batch in self.images.batches(
            self.subject.preprocessing.transform, self.batch_size, shard.start, shard.stop
        ):
            broken.extend(batch.broken)
            if len(batch.indices):
                reading = Reading(
                    self.diagnostics, self.subject.places, (batch.pixels.shape[2], batch.pixels.shape[3]), workspace
                )
                with torch.inference_mode():
                    logits = self.subject.anatomy.walk(batch.pixels.to(device), reading)
                    if batch.labels is not None and self.subject.class_count:
                        reading.predictions(Predictions(logits, batch.labels.to(device), present))
                states = [d.update(s, o) for d, s, o in zip(self.diagnostics, states, reading.results(), strict=True)]
                seen += len(batch.indices)
            advance(len(batch.indices) + len(batch.broken))
        return ShardResult(tuple(states), seen, tuple(broken))

    def _present(self, device: torch.device) -> Tensor | None:
        classes = torch.tensor(sorted(set([] if self.images.labels is None else self.images.labels.tolist())))
        return classes.long().to(device) if 1 < len(classes) < self.subject.class_count else None


@dataclass
class Reading(AbstractObserver):
    """The observer of one batch: hands each activation to the diagnostics that read its kind."""

    diagnostics: Sequence[AnyDiagnostic]
    places: Sequence[Place]
    image: tuple[int, int]
    workspace: Workspace
    _stream: Stream | None = None
    _seen: dict[tuple[int, int, str], list[Tensor]] = field(default_factory=dict)

    def stream(self, layer: int, stream: Stream) -> None:
        """Feed the feature map to those who read feature maps; a mere rearrangement makes no new one."""
        self._stream = stream
        if layer and self.places[layer - 1].kind is UnitKind.REARRANGEMENT:
            return
        features = Features.of(stream)
        self._feed(
            Kind.FEATURES, layer, features, (Every.UNIT, Every.BLOCK) if self._ends_block(layer) else (Every.UNIT,)
        )

    def _ends_block(self, layer: int) -> bool:
        here, after = self.places[max(layer - 1, 0)], self.places[layer : layer + 1]
        return layer == 0 or not after or (here.stage, here.block) != (after[0].stage, after[0].block)

    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        """Feed the attention weights, a few images at a time, to those who read them; the context they give.

        Where nobody does, or heads are mixed after the softmax, the context is the fused kernel's or the unit's own.
        """
        if not any(diagnostic.reads is Kind.ATTENTION for diagnostic in self.diagnostics):
            return attention.context()
        assert self._stream is not None, "a walk shows the stem's stream before any attention"
        norms = torch.linalg.vector_norm(self._stream.tokens, dim=-1)
        geometry = Geometry.of(attention, self.image)
        step = max(1, CHUNK // (attention.queries.shape[1:-1].numel() * attention.keys.shape[-2]))
        contexts: list[Tensor] = []
        for start in range(0, attention.queries.shape[0], step):
            part = attention.images(start, start + step)
            rows = Rows(part, norms[start : start + step], geometry, self.workspace)
            self._feed(Kind.ATTENTION, layer, rows)
            contexts.append(rows.context)
        return torch.cat(contexts)

    def predictions(self, predictions: Predictions) -> None:
        """Feed the predictions; they stand at layer 0, there being one of them."""
        self._feed(Kind.PREDICTIONS, 0, predictions)

    def results(self) -> list[dict[tuple[int, str], Tensor]]:
        """The batch's numbers, for each diagnostic."""
        results: list[dict[tuple[int, str], Tensor]] = [{} for _ in self.diagnostics]
        for (index, layer, quantity), pieces in self._seen.items():
            results[index][layer, quantity] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return results

    def _feed(
        self,
        kind: Kind,
        layer: int,
        activation: Features | Rows | Predictions,
        every: tuple[Every, ...] = (Every.UNIT,),
    ) -> None:
        for index, diagnostic in enumerate(self.diagnostics):
            if diagnostic.reads is kind and diagnostic.every in every:
                for quantity, values in diagnostic.observe(cast(Any, activation)).items():
                    self._seen.setdefault((index, layer, quantity), []).append(values)
