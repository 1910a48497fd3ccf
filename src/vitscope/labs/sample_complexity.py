"""Sample complexity: how many images a shallow transformer needs, against the share of relevant tokens."""

from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
import xarray as xr

from vitscope.labs.fit import Line, line_of_trials
from vitscope.labs.lab import LABS, Datasets, Values
from vitscope.labs.shallow.lab import EVERY, AbstractNeededLab
from vitscope.labs.shallow.needed import (
    LI,
    MISSING,
    NEEDED,
    SUCCESS,
    SUCCESS_01,
    Needed,
    curves_of_needed,
    samples_needed_at,
    through,
)
from vitscope.labs.shallow.theory import (
    iterations_with_attention,
    iterations_without_attention,
    samples_with_attention,
    samples_without_attention,
)
from vitscope.labs.shallow.trial import ShallowTrial
from vitscope.labs.verdict import join_advice, judge_all, read_mean
from vitscope.measurement.claim import Claim, ClaimKind, Verdict
from vitscope.measurement.estimate import Estimate, above, below, between
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.ranges import parse_numbers
from vitscope.measurement.trials import Along, Numbers, curves, over_trials, with_words

KINDS = ("attention", "no attention")
CRITERIA = ("hinge", "0-1")
SLACK = 0.5
"""An exponent of samples counts as 2 if it surely differs by less than this."""
TEST = "interval of Student's t, with its error over seeds and of the grid"
STEP_SLACK = 0.25
"""An exponent of steps counts as 1 if it surely differs by less than this."""

STEPS = Quantity(
    "needed_steps",
    "Steps needed",
    "steps",
    "Steps until the hinge loss is below --loss, with the most samples, over the trials that got there.",
    "Smaller is better.",
)
ERROR = Quantity(
    "error",
    "0-1 error on other objects",
    "1",
    "Share of the test images misclassified at the end, of objects not trained on; 1/2 is chance.",
    "Smaller is better.",
)
HINGE = Quantity(
    "hinge",
    "Hinge loss on other objects",
    "1",
    "Mean hinge loss of those images at the end; 1 is that of an output of 0.",
    "Smaller is better.",
)
FALL = Quantity(
    "error_fall",
    "Fall of the error with the share",
    "1",
    "With the most images: 0-1 error at the smallest share of relevant patches less that at the largest, seed by seed.",
)
EXPONENTS = {
    kind: Quantity(
        f"exponent_{kind.replace(' ', '_')}",
        f"Exponent, {kind}",
        "1",
        "Needed samples grow as the share to minus this power, by the hinge criterion and within the grid; its error "
        "is that of a bootstrap over seeds, with that of the grid.",
    )
    for kind in KINDS
}
GAP = Quantity(
    "exponent_gap",
    "Exponent without attention less that with it",
    "1",
    "By the hinge criterion, over the shares whose needed samples are within the grid for both; its error is that "
    "of a bootstrap over seeds, the same ones for both, with that of the grid.",
)
STEP_EXPONENT = Quantity(
    "exponent_steps",
    "Exponent of the steps, attention",
    "1",
    "Needed steps grow as the share to minus this power, over the shares at which all trials got there: the mean over "
    "seeds.",
)


