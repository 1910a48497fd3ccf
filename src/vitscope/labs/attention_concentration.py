"""Attention concentration: on which tokens a shallow transformer attends as it learns, by class of query."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
import xarray as xr

from vitscope.labs.lab import LABS, Datasets, Values
from vitscope.labs.shallow.attention import AttentionProfile
from vitscope.labs.shallow.criterion import Criterion
from vitscope.labs.shallow.ensemble import train
from vitscope.labs.shallow.keep import KeepAll
from vitscope.labs.shallow.lab import AbstractShallowLab
from vitscope.labs.shallow.needed import LI
from vitscope.labs.shallow.theory import attention_gap, initial_attention
from vitscope.labs.shallow.token_model import Role
from vitscope.labs.shallow.trial import ShallowTrial
from vitscope.labs.verdict import join_advice, judge_all, read_mean
from vitscope.measurement.bounds import SHARE, bounded_field
from vitscope.measurement.claim import Claim, ClaimKind, Verdict
from vitscope.measurement.estimate import above
from vitscope.measurement.exact import Share
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.trials import Along, Numbers, curves, log_spaced, over_trials, prediction

CONCENTRATED = 0.95
"""Attention on relevant keys above which it is called concentrated."""
FROZEN = 0.01
"""Attention that rises by less than this over the last half of the steps, a decade or less, has stopped."""
QUERIES = ("relevant", "confusion", "irrelevant", "all")
KEYS = ("relevant", "confusion", "irrelevant")
EVERY = 10
"""Steps between two evaluations."""
_ROLES = [int(role) for role in (Role.RELEVANT, Role.CONFUSION, Role.IRRELEVANT)]
LONGER = "Train longer (--steps): it is not certain that attention has stopped."
STOPPED = (
    "Longer training changes nothing: attention has stopped, as the hinge loss has no gradient once all margins are 1. "
    "That of relevant queries goes further if places reveal roles (--no-shuffled)."
)

MASS = Quantity(
    "mass",
    "Attention mass",
    "1",
    "Total attention of these queries on all keys of a role, on test images.",
    "The theorem predicts large values on relevant keys.",
)
ENTROPY = Quantity(
    "entropy",
    "Attention entropy",
    "nats",
    "Mean entropy of the attention of these queries; log(tokens) is uniform.",
    "Smaller is sparser.",
)
FINAL = Quantity(
    "final_mass",
    "Attention on relevant keys",
    "1",
    "Attention mass of these queries on relevant keys after the last step.",
    "The theorem predicts large values.",
)
RISE = Quantity(
    "late_rise",
    "Rise over the last half",
    "1",
    "Rise of the mass on relevant keys over the last half of the steps.",
)
RISING = Quantity(
    "rising",
    "Trials that still rise",
    "1",
    f"Share of the trials whose mass on relevant keys rose by more than {FROZEN:g} over the last half of the steps.",
)
START = Quantity(
    "predicted_start",
    "Predicted start",
    "1",
    "Attention on keys of the query's own pattern before training, for exact features without noise.",
)
HINGE = Quantity("hinge", "Hinge loss", "1", "Mean hinge loss on test images.", "Smaller is better.")


@LABS.add("attention-concentration")
@final
@dataclass(frozen=True)
class AttentionConcentration(AbstractShallowLab):
    r"""Where a shallow transformer attends as it learns, for relevant queries and for others separately.

    By Li, Wang, Liu and Chen (ICLR 2023) the attention on label-relevant tokens,

    .. math:: \sum_{i \in S_*} \mathrm{softmax}(X^T W_K^T W_Q x_l)_i \to 1 - \eta^C,

    approaches its limit at a sublinear rate, as 1/t. The curve called predicted has that rate from the measured start
    on; its one free constant is set so that it meets the measured curve at the geometric middle of the steps.

    Two things differ from how the result is often told. Queries of different roles behave differently: relevant queries
    attend to relevant keys from early on, while over all queries the mass is far lower. And the hinge loss has no
    gradient once every margin is 1, so attention freezes before any limit.

    Conclude how far attention concentrated by the end of these steps, by class of query. Do not conclude a limit from
    a curve that has frozen, nor that a trained deep model's attention is sparse.
    """

    name = "attention-concentration"
    title = "Attention concentration"
    question = "Where does attention go as it learns?"
    at_once = 4

    alpha: float = bounded_field(0.3, SHARE)
    """Share of relevant tokens."""
    samples: int = 400
    """Training images."""
    noise: float = 0.1
    law: Literal["ball", "gaussian"] = "ball"
    """Distribution of the noise; the theorems assume ball, gaussian has a mean square length of tau squared."""
    sigma: float = 0.1
    delta: float = 0.1
    rate: float = 0.5
    steps: int = 1000
    """Steps of training; a multiple of 10."""
    tests: int = 128
    """Test images; attention is measured on a quarter of them."""

    @classmethod
    def smoke(cls) -> "AttentionConcentration":
        """A few tokens, forty steps."""
        few = cls(alpha=0.4, samples=16, token_count=10, patterns=4, confusion=0.1, neurons=8)
        return replace(few, batch_size=4, steps=40, tests=32, trials=2)

    def plan_trials(self) -> tuple[ShallowTrial, ...]:
        """One setting, a trial for each seed."""
        data, other = self.tokens(self.alpha, law=self.law)
        criterion = Criterion(goal="none", steps=self.steps, every=EVERY)
        shared = (data, self.model(), self.samples, self.rate, self.batch_size, criterion, KeepAll(), self.tests, other)
        return tuple(ShallowTrial(seed, *shared, watched=max(1, self.tests // 4)) for seed in self.seeds)

    def run_trials(self, trials: Sequence[ShallowTrial]) -> Values:
        """Masses by query, key and step, entropies by query and step, and the loss."""
        outcomes, places = train(trials), self._places
        read = [[one.profiles[place] for place in places] for one in outcomes]
        return {
            "mass": np.array([np.stack([_mass(one) for one in of], -1) for of in read]),
            "entropy": np.array([np.stack([_entropy(one) for one in of], -1) for of in read]),
            "hinge": np.array([[one.hinge[place] for place in places] for one in outcomes]),
        }

    def datasets_of(self, values: Values) -> Datasets:
        """A group for each class of query, and the loss."""
        steps = Along("step", list(self._steps), "Step of training", "steps", logarithmic=True)
        mass, entropy = (np.moveaxis(values[name], 0, -1) for name in ("mass", "entropy"))
        groups = {
            f"queries-{name}": self._of_query(name, mass[place], entropy[place], steps)
            for place, name in enumerate(QUERIES)
        }
        loss = over_trials(HINGE, [steps], np.moveaxis(values["hinge"], 0, -1))
        return {**groups, "test-loss": self.group("test loss", "Mean hinge loss on test images.", loss)}

    def claims(self, datasets: Datasets, rate: float) -> tuple[Claim, ...]:
        """Concentration of relevant queries and of all, and whether attention is still rising."""
        rise, rising = (read_mean(datasets["queries-relevant"], one.name) for one in (RISE, RISING))
        still, more = judge_all(lambda one: above(one, 0.5, rate), Share(rising.mean, rising.error, rising.count))
        longer = STOPPED if still is Verdict.FAILS else LONGER
        return (
            self._concentrates(datasets, "relevant", longer, 0.9, rate),
            self._concentrates(datasets, "all", longer, 0.8, rate),
            Claim(
                "concentration-continues",
                "Attention of relevant queries still rises at the end",
                still,
                f"it rose by {rise.text} over the last half of the steps, by more than {FROZEN:g} in "
                f"{rising.mean:.0%} of {rising.count} trials",
                f"It rises by more than {FROZEN:g} in more than half of all trials, by the exact interval of their "
                "share (Clopper and Pearson); if it fails, attention has stopped and shows no limit.",
                LI,
                join_advice(more, longer),
                "queries-relevant/mass",
                0.6,
                kind=ClaimKind.THEORY,
                rate=rate,
            ),
        )

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
            "" if name == "relevant" else "Attention of these queries alone, defined as for relevant queries.",
            curves(MASS, [steps], measured, theory),
            over_trials(ENTROPY, [steps], entropy),
            *self._numbers(name, mass[0]),
        )

    def _numbers(self, name: str, mass: Numbers) -> tuple[xr.Dataset, ...]:
        """The final mass of relevant queries and of all; of relevant ones also late rise and predicted start."""
        if name not in ("relevant", "all"):
            return ()
        end = over_trials(replace(FINAL, label=f"{FINAL.label}, {name} queries"), [], mass[-1])
        if name == "all":
            return (end,)
        middle = int(np.argmin(np.abs(np.array(self._steps) - self.steps // 2)))
        start = prediction(START, [], np.array(initial_attention(self.alpha)))
        rise = mass[-1] - mass[middle]
        return end, over_trials(RISE, [], rise), over_trials(RISING, [], (rise > FROZEN).astype(np.float64)), start

    def _sublinear(self, mass: Numbers) -> Numbers:
        """The curve of rate 1/t from the first mass through that of the middle step."""
        gap, steps = 1 - mass, np.array(self._steps)
        middle = len(steps) // 2
        elapsed = steps - steps[0]
        if not gap[0] > gap[middle] > 0:
            return np.full(len(steps), np.nan)
        speed = (1 / gap[middle] - 1 / gap[0]) / elapsed[middle]
        return np.array([1 - attention_gap(float(step), float(gap[0]), float(speed)) for step in elapsed])

    def _concentrates(self, datasets: Datasets, query: str, longer: str, weight: float, rate: float) -> Claim:
        found, last = datasets[f"queries-{query}"], self._steps[-1]
        words = {"relevant": "relevant queries", "all": "all queries together"}[query]
        mass = read_mean(found, "mass", curve="relevant", step=last)
        verdict, more = judge_all(lambda one: above(one, CONCENTRATED, rate), mass)
        return Claim(
            f"concentration-{query}",
            f"Attention of {words} concentrates on relevant keys",
            verdict,
            f"{float(found['mass'].sel(curve='relevant')[0]):.3g} at first, {mass.text} after {last} steps",
            f"The mass is above {CONCENTRATED:g} by Student's interval over trials.",
            LI,
            join_advice(more, longer),
            f"queries-{query}/mass",
            weight,
            kind=ClaimKind.THEORY,
            rate=rate,
        )


def _mass(profile: AttentionProfile) -> Numbers:
    """Attention mass of each class of query, all of them last, by role of key."""
    by_role = profile.mass[0, _ROLES][:, _ROLES]
    every = profile.overall[0, _ROLES]
    return np.concatenate([by_role.double().numpy(), every.double().numpy()[None]])


def _entropy(profile: AttentionProfile) -> Numbers:
    """Attention entropy of each class of query, all of them last."""
    found, count = profile.entropy[0].double().numpy(), profile.queries[0].double().numpy()
    every = np.nansum(found * count) / count.sum()
    return np.append(found[_ROLES], every)
