"""Initial error and noise: how many images a shallow transformer needs as its start and its tokens get worse."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import final

import numpy as np
import xarray as xr

from vitscope.interventions.spread import spread
from vitscope.labs.dataset import Along, over_trials, predicted
from vitscope.labs.lab import LABS, AbstractLab, Datasets, Values
from vitscope.labs.needed import LI, needed, needed_over, sample_sizes, steps_of, through
from vitscope.labs.shallow.criterion import Criterion
from vitscope.labs.shallow.ensemble import train
from vitscope.labs.shallow.shallow_vit import ShallowVit
from vitscope.labs.shallow.theory import samples_with_attention
from vitscope.labs.shallow.token_model import TokenModel
from vitscope.labs.shallow.trial import Trial
from vitscope.labs.verdict import FALSE_ALARMS, MORE_TRIALS, read_mean
from vitscope.measurement.claim import Claim
from vitscope.measurement.quantity import Quantity

ERROR = 0.2
"""The c'' of the curve that is drawn; nobody knows its value, and it must leave the bracket above 0."""
WORDS: Mapping[str, str] = MappingProxyType({"noise": "token noise", "sigma": "error of the initial values"})

SUCCESS = Quantity(
    "success",
    "Success rate by hinge loss",
    "1",
    "Share of the trials whose mean hinge loss on test images fell below --loss.",
    "Larger is better.",
)
NEEDED = Quantity(
    "needed",
    "Samples needed",
    "samples",
    "Training images at which half of the trials succeed; errors are by bootstrap over trials.",
    "Smaller is better.",
)
PREDICTED = Quantity(
    "predicted_needed",
    "Samples needed, predicted",
    "samples",
    f"The theorem's bound through the mean of what was measured, its unknown c'' taken as {ERROR:g}: a shape only.",
)
GAIN = Quantity(
    "gain",
    "Gain in success",
    "1",
    "Success rate over all numbers of images less that at the first value, seed by seed; where the numbers double, "
    "times how many there are it is by how many doublings fewer images are needed.",
    "Larger is better.",
)


@LABS.add("initial-error")
@final
@dataclass(frozen=True)
class InitialError(AbstractLab[Trial]):
    r"""How many images a shallow transformer needs against the noise of tokens and the error of its initial values.

    By Li, Wang, Liu and Chen (ICLR 2023) it suffices to have

    .. math:: N \ge C (\alpha_* - c'(1 - \zeta) - c''(\sigma + \tau))^{-2}

    images, where :math:`\tau` bounds the distance of a token from its pattern and :math:`\sigma` is the error of the
    initial value matrix. One of the two is varied while the other stays. Measured is the number of images at which half
    of the trials reach the hinge loss.

    Conclude whether either matters at this share of relevant tokens. Do not conclude a law from the curve beside it:
    c'' is unknown, and the bound says what suffices, so that needed images which do not grow do not contradict it.
    """

    name = "initial-error"
    title = "Initial error and noise"
    question = "What makes learning need more images?"
    references = (LI,)
    at_once = 16

    noises: str = "0.05,0.15,0.25,0.35"
    """Distances of a token from its pattern, tau, with sigma as it is: start:stop:count, or a list."""
    sigmas: str = "0.05,0.2,0.4,0.6"
    """Errors of the initial values, sigma, with the noise as it is: start:stop:count, or a list."""
    samples: str = "4:256"
    """Numbers of training images: first:last, which doubles, or a list."""
    noise: float = 0.2
    """Noise where sigma is varied."""
    sigma: float = 0.2
    """Error of the initial values where the noise is varied."""
    alpha: float = 0.2
    """Share of relevant tokens."""
    token_count: int = 40
    """Tokens of an image."""
    patterns: int = 10
    """Patterns, and entries of a token."""
    confusion: float = 0.05
    """Share of tokens with the pattern of the other label."""
    delta: float = 0.2
    """Error of the initial queries and keys."""
    neurons: int = 50
    """Neurons of the perceptron."""
    rate: float = 1.0
    """Learning rate."""
    batch_size: int = 20
    """Images of a step."""
    steps: int = 800
    """Steps of training, at most; a multiple of 20."""
    loss: float = 0.01
    """Hinge loss below which a trial has learned."""
    tests: int = 256
    """Test images."""
    trials: int = 8
    """Trials of each setting, by further seeds."""
    seed: int = 0
    """Seed of the first trial."""

    @classmethod
    def smoke(cls) -> "InitialError":
        """A few trials of a few tokens."""
        few = cls("0.1,0.3", "0.1,0.3", "4:8", token_count=10, patterns=4, confusion=0.1, alpha=0.4, neurons=8)
        return replace(few, batch_size=4, steps=40, loss=0.9, tests=32, trials=2)

    @property
    def varied(self) -> Mapping[str, tuple[float, ...]]:
        """The values of what is varied."""
        return {"noise": spread(self.noises), "sigma": spread(self.sigmas)}

    def planned(self) -> tuple[Trial, ...]:
        """What is varied, its values, samples, seeds."""
        return tuple(
            self._trial(replace(self, noise=value) if what == "noise" else replace(self, sigma=value), samples, seed)
            for what, values in self.varied.items()
            for value in values
            for samples in sample_sizes(self.samples)
            for seed in range(self.seed, self.seed + self.trials)
        )

    def form(self, trial: Trial) -> Hashable:
        """What can be trained together."""
        return trial.form

    def carried_out(self, trials: Sequence[Trial]) -> Values:
        """The step at which either criterion was first met; NaN where it was not."""
        return steps_of(train(trials))

    def measured(self, values: Values) -> Datasets:
        """A group for what is varied."""
        sizes, met = sample_sizes(self.samples), np.isfinite(values["hinge"])
        groups: dict[str, xr.Dataset] = {}
        start = 0
        for what, levels in self.varied.items():
            stop = start + len(levels) * len(sizes) * self.trials
            reached = met[start:stop].reshape(len(levels), len(sizes), -1)
            start = stop
            axis = Along("level", list(levels), WORDS[what].capitalize())
            samples = Along("samples", list(sizes), "Training images", logarithmic=True)
            found = needed(sizes, reached)
            other = self.sigma if what == "noise" else self.noise
            law = np.array([samples_with_attention(self.alpha, one, other, error=ERROR) for one in levels])
            groups[f"needed-{what}"] = self.group(
                f"against the {WORDS[what]}",
                "" if what == "noise" else "As for the noise, with the error of the initial values varied.",
                needed_over(NEEDED, axis, found),
                predicted(PREDICTED, [axis], through(found.inside.middle, np.where(np.isfinite(law), law, np.nan))),
                over_trials(GAIN, [axis], reached.mean(1) - reached[:1].mean(1)),
                over_trials(SUCCESS, [samples, axis], reached.astype(np.float64).swapaxes(0, 1)),
            )
        return groups

    def claims(self, datasets: Datasets) -> tuple[Claim, ...]:
        """Whether the largest value needs more images than the first."""
        return tuple(self._more(datasets[f"needed-{what}"], what) for what in self.varied)

    def _trial(self, setting: "InitialError", samples: int, seed: int) -> Trial:
        data = TokenModel(self.patterns, self.patterns, self.token_count, self.alpha, self.confusion, setting.noise)
        model = ShallowVit(self.neurons, self.patterns, self.patterns, setting.sigma, self.delta)
        criterion = Criterion(self.loss, "both", self.steps, 20)
        return Trial(seed, data, model, samples, self.rate, self.batch_size, criterion, tests=self.tests)

    def _more(self, found: xr.Dataset, what: str) -> Claim:
        levels = found["level"].values
        gain = read_mean(found, "gain", level=levels[-1])
        images = [f"{one:.0f}" if np.isfinite(one) else "not reached" for one in found["needed"].values[[0, -1]]]
        return Claim(
            f"more-by-{what}",
            f"A larger {WORDS[what]} needs more images",
            gain.below(0.0),
            f"at {levels[-1]:g} against {levels[0]:g}: gain in success {gain.text}; "
            f"images needed {images[1]} against {images[0]}",
            "The gain in success over all numbers of images, last value against first, is below 0 by Student's "
            f"interval over seeds, false-alarm rate {FALSE_ALARMS:g}.",
            LI,
            f"{MORE_TRIALS} Where more or fewer images than --samples has are needed, widen it.",
            f"needed-{what}/needed",
            0.8,
        )