@LABS.add("sample-complexity")
@final
@dataclass(frozen=True)
class SampleComplexity(AbstractNeededLab):
    r"""How many images a shallow transformer needs to learn, with attention and without.

    Tokens are noisy patterns. The label is decided by the majority between two patterns; a share :math:`\alpha_*` of
    the tokens is relevant. The network is

    .. math:: F(X) = \frac1L \sum_l a_l^T \mathrm{ReLU}\bigl(W_O W_V X \,\mathrm{softmax}(X^T W_K^T W_Q x_l)\bigr)

    trained by SGD on the hinge loss. By Li, Wang, Liu and Chen (ICLR 2023) it suffices to have

    .. math:: N \ge C (\alpha_* - c'(1 - \zeta) - c''(\sigma + \tau))^{-2} \quad \text{with attention}, \qquad
       N \ge C (\alpha_* (\alpha_* - \sigma - \tau))^{-2} \quad \text{without},

    and steps as :math:`1 / \alpha_*` and :math:`1 / \alpha_*^2`. The lab measures the number of samples at which half
    of the trials succeed, by hinge loss and separately by 0-1 error. The curves called predicted are
    :math:`\alpha_*^{-2}` and :math:`\alpha_*^{-4}` through the mean of the measured values: the constants are unknown.

    Conclude how the needed samples of this model grow over these shares, within these steps: if they are too few, steps
    are missing, not samples. Both theorems are upper bounds: a smaller exponent contradicts neither, and that one bound
    grows faster than another does not say that the needed numbers do. Do not conclude from this that attention helps or
    does not help a deep model on images.
    """

    name = "sample-complexity"
    title = "Sample complexity"
    question = "How many images does it need?"

    alpha: str = "0.1,0.15,0.2,0.3,0.45"
    """Shares of relevant tokens: start:stop:count, or a list."""
    noise: float = 0.3
    law: Literal["ball", "gaussian"] = "ball"
    """Distribution of the noise; the theorems assume ball, gaussian has a mean square length of tau squared."""
    sigma: float = 0.3

    @classmethod
    def smoke(cls) -> "SampleComplexity":
        """A few trials of a few tokens."""
        few = cls(alpha="0.3,0.5", samples="4:16", token_count=10, patterns=4, confusion=0.1, neurons=8)
        return replace(few, batch_size=4, steps=40, loss=0.9, tests=32, trials=3)

    def plan_trials(self) -> tuple[ShallowTrial, ...]:
        """Trials with attention, then without; each ordered by share, samples and seed."""
        data = [self.tokens(share, law=self.law) for share in self._shares]
        models = [self.model(attention=kind == KINDS[0]) for kind in KINDS]
        return tuple(trial for model in models for tokens in data for trial in self.over_sizes(tokens, model))

    def datasets_of(self, values: Values) -> Datasets:
        """Phase diagrams, needed samples and needed steps over the share of relevant tokens."""
        sizes, shares = self.sizes, np.array(self._shares)
        steps = {name: one.reshape(2, len(shares), len(sizes), -1) for name, one in values.items()}
        alpha = Along("alpha", list(shares), "Share of relevant tokens", logarithmic=True)
        samples = Along("samples", list(sizes), "Training images", logarithmic=True)
        found = self._samples_needed(steps)
        groups = {
            f"success-{kind.replace(' ', '-')}": self.group(
                f"success, {kind}",
                "Share of the trials that met either criterion within the steps.",
                over_trials(SUCCESS, [alpha, samples], _is_met(steps["hinge"][place])),
                over_trials(SUCCESS_01, [alpha, samples], _is_met(steps["0-1"][place])),
            )
            for place, kind in enumerate(KINDS)
        }
        taken = {kind: steps["hinge"][place, :, -1] for place, kind in enumerate(KINDS)}
        return {
            **self._remaining_losses(values, [alpha, samples]),
            "needed-samples": self.group(
                "samples needed",
                "",
                curves_of_needed(NEEDED, alpha, found, self._theory(found, shares)),
                *(found[f"{kind}, hinge"].power(1 / shares).slope.dataset(EXPONENTS[kind]) for kind in KINDS),
                found["no attention, hinge"].power_above(found["attention, hinge"], 1 / shares).dataset(GAP),
            ),
            **groups,
            "needed-steps": self.group(
                "steps needed",
                "Steps until the hinge loss is below the threshold, with the most samples. The predictions are the "
                "theorems' powers through the mean of the measured values.",
                with_words(curves(STEPS, [alpha], taken, self._theory_steps(taken, shares)), STEPS, missing=MISSING),
                _step_power(taken["attention"], shares).slope.dataset(STEP_EXPONENT),
            ),
        }

    def claims(self, datasets: Datasets, rate: float) -> tuple[Claim, ...]:
        """The bound on the exponent with attention, its value, the gap to no attention, and the exponent of steps."""
        found = datasets["needed-samples"]
        one, other, gap = (read_mean(found, quantity.name) for quantity in (*EXPONENTS.values(), GAP))
        fallen = KINDS if self.planted and len(self._shares) > 1 else ()
        shared = found[GAP.name].attrs["points"]
        said = f"exponent {_in_words(one)} with attention, {_in_words(other)} without"
        return (
            self._claim(
                "samples-bound",
                "With attention the needed samples grow no faster than the share of relevant tokens to the power -2",
                judge_all(lambda power: below(power, 2.0, rate), one),
                said,
                f"The exponent is below 2 by the {TEST}.",
                (0.9, rate),
            ),
            self._claim(
                "samples-exponent",
                "With attention the needed samples grow as the share of relevant tokens to the power -2",
                judge_all(lambda power: between(power, 2.0 - SLACK, 2.0 + SLACK, rate), one),
                said,
                f"The exponent is within {SLACK:g} of 2 by the {TEST}; it fails if the interval excludes that.",
                (0.8, rate),
            ),
            self._claim(
                "samples-without-attention",
                "Without attention the needed samples grow faster than with it",
                judge_all(lambda apart: above(apart, 0.0, rate), gap),
                f"{said}; difference {_in_words(gap, sign='+')}, over {shared} shares that both have",
                "The difference of the exponents, over the shares whose needed samples are within the grid for both, "
                f"is above 0 by the {TEST}.",
                (0.85, rate),
            ),
            self._steps_grow(datasets["needed-steps"], rate),
            *(self._falls(datasets[f"error-{kind.replace(' ', '-')}"], kind, rate) for kind in fallen),
        )

    @property
    def _shares(self) -> tuple[float, ...]:
        return tuple(sorted(set(parse_numbers(self.alpha))))

    def _samples_needed(self, steps: Values) -> dict[str, Needed]:
        """The samples needed, by kind and criterion."""
        sizes = self.sizes
        return {
            f"{kind}, {criterion}": samples_needed_at(sizes, np.isfinite(steps[criterion][place]))
            for criterion in CRITERIA
            for place, kind in enumerate(KINDS)
        }

    def _remaining_losses(self, values: Values, axes: list[Along]) -> dict[str, xr.Dataset]:
        """Loss and error at the end, if images are planted."""
        groups: dict[str, xr.Dataset] = {}
        for place, kind in enumerate(KINDS if self.planted else ()):
            hinge, error = (
                values[name].reshape(2, *(len(axis.values) for axis in axes), -1)[place]
                for name in ("last hinge", "last error")
            )
            groups[f"error-{kind.replace(' ', '-')}"] = self.group(
                f"error, {kind}",
                "What remains when training ends, on images of objects not trained on.",
                over_trials(ERROR, axes, error),
                over_trials(HINGE, axes, hinge),
                over_trials(
                    replace(FALL, label=f"{FALL.label}, {kind}"), [], error[0, -1] - error[-1, -1], 1 / self.tests
                ),
            )
        return groups

    def _falls(self, found: xr.Dataset, kind: str, rate: float) -> Claim:
        fall, error = read_mean(found, FALL.name), found[ERROR.name].isel(samples=-1).values
        verdict, more = judge_all(lambda one: above(one, 0.0, rate), fall)
        return Claim(
            f"error-falls-{kind.replace(' ', '-')}",
            f"With {kind}, a larger share of relevant patches lowers the error on other objects",
            verdict,
            f"by {fall.text}, from {error[0]:.3g} to {error[-1]:.3g} with {int(found['samples'][-1])} images",
            "The fall is above 0 by Student's interval over trials.",
            LI,
            more,
            f"error-{kind.replace(' ', '-')}/{ERROR.name}",
            0.95 if kind == KINDS[0] else 0.94,
            kind=ClaimKind.THEORY,
            rate=rate,
        )

    def _theory(self, found: dict[str, Needed], shares: Numbers) -> dict[str, Numbers]:
        laws = (samples_with_attention, samples_without_attention)
        return {
            f"{kind}, predicted": through(found[f"{kind}, hinge"].inside.middle, np.array([law(one) for one in shares]))
            for kind, law in zip(KINDS, laws, strict=True)
        }

    def _theory_steps(self, taken: dict[str, Numbers], shares: Numbers) -> dict[str, Numbers]:
        laws = (iterations_with_attention, iterations_without_attention)
        means = {
            kind: over_trials(STEPS, [Along("alpha", list(shares), "")], one)["needed_steps"].values
            for kind, one in taken.items()
        }
        return {
            f"{kind}, predicted": through(means[kind], np.array([law(one) for one in shares]))
            for kind, law in zip(KINDS, laws, strict=True)
        }

    def _steps_grow(self, found: xr.Dataset, rate: float) -> Claim:
        exponent = read_mean(found, STEP_EXPONENT.name)
        verdict, more = judge_all(lambda one: between(one, 1.0 - STEP_SLACK, 1.0 + STEP_SLACK, rate), exponent)
        return Claim(
            "steps-exponent",
            "With attention the needed steps grow as the share of relevant tokens to the power -1",
            verdict,
            f"exponent {_in_words(exponent)}, with {self.sizes[-1]} images",
            f"The exponent, over the shares at which all trials got there, is within {STEP_SLACK:g} of 1 by the "
            f"{TEST}; it fails if the interval excludes that.",
            LI,
            join_advice(more, "Shares at which a trial did not get there do not count; raise --steps for them."),
            f"needed-steps/{STEPS.name}",
            0.7,
            kind=ClaimKind.THEORY,
            rate=rate,
        )

    def _claim(
        self,
        name: str,
        statement: str,
        tested: tuple[Verdict, str],
        figure: str,
        rule: str,
        weighed: tuple[float, float],
    ) -> Claim:
        """A claim on needed samples; ``weighed`` are its weight and its test's rate."""
        more = join_advice(tested[1], "Shares whose needed samples lie outside of --samples do not count.")
        rest = (figure, rule, LI, more, "needed-samples/needed", weighed[0])
        return Claim(name, statement, tested[0], *rest, kind=ClaimKind.THEORY, rate=weighed[1])


def _step_power(steps: Numbers, shares: Numbers) -> Line:
    """The power of the steps over the shares at which all trials got there; at others only fast trials are known."""
    complete = np.isfinite(steps).all(1)
    grain = EVERY / np.sqrt(12) / steps[complete].mean(1)
    return line_of_trials(1 / shares[complete], steps[complete], logarithmic=True, grain=grain)


def _in_words(exponent: Estimate, sign: str = "") -> str:
    known = np.isfinite(exponent.mean)
    return f"{exponent.mean:{sign}.2f} ± {exponent.error:.2f}" if known else "unknown"


def _is_met(steps: Numbers) -> Numbers:
    """1 for each trial that met the criterion, else 0."""
    return np.isfinite(steps).astype(np.float64)
