"""The shapes in a model, from one pass over zeros."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscope.models.attention import Attention
from vitscope.models.feed import zero_image
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractObserver, Subject


@dataclass(frozen=True)
class SurveyedUnit:
    """A unit and its shapes; the stem has no block."""

    layer: int
    name: str
    kind: str
    stage: int
    block: int | None
    stream: tuple[tuple[int, int], int, int] | None
    """Grid, tokens (prefix tokens among them) and channels of the stream after it."""
    attention: tuple[int, int, int] | None
    """Heads, windows and queries of a window."""
    parameters: int | None
    """Parameters of the upstream submodule it is named after; None if there is none."""


@final
class Surveyor(AbstractObserver):
    """Records the shapes of streams and attention."""

    def __init__(self) -> None:
        self.streams: dict[int, tuple[tuple[int, int], int, int]] = {}
        self.attentions: dict[int, tuple[int, int, int]] = {}

    def stream(self, layer: int, stream: Stream) -> None:
        """Record grid, tokens and channels."""
        self.streams[layer] = (stream.grid, stream.tokens.shape[1], stream.tokens.shape[2])

    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        """Record heads, windows and queries."""
        _, windows, heads, queries, _ = attention.queries.shape
        self.attentions[layer] = (heads, windows, queries)
        return attention.context()


def survey(subject: Subject) -> tuple[SurveyedUnit, ...]:
    """Stem and units in order, with their shapes for one image of zeros."""
    seen = Surveyor()
    zeros = zero_image(subject.module, subject.preprocessing.shape)
    with torch.no_grad():
        subject.anatomy.walk(zeros, seen)
    sizes = {name: _size(module) for name, module in subject.module.named_modules()}
    places = [("stem", "stem", 0, None), *((p.name, p.kind.value, p.stage, p.block) for p in subject.places)]
    return tuple(
        SurveyedUnit(layer, *place, seen.streams.get(layer), seen.attentions.get(layer), sizes.get(place[0]))
        for layer, place in enumerate(places)
    )


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
