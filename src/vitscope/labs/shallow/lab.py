"""Shared by the labs on shallow transformers: their settings, and the tokens, models and trials that these describe."""

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np

from vitscope.labs.lab import AbstractLab, Values
from vitscope.labs.shallow.criterion import Criterion
from vitscope.labs.shallow.ensemble import train
from vitscope.labs.shallow.keep import AbstractKeep, KeepAll
from vitscope.labs.shallow.needed import LI, sample_sizes, steps_of
from vitscope.labs.shallow.planting import Planting
from vitscope.labs.shallow.shallow_vit import ShallowVit
from vitscope.labs.shallow.token_model import AbstractTokens, TokenModel
from vitscope.labs.shallow.trial import ShallowTrial
from vitscope.measurement.bounds import SHARE, bounded_field

EVERY = 20
"""Steps between two evaluations of a trial that ends when it has learned."""


@dataclass(frozen=True, kw_only=True)
class AbstractShallowLab(AbstractLab[ShallowTrial]):
    """A lab whose trials train a `ShallowVit`.

    Its tokens are those of a `TokenModel` or, if ``planted`` is given, patches of real objects among patches of noise;
    ``token_count``, ``shuffled`` and the law of the noise then have no effect.
    """

    references: ClassVar[tuple[str, ...]] = (LI,)
    symbols: ClassVar[Mapping[str, str]] = MappingProxyType({"tau": "noise"})
    at_once: ClassVar[int] = 16

    token_count: int = 40
    """Tokens of an image."""
    patterns: int = 10
    """Patterns, and entries of a token; for planted images the leading directions that the initial model knows."""
    confusion: float = bounded_field(0.05, SHARE)
    """Share of tokens with the pattern of the other label."""
    noise: float = 0.2
    """Largest distance of a token from its pattern, tau; for planted images the root of its mean square."""
    sigma: float = 0.2
    """Error of the initial values."""
    delta: float = 0.2
    """Error of the initial queries and keys."""
    neurons: int = 50
    """Neurons of the perceptron."""
    shared_top: bool = False
    """One vector of frozen top weights for all places, rather than one for each as in the paper."""
    shuffled: bool = True
    """Whether tokens have random places; otherwise the relevant ones come first in every image."""
    rate: float = 1.0
    """Learning rate."""
    batch_size: int = 20
    """Images of a step."""
    steps: int = 800
    """Steps of training, at most; a multiple of 20."""
    tests: int = 256
    """Test images."""
    trials: int = 8
    """Trials of each setting, with consecutive seeds."""
    seed: int = 0
    """Seed of the first trial."""
    planted: Planting | None = field(default=None, metadata={"flag": ""})
    """Real objects that the tokens are made of; None for the token model."""

    @property
    def seeds(self) -> range:
        """The seeds of a setting's trials."""
        return range(self.seed, self.seed + self.trials)

    @property
    def images(self) -> Mapping[str, object]:
        """The planted objects as a run names them, if any."""
        return {} if self.planted is None else self.planted.described_objects

    @property
    def notes(self) -> tuple[str, ...]:
        """Which objects the tokens are made of, if any are planted."""
        return () if self.planted is None else (self.planted.note,)

    @property
    def settings(self) -> Mapping[str, object]:
        """The fields; for planted images without ``token_count`` and ``law``, and with how they are planted."""
        if self.planted is None:
            return super().settings
        said = {name: value for name, value in super().settings.items() if name not in ("token_count", "law")}
        return {**said, "planted": self.planted.settings}

    def tokens(
        self,
        alpha: float,
        noise: float | None = None,
        law: Literal["ball", "gaussian"] = "ball",
        spurious: float = 0.0,
        agreement: float = 0.5,
    ) -> tuple[AbstractTokens, AbstractTokens | None]:
        """The distribution of the tokens to train on, and another one to test on; None is the same."""
        noise = self.noise if noise is None else noise
        if self.planted is not None:
            return self.planted.tokens(self.patterns, alpha, self.confusion, noise, spurious, agreement)
        sizes = (self.patterns, self.patterns, self.token_count)
        return TokenModel(*sizes, alpha, self.confusion, noise, law, spurious, agreement, self.shuffled), None

    def model(self, sigma: float | None = None, attention: bool = True) -> ShallowVit:
        """The network, with the errors of its initial model."""
        sizes = (self.neurons, self.patterns, self.patterns)
        errors = (self.sigma if sigma is None else sigma, self.delta)
        return ShallowVit(*sizes, *errors, attention=attention, shared_top=self.shared_top)

    def form(self, trial: ShallowTrial) -> Hashable:
        """The trial's own form."""
        return trial.form

    def cost(self, trial: ShallowTrial) -> float:
        """Numbers that its steps process, if it takes all of them."""
        scratch = trial.model.mixing.scratch(trial.data.places, trial.dim, trial.model.neurons)
        return float(trial.criterion.steps * trial.batch * scratch)


@dataclass(frozen=True, kw_only=True)
class AbstractNeededLab(AbstractShallowLab):
    """A lab on how many images are needed: each trial ends when it has learned, by hinge loss and by 0-1 error."""

    samples: str = "4:512"
    """Numbers of training images: first:last, which doubles, or a list."""
    loss: float = 0.01
    """Hinge loss below which a trial has learned."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of images."""
        return sample_sizes(self.samples)

    @abstractmethod
    def plan_trials(self) -> tuple[ShallowTrial, ...]:
        """Trials ordered by what is varied, then number of images, then seed."""

    def over_sizes(
        self, tokens: tuple[AbstractTokens, AbstractTokens | None], model: ShallowVit, keep: AbstractKeep | None = None
    ) -> tuple[ShallowTrial, ...]:
        """The trials of one setting, by numbers of images and seeds."""
        criterion = Criterion(self.loss, "both", self.steps, EVERY)
        shared = (self.rate, self.batch_size, criterion, keep or KeepAll(), self.tests, tokens[1])
        return tuple(ShallowTrial(seed, tokens[0], model, size, *shared) for size in self.sizes for seed in self.seeds)

    def run_trials(self, trials: Sequence[ShallowTrial]) -> Values:
        """The step at which each criterion was first met, NaN if never; for planted images also final loss and error.

        A few real images are rarely learned to either criterion, so the remaining loss and error say more.
        """
        outcomes = train(trials)
        ends = {"last hinge": [one.hinge[-1] for one in outcomes], "last error": [one.error[-1] for one in outcomes]}
        more = {name: np.array(found) for name, found in ends.items()} if self.planted else {}
        return {**steps_of(outcomes), **more}
