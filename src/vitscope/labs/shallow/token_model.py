"""The token distribution of the shallow-ViT paper: noisy patterns, a label by majority, and a spurious pattern."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, final

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from vitscope.measurement.errors import UserError


class Role(IntEnum):
    """How a token relates to its image's label."""

    RELEVANT = 0
    """Carries the pattern of the label."""
    CONFUSION = 1
    """Carries the pattern of the other label."""
    IRRELEVANT = 2
    """Carries a pattern that says nothing about the label."""
    SPURIOUS = 3
    """Carries a pattern that agrees with the label by chance or by bias, not by definition."""


@dataclass(frozen=True, eq=False)
class TokenSample:
    """Images as tokens.

    ``labels`` are +1 and -1, ``roles`` are those of `Role`, ``distances`` are those of tokens from their patterns.
    """

    tokens: Float32[Tensor, "images tokens dim"]
    labels: Float32[Tensor, " images"]
    roles: Int64[Tensor, "images tokens"]
    distances: Float32[Tensor, "images tokens"]


class AbstractTokens(ABC):
    """A distribution of images as tokens."""

    @property
    @abstractmethod
    def places(self) -> int:
        """Tokens of an image."""

    @property
    @abstractmethod
    def vectors(self) -> Float32[Tensor, "patterns dim"]:
        """Orthonormal patterns that the initial model has features for."""

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> TokenSample:
        """``count`` independent images of this distribution."""


