"""Attention concentration: on which tokens a shallow transformer attends as it learns, by class of query."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import xarray as xr

from vitscope.labs.dataset import Along, Numbers, curves, over_trials, predicted
from vitscope.labs.lab import LABS, AbstractLab, Datasets, Values
from vitscope.labs.masked.training import log_spaced
from vitscope.labs.needed import LI
from vitscope.labs.shallow.attention import AttentionProfile
from vitscope.labs.shallow.criterion import Criterion
from vitscope.labs.shallow.ensemble import train
from vitscope.labs.shallow.shallow_vit import ShallowVit
from vitscope.labs.shallow.theory import attention_gap, initial_attention
from vitscope.labs.shallow.token_model import Role, TokenModel
from vitscope.labs.shallow.trial import Trial
from vitscope.labs.verdict import FALSE_ALARMS, read_mean
from vitscope.measurement.claim import Claim, Verdict
from vitscope.measurement.quantity import Quantity

CONCENTRATED = 0.95
"""Attention on relevant keys above which it is called concentrated."""
FROZEN = 0.01
"""Attention that rises by less than this over the last half of the steps, a decade or less, has come to a stop."""
QUERIES = ("relevant", "confusion", "irrelevant", "all")
KEYS = ("relevant", "confusion", "irrelevant")
EVERY = 10
"""Steps between two evaluations."""
_ROLES = [int(role) for role in (Role.RELEVANT, Role.CONFUSION, Role.IRRELEVANT)]
LONGER = (
    "Train longer (--steps); to see the limit, with a smaller --rate, since the hinge loss stops learning at margin 1."
)

MASS = Quantity(
    "mass",
    "Attention mass",
    "1",
    "Attention of these queries on all keys of a role together, on test images.",
    "Larger on relevant keys is what the theorem says.",
)
ENTROPY = Quantity(
    "entropy",
    "Attention entropy",
    "nats",
    "Mean entropy of the attention of these queries; log(tokens) is uniform.",
    "Smaller is sparser.",
)
RISE = Quantity(
    "late_rise",
    "Rise over the last half",
    "1",
    "How much the mass on relevant keys rose from half of the steps on.",
)
START = Quantity(
    "predicted_start",
    "Predicted start",
    "1",
    "Attention on keys of the own pattern before training, of exact features without noise.",
)
HINGE = Quantity("hinge", "Hinge loss", "1", "Mean hinge loss on test images.", "Smaller is better.")


@LABS.add("attention-concentration")
@final
@dataclass(frozen=True)
class AttentionConcentration(AbstractLab[Trial]):
    r"""Where a shallow transformer attends as it learns, for relevant queries and for others apart.

    By Li, Wang, Liu and Chen (ICLR 2023) the attention on label-relevant tokens,

    .. math:: \sum_{i \in S_*} \mathrm{softmax}(X^T W_K^T W_Q x_l)_i \to 1 - \eta^C,

    comes near its limit at a sublinear rate, as 1/t. The curve called predicted has that rate, from the measured start
    on; its one free constant is set so that it meets the measured curve at the geometric middle of the steps.

    Two things differ from how the statement is often told. Queries of different roles do not do the same: relevant
    queries attend to relevant keys from early on, while over all queries the mass is far lower. And the hinge loss has
    no gradient once every margin is 1, so that attention freezes before any limit.

    Conclude how far attention concentrated by the end of these steps, by class of query. Do not conclude a limit from
    a curve that has frozen, nor that a trained deep model's attention is sparse.
    """

    name = "attention-concentration"
    title = "Attention concentration"
    question = "Where does attention go as it learns?"
    references = (LI,)
    at_once = 4

    alpha: float = 0.3
    """Share of relevant tokens."""
    samples: int = 400
    """Training images."""
    token_count: int = 40
    """Tokens of an image."""
    patterns: int = 10
    """Patterns, and entries of a token."""
    confusion: float = 0.05
    """Share of tokens with the pattern of the other label."""
    noise: float = 0.1
    """Largest distance of a token from its pattern, tau; of its square the mean by law gaussian."""
    law: Literal["ball", "gaussian"] = "ball"
    """Law of the noise; the theorems are on ball."""
    sigma: float = 0.1
    """Error of the initial values."""
    delta: float = 0.1
    """Error of the initial queries and keys."""
    neurons: int = 50
    """Neurons of the perceptron."""
    rate: float = 0.5
    """Learning rate."""
    batch_size: int = 20
    """Images of a step."""
    steps: int = 1000
    """Steps of training; a multiple of 10."""
    tests: int = 128
    """Test images; attention is read on a quarter of them."""
    trials: int = 8
    """Trials, by further seeds."""
    seed: int = 0
    """Seed of the first trial."""

    @classmethod
    def smoke(cls) -> "AttentionConcentration":
        """A few tokens, forty steps."""
        return cls(0.4, 16, 10, 4, 0.1, neurons=8, batch_size=4, steps=40, tests=32, trials=2)

    def planned(self) -> tuple[Trial, ...]:
        """One setting, by seeds."""
        data = TokenModel(
            self.patterns, self.patterns, self.token_count, self.alpha, self.confusion, self.noise, self.law
        )
        model = ShallowVit(self.neurons, self.patterns, self.patterns, self.sigma, self.delta)
        criterion = Criterion(goal="none", steps=self.steps, every=EVERY)
        seeds = range(self.seed, self.seed + self.trials)
        shared = (data, model, self.samples, self.rate, self.batch_size, criterion)
        return tuple(Trial(seed, *shared, tests=self.tests, watched=max(1, self.tests // 4)) for seed in seeds)

    def form(self, trial: Trial) -> Hashable:
        """All alike."""
        return trial.form

    def carried_out(self, trials: Sequence[Trial]) -> Values:
        """Masses by query, key and step, entropies by query and step, and the loss."""
        outcomes, places = train(trials), self._places
        read = [[one.profiles[place] for place in places] for one in outcomes]
        return {
            "mass": np.array([np.stack([_mass(one) for one in of], -1) for of in read]),
            "entropy": np.array([np.stack([_entropy(one) for one in of], -1) for of in read]),
            "hinge": np.array([[one.hinge[place] for place in places] for one in outcomes]),
        }

    def measured(self, values: Values) -> Datasets:
        """A group for each class of query, and the loss."""
        steps = Along("step", list(self._steps), "Step of training", "steps", logarithmic=True)
        mass, entropy = (np.moveaxis(values[name], 0, -1) for name in ("mass", "entropy"))
        groups = {
            f"queries-{name}": self._of_query(name, mass[place], entropy[place], steps)
            for place, name in enumerate(QUERIES)
        }
        loss = over_trials(HINGE, [steps], np.moveaxis(values["hinge"], 0, -1))
        return {**groups, "test-loss": self.group("test loss", "Mean hinge loss on test images.", loss)}

    def claims(self, datasets: Datasets) -> tuple[Claim, ...]:
        """Concentration of relevant queries and of all, and whether attention is still rising."""
        last = self._steps[-1]
        claims: list[Claim] = []
        for name, weight in (("relevant", 0.9), ("all", 0.8)):
            found = datasets[f"queries-{name}"]
            mass = read_mean(found, "mass", curve="relevant", step=last)
            words = "all queries together" if name == "all" else "relevant queries"
            claims.append(
                self._claim(
                    f"concentration-{name}",
                    f"Attention of {words} concentrates on relevant keys",
                    mass.above(CONCENTRATED),
                    f"{float(found['mass'].sel(curve='relevant')[0]):.3g} at first, {mass.text} after {last} steps",
                    f"The mass is above {CONCENTRATED:g} by Student's interval over trials, false-alarm rate "
                    f"{FALSE_ALARMS:g}.",
                    name,
                    weight,
                )
            )
        rise = read_mean(datasets["queries-relevant"], "late_rise")
        claims.append(
            self._claim(
                "concentration-continues",
                "Attention of relevant queries still rises at the end",
                rise.above(FROZEN),
                f"it rose by {rise.text} over the last half of the steps",
                f"The rise is above {FROZEN:g} by Student's interval over trials, false-alarm rate {FALSE_ALARMS:g}; "
                "where it fails, attention has come to a stop and shows no limit.",
                "relevant",
                0.6,
            )
        )
        return tuple(claims)

    @property
    def _places(self) -> tuple[int, ...]:
        return log_spaced(self.steps // EVERY, 24)[1:]

    @property
    def _steps(self) -> tuple[int, ...]:
        return tuple(EVERY * place for place in self._places)

    def _of_query(self, name: str, mass: Numbers, entropy: Numbers, steps: Along) -> xr.Dataset:
        measured = {key: mass[place] for place, key in enumerate(KEYS)}
        theory = {"relevant, predicted as 1/t": self._sublinear(mass[0].mean(-1))}
        return self.group(
            f"{name} queries",
            ""
            if name == "relevant"
            else "Attention of these queries alone; the definition is that of relevant queries.",
            curves(MASS, [steps], measured, theory),
            over_trials(ENTROPY, [steps], entropy),
            *(self._numbers(mass[0]) if name == "relevant" else ()),
        )

    def _numbers(self, mass: Numbers) -> tuple[xr.Dataset, xr.Dataset]:
        """Of relevant queries, whether they still learn, and where they should have begun."""
        middle = int(np.argmin(np.abs(np.array(self._steps) - self.steps // 2)))
        start = predicted(START, [], np.array(initial_attention(self.alpha)))
        return over_trials(RISE, [], mass[-1] - mass[middle]), start

    def _sublinear(self, mass: Numbers) -> Numbers:
        """The curve of rate 1/t from the first mass through that of the middle step."""
        gap, steps = 1 - mass, np.array(self._steps)
        middle = len(steps) // 2
        elapsed = steps - steps[0]
        if not gap[0] > gap[middle] > 0:
            return np.full(len(steps), np.nan)
        speed = (1 / gap[middle] - 1 / gap[0]) / elapsed[middle]
        return np.array([1 - attention_gap(float(step), float(gap[0]), float(speed)) for step in elapsed])

    def _claim(
        self, name: str, statement: str, verdict: Verdict, figure: str, rule: str, query: str, weight: float
    ) -> Claim:
        return Claim(name, statement, verdict, figure, rule, LI, LONGER, f"queries-{query}/mass", weight)


def _mass(profile: AttentionProfile) -> Numbers:
    """Queries by keys."""
    by_role = profile.mass[0, _ROLES][:, _ROLES]
    every = profile.overall[0, _ROLES]
    return np.concatenate([by_role.double().numpy(), every.double().numpy()[None]])


def _entropy(profile: AttentionProfile) -> Numbers:
    """Of each class of query, and of all."""
    found, count = profile.entropy[0].double().numpy(), profile.queries[0].double().numpy()
    every = np.nansum(found * count) / count.sum()
    return np.append(found[_ROLES], every)
