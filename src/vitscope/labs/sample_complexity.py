"""Sample complexity: how many images a shallow transformer needs, against the share of relevant tokens."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from vitscope.interventions.spread import spread
from vitscope.labs.dataset import Along, Numbers, curves, over_trials
from vitscope.labs.fit import Line
from vitscope.labs.lab import LABS, AbstractLab, Datasets, Values
from vitscope.labs.needed import LI, Needed, needed, needed_curves, sample_sizes, steps_of, through
from vitscope.labs.shallow.criterion import Criterion
from vitscope.labs.shallow.ensemble import train
from vitscope.labs.shallow.shallow_vit import ShallowVit
from vitscope.labs.shallow.theory import (
    iterations_with_attention,
    iterations_without_attention,
    samples_with_attention,
    samples_without_attention,
)
from vitscope.labs.shallow.token_model import TokenModel
from vitscope.labs.shallow.trial import Trial
from vitscope.labs.verdict import FALSE_ALARMS, MORE_TRIALS, normal_above, together
from vitscope.measurement.claim import Claim, Verdict
from vitscope.measurement.quantity import Quantity

KINDS = ("attention", "no attention")
CRITERIA = ("hinge", "0-1")
SLACK = 0.5
"""An exponent is called 2 where it is surely less than this apart."""

SUCCESS = Quantity(
    "success",
    "Success rate by hinge loss",
    "1",
    "Share of the trials whose mean hinge loss on test images fell below --loss: the criterion of the theorems.",
    "Larger is better.",
)
SUCCESS_01 = Quantity(
    "success_01",
    "Success rate by 0-1 error",
    "1",
    "Share of the trials that misjudged no test image at some evaluation; that takes far fewer samples.",
    "Larger is better.",
)
NEEDED = Quantity(
    "needed",
    "Samples needed",
    "samples",
    "Samples at which half of the trials succeed, between those tried; at the edge of the grid it can be less.",
    "Smaller is better.",
)
STEPS = Quantity(
    "needed_steps",
    "Steps needed",
    "steps",
    "Steps until the hinge loss is below --loss, with the most samples, over the trials that got there.",
    "Smaller is better.",
)
EXPONENTS = {
    kind: Quantity(
        f"exponent_{kind.replace(' ', '_')}",
        f"Exponent, {kind}",
        "1",
        "b of needed samples ~ share^-b by the hinge criterion, within the grid; its error by bootstrap over trials.",
    )
    for kind in KINDS
}


@LABS.add("sample-complexity")
@final
@dataclass(frozen=True)
class SampleComplexity(AbstractLab[Trial]):
    r"""How many images a shallow transformer needs to learn, with attention and without.

    Tokens are noisy patterns; the label is that of the majority among two of them, of which a share
    :math:`\alpha_*` of the tokens is relevant. The network is

    .. math:: F(X) = \frac1L \sum_l a_l^T \mathrm{ReLU}\bigl(W_O W_V X \,\mathrm{softmax}(X^T W_K^T W_Q x_l)\bigr)

    trained by SGD on the hinge loss. By Li, Wang, Liu and Chen (ICLR 2023) it suffices to have

    .. math:: N \ge C (\alpha_* - c'(1 - \zeta) - c''(\sigma + \tau))^{-2} \quad \text{with attention}, \qquad
       N \ge C (\alpha_* (\alpha_* - \sigma - \tau))^{-2} \quad \text{without},

    and steps as :math:`1 / \alpha_*` and :math:`1 / \alpha_*^2`. Measured is the number of samples at which half of the
    trials succeed, by hinge loss and, apart, by 0-1 error. The curves called predicted are :math:`\alpha_*^{-2}` and
    :math:`\alpha_*^{-4}` through the mean of what was measured: the constants are not known.

    Conclude how the needed samples of this model grow over these shares, within these steps: with too few of them it is
    steps, not samples, that are missing. Both theorems are upper bounds: a smaller
    exponent contradicts neither, and that one bound grows faster than another does not say that the needed numbers
    do. Do not conclude from this that attention helps or does not help a deep model on images.
    """

    name = "sample-complexity"
    title = "Sample complexity"
    question = "How many images does it need?"
    references = (LI,)
    at_once = 16

    alpha: str = "0.1,0.15,0.2,0.3,0.45"
    """Shares of relevant tokens: start:stop:count, or a list."""
    samples: str = "4:512"
    """Numbers of training images: first:last, which doubles, or a list."""
    token_count: int = 40
    """Tokens of an image."""
    patterns: int = 10
    """Patterns, and entries of a token."""
    confusion: float = 0.05
    """Share of tokens with the pattern of the other label."""
    noise: float = 0.3
    """Largest distance of a token from its pattern, tau; of its square the mean by law gaussian."""
    law: Literal["ball", "gaussian"] = "ball"
    """Law of the noise; the theorems are on ball."""
    sigma: float = 0.3
    """Error of the initial values."""
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
    def smoke(cls) -> "SampleComplexity":
        """A few trials of a few tokens."""
        small = {"token_count": 10, "patterns": 4, "neurons": 8, "batch_size": 4, "tests": 32, "trials": 3}
        return cls("0.3,0.5", "4:16", confusion=0.1, steps=40, loss=0.9, **small)  # pyright: ignore[reportArgumentType]

    def planned(self) -> tuple[Trial, ...]:
        """With attention, then without; shares, samples, seeds."""
        seeds = range(self.seed, self.seed + self.trials)
        criterion = Criterion(self.loss, "both", self.steps, 20)
        return tuple(
            Trial(
                seed,
                TokenModel(self.patterns, self.patterns, self.token_count, share, self.confusion, self.noise, self.law),
                ShallowVit(
                    self.neurons, self.patterns, self.patterns, self.sigma, self.delta, attention=kind == KINDS[0]
                ),
                samples,
                self.rate,
                self.batch_size,
                criterion,
                tests=self.tests,
            )
            for kind in KINDS
            for share in self._shares
            for samples in sample_sizes(self.samples)
            for seed in seeds
        )

    def form(self, trial: Trial) -> Hashable:
        """What can be trained together."""
        return trial.form

    def carried_out(self, trials: Sequence[Trial]) -> Values:
        """The step at which either criterion was first met; NaN where it was not."""
        return steps_of(train(trials))

    def measured(self, values: Values) -> Datasets:
        """Phase diagrams, needed samples and needed steps over the share of relevant tokens."""
        sizes, shares = sample_sizes(self.samples), np.array(self._shares)
        steps = {name: one.reshape(2, len(shares), len(sizes), -1) for name, one in values.items()}
        alpha = Along("alpha", list(shares), "Share of relevant tokens")
        samples = Along("samples", list(sizes), "Training images", logarithmic=True)
        found = self._needed(steps)
        groups = {
            f"success-{kind.replace(' ', '-')}": self.group(
                f"success, {kind}",
                "Share of the trials that met either criterion within the steps.",
                over_trials(SUCCESS, [samples, alpha], _met(steps["hinge"][place])),
                over_trials(SUCCESS_01, [samples, alpha], _met(steps["0-1"][place])),
            )
            for place, kind in enumerate(KINDS)
        }
        taken = {kind: steps["hinge"][place, :, -1] for place, kind in enumerate(KINDS)}
        return {
            "needed-samples": self.group(
                "samples needed",
                "",
                needed_curves(NEEDED, alpha, found, self._predicted(found, shares)),
                *(self._power(found, shares, kind).slope.dataset(EXPONENTS[kind]) for kind in KINDS),
            ),
            **groups,
            "needed-steps": self.group(
                "steps needed",
                "Steps until the hinge loss is below the threshold, with the most samples. Predicted are the powers "
                "of the theorems through the mean of what was measured.",
                curves(STEPS, [alpha], taken, self._predicted_steps(taken, shares)),
            ),
        }

    def claims(self, datasets: Datasets) -> tuple[Claim, ...]:
        """The bound on the exponent with attention, its value, and the gap to none."""
        found = datasets["needed-samples"]
        one, other = ((float(found[q.name]), float(found[f"{q.name}_error"])) for q in EXPONENTS.values())
        apart, spread_of = other[0] - one[0], float(np.hypot(one[1], other[1]))
        said = f"exponent {one[0]:.2f} ± {one[1]:.2f} with attention, {other[0]:.2f} ± {other[1]:.2f} without"
        test = f"normal interval of its bootstrap error over trials, false-alarm rate {FALSE_ALARMS:g}"
        return (
            self._claim(
                "samples-bound",
                "With attention the needed samples grow no faster than the share of relevant tokens to the power -2",
                normal_above(2 - one[0], one[1], 0.0),
                said,
                f"The exponent is below 2 by the {test}.",
                0.9,
            ),
            self._claim(
                "samples-exponent",
                "With attention the needed samples grow as the share of relevant tokens to the power -2",
                together(normal_above(one[0], one[1], 2 - SLACK), normal_above(-one[0], one[1], -2 - SLACK)),
                said,
                f"The exponent is within {SLACK:g} of 2 by the {test}; it fails where the interval excludes that.",
                0.8,
            ),
            self._claim(
                "samples-without-attention",
                "Without attention the needed samples grow faster than with it",
                normal_above(apart, spread_of, 0.0),
                f"{said}; difference {apart:+.2f} ± {spread_of:.2f}",
                f"The difference of the exponents is above 0 by the {test}.",
                0.85,
            ),
        )

    @property
    def _shares(self) -> tuple[float, ...]:
        return tuple(sorted(set(spread(self.alpha))))

    def _needed(self, steps: Values) -> dict[str, Needed]:
        """By kind and criterion."""
        sizes = sample_sizes(self.samples)
        return {
            f"{kind}, {criterion}": needed(sizes, np.isfinite(steps[criterion][place]))
            for criterion in CRITERIA
            for place, kind in enumerate(KINDS)
        }

    def _power(self, found: dict[str, Needed], shares: Numbers, kind: str) -> Line:
        return found[f"{kind}, hinge"].power(1 / shares)

    def _predicted(self, found: dict[str, Needed], shares: Numbers) -> dict[str, Numbers]:
        laws = (samples_with_attention, samples_without_attention)
        return {
            f"{kind}, predicted": through(found[f"{kind}, hinge"].inside.middle, np.array([law(one) for one in shares]))
            for kind, law in zip(KINDS, laws, strict=True)
        }

    def _predicted_steps(self, taken: dict[str, Numbers], shares: Numbers) -> dict[str, Numbers]:
        laws = (iterations_with_attention, iterations_without_attention)
        means = {
            kind: over_trials(STEPS, [Along("alpha", list(shares), "")], one)["needed_steps"].values
            for kind, one in taken.items()
        }
        return {
            f"{kind}, predicted": through(means[kind], np.array([law(one) for one in shares]))
            for kind, law in zip(KINDS, laws, strict=True)
        }

    def _claim(self, name: str, statement: str, verdict: Verdict, figure: str, rule: str, weight: float) -> Claim:
        more = f"{MORE_TRIALS} Shares whose needed samples lie outside of --samples do not count."
        return Claim(name, statement, verdict, figure, rule, LI, more, "needed-samples/needed", weight)


def _met(steps: Numbers) -> Numbers:
    """Whether a criterion was met, with samples before shares: the first axis is drawn across."""
    return np.isfinite(steps).astype(np.float64).swapaxes(0, 1)