@final
@dataclass(frozen=True)
class TokenModel(AbstractTokens):
    r"""Tokens :math:`x_l = \mu_{j(l)} + \epsilon_l` with orthonormal patterns; the label is that of the majority.

    Patterns are the first ``patterns`` unit vectors of :math:`R^d`, so their smallest distance is
    :math:`\kappa = \sqrt 2`. :math:`\mu_1` is the pattern of label +1 and :math:`\mu_2` that of -1; labels are fair
    coins. An image has ``relevant`` (:math:`\alpha_*`) of its tokens with its label's pattern and ``confusion``
    (:math:`\alpha_\#`) with the other one; if a share of the tokens is not whole, an image has the whole number
    below or above it, so that the mean is exact. The label's pattern has the majority in every image.

    ``spurious`` is the share with :math:`\mu_3` or :math:`\mu_4`, one of them throughout an image: with probability
    ``agreement`` the label's (:math:`\mu_3` for +1), else the other; 1/2 means no relation. All other tokens carry one
    of the remaining patterns, each as often. Places are shuffled; without ``shuffled`` relevant tokens come first in
    every image, then confusion, spurious and irrelevant ones, so that a place reveals the role.

    ``noise`` is :math:`\tau`. ``law`` "ball" draws :math:`\epsilon` uniformly from the ball of radius :math:`\tau`, the
    paper's assumption, which also requires :math:`\tau < \kappa / 4`. "gaussian" has entries :math:`N(0, \tau^2 / d)`,
    mean square length :math:`\tau^2`, without a bound: outside of the theorems, as in simulations. Li, Wang, Liu, Chen,
    ICLR 2023, section on the data model.
    """

    patterns: int = 10
    dim: int = 10
    tokens: int = 40
    relevant: float = 0.3
    confusion: float = 0.05
    noise: float = 0.1
    law: Literal["ball", "gaussian"] = "ball"
    spurious: float = 0.0
    agreement: float = 0.5
    shuffled: bool = True

    def __post_init__(self) -> None:
        plain = self.patterns - (4 if self.spurious else 2)
        if not (plain >= 1 and self.patterns <= self.dim):
            raise UserError(
                f"{self.patterns} patterns in {self.dim} dimensions: take at most as many patterns as dimensions, and "
                "at least 3 (5 with a spurious share)."
            )
        if min(self.relevant, self.confusion, self.spurious) < 0 or self._most_role_tokens > self.tokens:
            raise UserError(
                f"shares of relevant {self.relevant:g}, confusion {self.confusion:g} and spurious {self.spurious:g} "
                f"do not fit in {self.tokens} tokens: make none negative and their sum at most 1."
            )
        if math.floor(_count(self.relevant, self.tokens)) <= math.ceil(_count(self.confusion, self.tokens)):
            raise UserError(
                f"relevant {self.relevant:g} and confusion {self.confusion:g} of {self.tokens} tokens leave the label "
                "without a majority in some images: raise relevant or lower confusion."
            )
        if self.law not in ("ball", "gaussian"):
            raise UserError(f"law is {self.law!r}; it can be 'ball' or 'gaussian'.")
        if self.noise < 0 or (self.law == "ball" and self.noise >= self.separation / 4):
            raise UserError(
                f"noise is {self.noise:g}; it must be below {self.separation / 4:.4f}, a quarter of the distance of "
                "two patterns, and not negative (law 'gaussian' has no upper limit)."
            )
        if not 0 <= self.agreement <= 1:
            raise UserError(f"agreement is {self.agreement:g}; it must be a probability, from 0 to 1.")

    @property
    def places(self) -> int:
        """Tokens of an image."""
        return self.tokens

    @property
    def separation(self) -> float:
        r"""The smallest distance :math:`\kappa` of two patterns."""
        return math.sqrt(2)

    @property
    def vectors(self) -> Float32[Tensor, "patterns dim"]:
        r"""The patterns :math:`\mu_1, \dots, \mu_M`."""
        return torch.eye(self.patterns, self.dim)

    @property
    def _most_role_tokens(self) -> int:
        """The most tokens that have a role other than irrelevant."""
        return sum(math.ceil(_count(share, self.tokens)) for share in (self.relevant, self.confusion, self.spurious))

    def draw(self, count: int, generator: torch.Generator) -> TokenSample:
        """``count`` independent images of this distribution. Cost: about 15 ns a number, on one core."""
        positive = torch.rand(count, generator=generator) < 0.5
        roles = self._roles(count, generator)
        carried = self._draw_patterns(roles, positive, generator)
        tokens = self._noise((count, self.tokens, self.dim), generator)
        distances = tokens.norm(dim=-1)
        tokens.scatter_add_(2, carried.unsqueeze(2), torch.ones(1, 1, 1).expand(count, self.tokens, 1))
        return TokenSample(tokens, positive.float() * 2 - 1, roles, distances)

    def _roles(self, count: int, generator: torch.Generator) -> Int64[Tensor, "images tokens"]:
        place = torch.rand(count, self.tokens, generator=generator).argsort(1).argsort(1)
        if not self.shuffled:
            place = torch.arange(self.tokens).expand(count, -1)
        roles = torch.full((count, self.tokens), int(Role.IRRELEVANT))
        taken = torch.zeros(count, 1)
        for role, share in (
            (Role.RELEVANT, self.relevant),
            (Role.CONFUSION, self.confusion),
            (Role.SPURIOUS, self.spurious),
        ):
            many = (_count(share, self.tokens) + torch.rand(count, 1, generator=generator)).floor()
            roles[(place >= taken) & (place < taken + many)] = int(role)
            taken += many
        return roles

    def _draw_patterns(
        self, roles: Int64[Tensor, "images tokens"], positive: Bool[Tensor, " images"], generator: torch.Generator
    ) -> Int64[Tensor, "images tokens"]:
        """The number of each token's pattern, from 0."""
        first = 4 if self.spurious else 2
        carried = torch.randint(first, self.patterns, roles.shape, generator=generator)
        agrees = torch.rand(roles.shape[0], generator=generator) < self.agreement
        own = torch.where(positive, 0, 1)
        biased = torch.where(agrees == positive, 2, 3)
        for role, number in ((Role.RELEVANT, own), (Role.CONFUSION, 1 - own), (Role.SPURIOUS, biased)):
            carried = torch.where(roles == role, number.unsqueeze(1), carried)
        return carried

    def _noise(self, shape: tuple[int, int, int], generator: torch.Generator) -> Float32[Tensor, "images tokens dim"]:
        normal = torch.randn(shape, generator=generator)
        if self.law == "gaussian":
            return normal * (self.noise / math.sqrt(self.dim))
        radius = torch.rand((*shape[:2], 1), generator=generator).pow_(1 / self.dim)
        return normal.mul_(self.noise * radius / normal.norm(dim=-1, keepdim=True))


def _count(share: float, tokens: int) -> float:
    """A share of the tokens, rounded if it is whole up to rounding errors."""
    exact = share * tokens
    return float(round(exact)) if abs(exact - round(exact)) < 1e-6 else exact
