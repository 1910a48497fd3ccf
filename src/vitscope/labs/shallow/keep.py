"""Token sparsification: which tokens of an image are kept, by properties of the tokens or by the model's attention."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from vitscope.labs.shallow.token_model import Role, TokenSample
from vitscope.measurement.errors import UserError


class AbstractKeep(ABC):
    """A rule for keeping tokens, in training and testing alike; it keeps at least one token of each image."""

    attends: ClassVar[bool] = False
    """Whether it needs the attention of the model as it is trained."""

    @abstractmethod
    def keep_mask(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Bool[Tensor, "images tokens"]:
        """The tokens that are kept; ``received`` is the mean attention on each token if the rule attends."""


@final
@dataclass(frozen=True)
class KeepAll(AbstractKeep):
    """Every token."""

    @override
    def keep_mask(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Bool[Tensor, "images tokens"]:
        del received, generator
        return torch.ones_like(sample.roles, dtype=torch.bool)


@dataclass(frozen=True)
class AbstractKeepShare(AbstractKeep):
    """Keeps the tokens of the largest scores, a share ``rate`` of them, rounded up."""

    rate: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise UserError(f"rate is {self.rate:g}; it must be the share of tokens to keep, above 0 and at most 1.")

    @abstractmethod
    def scores(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Float[Tensor, "images tokens"]:
        """A score for each token; the largest are kept."""

    @override
    def keep_mask(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Bool[Tensor, "images tokens"]:
        scores = self.scores(sample, received, generator)
        chosen = scores.topk(math.ceil(self.rate * scores.shape[1] - 1e-6), dim=1).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, chosen, True)


@final
@dataclass(frozen=True)
class KeepByRole(AbstractKeepShare):
    """An oracle: irrelevant and spurious tokens go first, at random among them; raises the relevant share."""

    def scores(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Float[Tensor, "images tokens"]:
        """Random scores, higher for relevant and confusion tokens than for others."""
        del received
        discriminative = (sample.roles == Role.RELEVANT) | (sample.roles == Role.CONFUSION)
        return discriminative + torch.rand(sample.roles.shape, generator=generator)


@final
@dataclass(frozen=True)
class KeepAtRandom(AbstractKeepShare):
    """A random share, the same for an image at every step."""

    @override
    def scores(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Float[Tensor, "images tokens"]:
        del received
        return torch.rand(sample.roles.shape, generator=generator)


@final
@dataclass(frozen=True)
class KeepInProportion(AbstractKeepShare):
    """An oracle: a random share of each role alike, so that neither shares nor majorities change, up to rounding."""

    def scores(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Float[Tensor, "images tokens"]:
        """A token's random rank among those of its role, over their number, the first largest."""
        del received
        drawn = torch.rand(sample.roles.shape, generator=generator)
        alike = sample.roles.unsqueeze(2) == sample.roles.unsqueeze(1)
        rank = (alike & (drawn.unsqueeze(1) < drawn.unsqueeze(2))).sum(2)
        return -(rank + 0.5) / alike.sum(2)


@final
@dataclass(frozen=True)
class KeepLeastNoisy(AbstractKeepShare):
    """An oracle: the tokens nearest to their patterns; lowers the noise."""

    @override
    def scores(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Float[Tensor, "images tokens"]:
        del received, generator
        return -sample.distances


@final
@dataclass(frozen=True)
class KeepByMagnitude(AbstractKeepShare):
    """The tokens of the largest norms."""

    @override
    def scores(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Float[Tensor, "images tokens"]:
        del received, generator
        return sample.tokens.norm(dim=2)


@final
@dataclass(frozen=True)
class KeepByAttention(AbstractKeepShare):
    """The tokens on which all queries together attend most, chosen anew whenever the trial is evaluated."""

    attends: ClassVar[bool] = True

    @override
    def scores(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Float[Tensor, "images tokens"]:
        del sample, generator
        assert received is not None, "it is given to rules that attend"
        return received


@final
@dataclass(frozen=True)
class DropSpurious(AbstractKeep):
    """An oracle: every token but those of a spurious pattern."""

    @override
    def keep_mask(
        self, sample: TokenSample, received: Float[Tensor, "images tokens"] | None, generator: torch.Generator
    ) -> Bool[Tensor, "images tokens"]:
        del received, generator
        return sample.roles != Role.SPURIOUS
