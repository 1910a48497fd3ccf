"""One training of one shallow vision transformer: everything that determines it, and its outcome."""

from dataclasses import dataclass, field

import numpy as np
import torch

from vitscope.labs.shallow.attention import AttentionProfile
from vitscope.labs.shallow.criterion import Criterion
from vitscope.labs.shallow.keep import AbstractKeep, KeepAll
from vitscope.labs.shallow.shallow_vit import ShallowVit
from vitscope.labs.shallow.token_model import AbstractTokens, TokenModel
from vitscope.labs.shallow.weights import Weights
from vitscope.measurement.errors import UserError

DATA, TESTS, INITIAL, BATCHES, KEEP = range(5)
"""A trial's random draws, each with its own generator, so that changing one setting leaves the other draws alone."""


@dataclass(frozen=True)
class ShallowTrial:
    """Mini-batch SGD with a constant rate on ``samples`` images; every step changes all weights but the top layer's.

    A batch is drawn with replacement from the trial's own images, so that a batch may exceed them. ``test_data`` are
    other tokens to test on (a shift); None is the same distribution. ``watched`` test images have their attention
    profiled at every evaluation. Everything random follows from ``seed``.
    """

    seed: int = 0
    data: AbstractTokens = field(default_factory=TokenModel)
    model: ShallowVit = field(default_factory=ShallowVit)
    samples: int = 128
    rate: float = 1.0
    batch: int = 20
    criterion: Criterion = field(default_factory=Criterion)
    keep: AbstractKeep = field(default_factory=KeepAll)
    tests: int = 256
    test_data: AbstractTokens | None = None
    watched: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0 or min(self.samples, self.batch, self.tests) < 1:
            raise UserError("seed must not be negative; samples, batch and tests must be at least 1.")
        if not 0 <= self.watched <= self.tests:
            raise UserError(f"watched is {self.watched}; it can be 0 to the {self.tests} test images.")
        other = self.data if self.test_data is None else self.test_data
        if (other.places, other.vectors.shape[1]) != (self.data.places, self.data.vectors.shape[1]):
            raise UserError("test_data has other numbers of tokens or dimensions than data: make them the same.")

    @property
    def dim(self) -> int:
        """Entries of a token."""
        return self.data.vectors.shape[1]

    @property
    def form(self) -> tuple[object, ...]:
        """What trials must have in common to be trained together."""
        model = self.model
        widths = (model.neurons, model.value_width, model.query_width)
        return (self.data.places, self.dim, *widths, model.mixing, self.batch, self.tests, self.criterion.every)

    def generator(self, use: int) -> torch.Generator:
        """A fresh generator for one of the trial's random draws."""
        state = np.random.SeedSequence([self.seed, use]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0]) >> 1)


@dataclass(frozen=True, eq=False)
class TrialOutcome:
    """The outcome of a trial; its values are those of the evaluations, the first of them before training.

    ``hinge`` and ``error`` are the mean hinge loss and the 0-1 error on the test images.
    """

    trial: ShallowTrial
    hinge: tuple[float, ...]
    error: tuple[float, ...]
    profiles: tuple[AttentionProfile, ...]
    weights: Weights

    @property
    def steps(self) -> int:
        """Steps taken."""
        return (len(self.hinge) - 1) * self.trial.criterion.every

    @property
    def hinge_step(self) -> int | None:
        """The step at which the hinge loss was first below its threshold, if any."""
        return self.trial.criterion.hinge_step(self.hinge)

    @property
    def error_step(self) -> int | None:
        """The step at which the 0-1 error was first zero, if any."""
        return self.trial.criterion.error_step(self.error)
