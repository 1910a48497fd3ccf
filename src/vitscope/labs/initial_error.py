"""Initial error and noise: how many images a shallow transformer needs as its start and its tokens get worse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from vitscope.labs.lab import LABS, Datasets, Values
from vitscope.labs.shallow.lab import AbstractNeededLab
from vitscope.labs.shallow.needed import LI, NEEDED, SUCCESS, axis_of_needed, samples_needed_at, through
from vitscope.labs.shallow.theory import samples_with_attention
from vitscope.labs.shallow.trial import ShallowTrial
from vitscope.labs.verdict import join_advice, judge_all, read_mean
from vitscope.measurement.bounds import SHARE, bounded_field
from vitscope.measurement.claim import Claim, ClaimKind
from vitscope.measurement.estimate import below
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.ranges import parse_numbers
from vitscope.measurement.trials import Along, over_trials, prediction

ERROR = 0.2
"""The c'' of the predicted curve; its true value is unknown, and it must leave the bracket above 0."""
WORDS: Mapping[str, str] = MappingProxyType({"noise": "token noise", "sigma": "error of the initial values"})

PREDICTED = Quantity(
    "predicted_needed",
    "Samples needed, predicted",
    "samples",
    f"The theorem's bound through the mean of the measured values, its unknown c'' taken as {ERROR:g}: a shape only.",
)
GAIN = Quantity(
    "gain",
    "Gain in success",
    "1",
    "Success rate over all numbers of images less that at the first value, seed by seed. If the numbers "
    "double, the gain times how many there are is the number of doublings by which fewer images are needed.",
    "Larger is better.",
)
LAST = replace(
    GAIN,
    name="last_gain",
    meaning="Success rate over all numbers of images at the last value less that at the first, seed by seed.",
)


@LABS.add("initial-error")
@final
@dataclass(frozen=True)
class InitialError(AbstractNeededLab):
    r"""How many images a shallow transformer needs, by the noise of tokens and by the error of its initial values.

    By Li, Wang, Liu and Chen (ICLR 2023) it suffices to have

    .. math:: N \ge C (\alpha_* - c'(1 - \zeta) - c''(\sigma + \tau))^{-2}

    images, where :math:`\tau` bounds the distance of a token from its pattern and :math:`\sigma` is the error of the
    initial value matrix. One of the two is varied while the other stays fixed. The lab measures the number of images at
    which half of the trials reach the hinge loss.

    Conclude whether either matters at this share of relevant tokens. Do not conclude a law from the predicted curve:
    c'' is unknown, and the bound says what suffices, so it is not contradicted if the needed images do not grow.
    """

    name = "initial-error"
    title = "Initial error and noise"
    question = "What makes learning need more images?"

    noises: str = "0.05,0.15,0.25,0.35"
    """Distances of a token from its pattern, tau, with sigma unchanged: start:stop:count, or a list."""
    sigmas: str = "0.05,0.2,0.4,0.6"
    """Errors of the initial values, sigma, with the noise unchanged: start:stop:count, or a list."""
    alpha: float = bounded_field(0.2, SHARE)
    """Share of relevant tokens."""
    samples: str = "4:256"

    @classmethod
    def smoke(cls) -> "InitialError":
        """A few trials of a few tokens."""
        few = cls(noises="0.1,0.3", sigmas="0.1,0.3", samples="4:8", alpha=0.4, token_count=10, patterns=4, neurons=8)
        return replace(few, confusion=0.1, batch_size=4, steps=40, loss=0.9, tests=32, trials=2)

    @property
    def varied_settings(self) -> Mapping[str, tuple[float, ...]]:
        """The values of each setting that is varied."""
        given = {"noise": self.noises, "sigma": self.sigmas}
        return {what: tuple(dict.fromkeys(parse_numbers(text))) for what, text in given.items()}

    def plan_trials(self) -> tuple[ShallowTrial, ...]:
        """Trials ordered by varied setting, value, samples and seed."""
        settings = [
            (self.tokens(self.alpha, noise=value), self.model())
            if what == "noise"
            else (self.tokens(self.alpha), self.model(sigma=value))
            for what, values in self.varied_settings.items()
            for value in values
        ]
        return tuple(trial for tokens, model in settings for trial in self.over_sizes(tokens, model))

    def datasets_of(self, values: Values) -> Datasets:
        """A group for each setting that is varied."""
        each = len(self.sizes) * self.trials
        ends = each * np.cumsum([len(levels) for levels in self.varied_settings.values()])
        parts = np.split(np.isfinite(values["hinge"]), ends[:-1])
        return {
            f"needed-{what}": self._against(what, levels, part.reshape(len(levels), len(self.sizes), -1))
            for (what, levels), part in zip(self.varied_settings.items(), parts, strict=True)
        }

    def claims(self, datasets: Datasets, rate: float) -> tuple[Claim, ...]:
        """Whether the last value needs more images than the first, for each setting with several values."""
        varied = [what for what, levels in self.varied_settings.items() if len(levels) > 1]
        return tuple(self._more(datasets[f"needed-{what}"], what, rate) for what in varied)

    def _against(self, what: str, levels: Sequence[float], reached: NDArray[np.bool_]) -> xr.Dataset:
        """Needed samples and success over the levels, and the gains if there are several levels."""
        axis = Along("level", list(levels), WORDS[what].capitalize())
        samples = Along("samples", list(self.sizes), "Training images", logarithmic=True)
        found, gains = samples_needed_at(self.sizes, reached), reached.mean(1) - reached[:1].mean(1)
        other = self.sigma if what == "noise" else self.noise
        law = np.array([samples_with_attention(self.alpha, one, other, error=ERROR) for one in levels])
        last = replace(LAST, label=f"{GAIN.label}, {what} {levels[-1]:g} against {levels[0]:g}")
        step = 1 / len(self.sizes)
        gained = (over_trials(GAIN, [axis], gains, step), over_trials(last, [], gains[-1], step))
        return self.group(
            f"against the {WORDS[what]}",
            "" if what == "noise" else "As for the noise, with the error of the initial values varied.",
            axis_of_needed(NEEDED, axis, found),
            prediction(PREDICTED, [axis], through(found.inside.middle, np.where(np.isfinite(law), law, np.nan))),
            *(gained if len(levels) > 1 else ()),
            over_trials(SUCCESS, [axis, samples], reached.astype(np.float64)),
        )

    def _more(self, found: xr.Dataset, what: str, rate: float) -> Claim:
        levels = found["level"].values
        gain = read_mean(found, "gain", level=levels[-1])
        verdict, more = judge_all(lambda one: below(one, 0.0, rate), gain)
        images = [f"{one:.0f}" if np.isfinite(one) else "not reached" for one in found["needed"].values[[0, -1]]]
        return Claim(
            f"more-by-{what}",
            f"A larger {WORDS[what]} needs more images",
            verdict,
            f"at {levels[-1]:g} against {levels[0]:g}: gain in success {gain.text}; "
            f"images needed {images[1]} against {images[0]}",
            "The gain in success over all numbers of images, last value against first, is below 0 by Student's "
            "interval over seeds.",
            LI,
            join_advice(more, "Widen --samples if the images needed lie outside of it."),
            f"needed-{what}/needed",
            0.8,
            kind=ClaimKind.THEORY,
            rate=rate,
        )
