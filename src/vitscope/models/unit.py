"""Residual units: the steps a vision model is made of, each with its kind and its place."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from vitscope.models.attention import Attention
from vitscope.models.stream import Stream


class UnitKind(Enum):
    """What a unit does to the stream."""

    ATTENTION = "attention"
    MLP = "mlp"
    CONVOLUTION = "convolution"
    TOKEN_MIXING = "token-mixing"
    DOWNSAMPLING = "downsampling"
    REARRANGEMENT = "rearrangement"
    BLOCK = "block"


@dataclass(frozen=True)
class Place:
    """A unit's kind, the name of its upstream module, its stage and its block (from 0)."""

    kind: UnitKind
    name: str
    stage: int
    block: int


def chain(layers: tuple[Callable[[Tensor], Tensor], ...], values: Tensor) -> Tensor:
    """``values`` through ``layers``, one after the other."""
    for layer in layers:
        values = layer(values)
    return values


def identity(stream: Stream) -> Stream:
    """The stream itself: what an identity shortcut leaves."""
    return stream


@dataclass(frozen=True)
class AbstractUnit(ABC):
    """A step of the model from stream to stream."""

    place: Place

    @property
    def bypass(self) -> Callable[[Stream], Stream] | None:
        """The unit without its residual branch, if that returns its input unchanged.

        A change of layout that later units rely on stays. None if there is no shortcut, or one that computes.
        """
        return None

    @abstractmethod
    def __call__(self, stream: Stream) -> Stream:
        """The stream after this unit."""


@dataclass(frozen=True)
class AbstractAttentionUnit(AbstractUnit):
    """An attention unit in three steps: what attention sees, what its module returns, and the stream after it."""

    @abstractmethod
    def project(self, stream: Stream) -> Attention:
        """Queries, keys and values for this stream."""

    @abstractmethod
    def branch(self, attention: Attention, context: Float[Tensor, "batch windows heads queries width"]) -> Tensor:
        """What the upstream attention module itself returns, given the context (the weights times the values)."""

    @abstractmethod
    def finish(self, stream: Stream, branch: Tensor) -> Stream:
        """The stream after the unit, given what the attention module returned: scaling, residual sum."""

    def __call__(self, stream: Stream) -> Stream:
        """The stream after this unit."""
        attention = self.project(stream)
        return self.finish(stream, self.branch(attention, attention.context()))


class AbstractAttentionHeads(ABC):
    """An upstream attention module, split into its projections before and after the softmax."""

    heeds_kept: ClassVar[bool] = False
    """Whether it attends among any choice of patches, with their places from ``Stream.kept`` if they matter."""

    @abstractmethod
    def project(self, values: Tensor, stream: Stream) -> Attention:
        """Queries, keys and values for the module's input ``values``, which comes from ``stream``."""

    @abstractmethod
    def combine(self, attention: Attention, context: Float[Tensor, "batch windows heads queries width"]) -> Tensor:
        """The module's output."""


@dataclass(frozen=True)
class ResidualAttention(AbstractAttentionUnit):
    """``x + after(attention(before(x)))`` on the stream's values."""

    before: tuple[Callable[[Tensor], Tensor], ...]
    heads: AbstractAttentionHeads
    after: tuple[Callable[[Tensor], Tensor], ...]

    @property
    def bypass(self) -> Callable[[Stream], Stream]:
        """The stream as it came in."""
        return identity

    def project(self, stream: Stream) -> Attention:
        """Queries, keys and values for this stream."""
        return self.heads.project(chain(self.before, stream.values), stream)

    def branch(self, attention: Attention, context: Float[Tensor, "batch windows heads queries width"]) -> Tensor:
        """What the upstream attention module itself returns."""
        return self.heads.combine(attention, context)

    def finish(self, stream: Stream, branch: Tensor) -> Stream:
        """The residual sum."""
        return stream.with_values(stream.values + chain(self.after, branch))


@dataclass(frozen=True)
class Residual(AbstractUnit):
    """``x + f(x)`` on the stream's values, ``f`` being ``layers`` one after the other."""

    layers: tuple[Callable[[Tensor], Tensor], ...]

    @property
    def bypass(self) -> Callable[[Stream], Stream]:
        """The stream as it came in."""
        return identity

    def __call__(self, stream: Stream) -> Stream:
        """The stream after this unit."""
        return stream.with_values(stream.values + chain(self.layers, stream.values))


@dataclass(frozen=True)
class WholeUnit(AbstractUnit):
    """A unit given by a function of the whole stream: downsampling, rearrangement, a block with its own shortcut.

    ``shortcut`` is the unit without its residual branch, if that returns its input unchanged.
    """

    function: Callable[[Stream], Stream]
    shortcut: Callable[[Stream], Stream] | None = None
    pointwise: bool = False
    """Whether it treats every token by itself, wherever it is, so that it works on any choice of them."""

    @property
    def bypass(self) -> Callable[[Stream], Stream] | None:
        """Its ``shortcut``."""
        return self.shortcut

    def __call__(self, stream: Stream) -> Stream:
        """The stream after this unit."""
        return self.function(stream)


@dataclass(frozen=True, eq=False)  # the factors of two units are compared by identity, as modules are
class Times:
    """Multiplication by a learned factor (LayerScale stored as a bare parameter)."""

    factor: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """``factor * values``."""
        return self.factor * values
