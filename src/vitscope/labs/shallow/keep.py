"""Which tokens of an image are kept: token sparsification, by what is known of the tokens or of the model."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitscope.labs.shallow.token_model import Role, TokenSample
from vitscope.measurement.errors import UserError


class AbstractKeep(ABC):
    """A rule by which tokens are kept, in training and in testing alike; it keeps at least one of each image."""

    attends: ClassVar[bool] = False
    """Whether it asks for the attention of the model as it is trained."""

    @abstractmethod
    def kept(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Bool[Tensor, "images tokens"]:
        """The tokens that are kept; ``received`` is the mean attention on each where the rule attends."""


@final
@dataclass(frozen=True)
class KeepAll(AbstractKeep):
    """Every token."""

    def kept(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Bool[Tensor, "images tokens"]:
        """All of them."""
        del received, generator
        return torch.ones_like(sample.roles, dtype=torch.bool)


@final
@dataclass(frozen=True)
class KeepByRole(AbstractKeep):
    """An oracle: irrelevant and spurious tokens go first, at random among them; raises the relevant share."""

    rate: float = 0.5

    def __post_init__(self) -> None:
        _check(self.rate)

    def kept(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Bool[Tensor, "images tokens"]:
        """Relevant and confusion tokens, then others."""
        del received
        discriminative = (sample.roles == Role.RELEVANT) | (sample.roles == Role.CONFUSION)
        return _first(discriminative + torch.rand(sample.roles.shape, generator=generator), self.rate)


@final
@dataclass(frozen=True)
class KeepAtRandom(AbstractKeep):
    """A random share, the same of an image at every step."""

    rate: float = 0.5

    def __post_init__(self) -> None:
        _check(self.rate)

    def kept(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Bool[Tensor, "images tokens"]:
        """Any of them."""
        del received
        return _first(torch.rand(sample.roles.shape, generator=generator), self.rate)


@final
@dataclass(frozen=True)
class KeepLeastNoisy(AbstractKeep):
    """An oracle: the tokens nearest to their patterns; lowers the noise."""

    rate: float = 0.5

    def __post_init__(self) -> None:
        _check(self.rate)

    def kept(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Bool[Tensor, "images tokens"]:
        """Those of the least distances."""
        del received, generator
        return _first(-sample.distances, self.rate)


@final
@dataclass(frozen=True)
class KeepByMagnitude(AbstractKeep):
    """The tokens of the largest norms."""

    rate: float = 0.5

    def __post_init__(self) -> None:
        _check(self.rate)

    def kept(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Bool[Tensor, "images tokens"]:
        """Those of the largest norms."""
        del received, generator
        return _first(sample.tokens.norm(dim=2), self.rate)


@final
@dataclass(frozen=True)
class KeepByAttention(AbstractKeep):
    """The tokens on which all queries together attend most, chosen anew whenever the trial is evaluated."""

    attends: ClassVar[bool] = True
    rate: float = 0.5

    def __post_init__(self) -> None:
        _check(self.rate)

    def kept(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Bool[Tensor, "images tokens"]:
        """Those that receive most."""
        del sample, generator
        assert received is not None, "it is given to rules that attend"
        return _first(received, self.rate)


@final
@dataclass(frozen=True)
class DropSpurious(AbstractKeep):
    """An oracle: every token but those of a spurious pattern."""

    def kept(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Bool[Tensor, "images tokens"]:
        """What is not spurious."""
        del received, generator
        return sample.roles != Role.SPURIOUS


def _first(scores: Float[Tensor, "images tokens"], rate: float) -> Bool[Tensor, "images tokens"]:
    """The largest share of each row, rounded up."""
    count = math.ceil(rate * scores.shape[1] - 1e-6)
    chosen = scores.topk(count, dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, chosen, True)


def _check(rate: float) -> None:
    if not 0 < rate <= 1:
        raise UserError(f"rate is {rate:g}; it is the share of tokens that is kept, above 0 and at most 1.")
