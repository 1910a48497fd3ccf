"""Token sparsification: which rule of keeping tokens lets a shallow transformer learn from fewer images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import final

import numpy as np
import xarray as xr

from vitscope.labs.lab import LABS, Datasets, Values
from vitscope.labs.shallow.keep import (
    AbstractKeep,
    KeepAll,
    KeepAtRandom,
    KeepByAttention,
    KeepByMagnitude,
    KeepByRole,
    KeepInProportion,
    KeepLeastNoisy,
)
from vitscope.labs.shallow.lab import AbstractNeededLab
from vitscope.labs.shallow.needed import LI, NEEDED, SUCCESS, SUCCESS_01, Needed, axis_of_needed, samples_needed_at
from vitscope.labs.shallow.theory import samples_with_attention
from vitscope.labs.shallow.trial import ShallowTrial
from vitscope.labs.verdict import join_advice, judge_all, read_mean
from vitscope.measurement.bounds import SHARE, bounded_field
from vitscope.measurement.claim import Claim, ClaimKind
from vitscope.measurement.errors import UserError
from vitscope.measurement.estimate import above
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.trials import Along, Numbers, curves, over_trials, prediction

ALL, RANDOM = "all", "random"
RULES: Mapping[str, Callable[[float], AbstractKeep]] = MappingProxyType(
    {
        "oracle": KeepByRole,
        "least noisy": KeepLeastNoisy,
        "attention": KeepByAttention,
        "magnitude": KeepByMagnitude,
        RANDOM: KeepAtRandom,
        "proportion": KeepInProportion,
    }
)
"""Rules of keeping a share of the tokens, by name; `all` is added to them."""

PREDICTED = Quantity(
    "predicted_needed",
    "Samples needed, predicted",
    "samples",
    "The need with all tokens, times the change in the theorem's bound by the relevant share among those kept.",
)
GAIN = Quantity(
    "gain",
    "Gain in success",
    "1",
    "Success rate over all numbers of images less that of all tokens, seed by seed. If the numbers double, "
    "the gain times how many there are is the number of doublings by which fewer images are needed.",
    "Larger is better.",
)
GAIN_ON_RANDOM = replace(
    GAIN,
    name="gain_on_random",
    label="Gain in success over random",
    meaning="Success rate over all numbers of images less that of as many tokens kept at random, seed by seed.",
)
FIRST = replace(GAIN, name="first_gain", meaning="The gain of the first rule.")


@LABS.add("token-sparsification")
@final
@dataclass(frozen=True)
class TokenSparsification(AbstractNeededLab):
    r"""How many images a shallow transformer needs when only a share of the tokens is kept, by the rule of keeping.

    The theorem of Li, Wang, Liu and Chen (ICLR 2023) has the share of relevant tokens among those kept and the noise,

    .. math:: N \ge C (\alpha_* - c'(1 - \zeta) - c''(\sigma + \tau))^{-2},

    so that a rule that raises the share (an oracle that drops irrelevant tokens) or lowers the noise (an oracle that
    keeps the least noisy) should need fewer images, and a random one should not. Two more rules need no oracle: they
    keep the tokens most attended by the model as it is trained, or those of the largest norm. The prediction drawn is
    :math:`\alpha_*^{-2}` of the share among the tokens kept by the oracle, through the value measured with all tokens;
    it is the same for all and for random.

    Dropping tokens has a cost of its own here: the frozen top layer has separate weights for every place, so an image
    is read differently if other places are kept; ``shared_top`` removes that. And a rule that does not know the roles
    leaves some images without a majority of their label, 5 in 100 at half of the tokens here, which no network can
    learn to the hinge criterion; ``proportion``, an oracle that thins all roles alike, does not. Hence each rule is
    compared with all tokens, as in the theorem, and with as many tokens kept at random.

    Conclude which rules help at this share and noise. Attention selects tokens before it has learned anything: if it
    helps here, that is because the initial model is good, by assumption. Do not conclude that attention finds the
    relevant tokens of images; nor from `undecided` that a rule is useless.
    """

    name = "token-sparsification"
    title = "Token sparsification"
    question = "Which tokens can be left out?"

    rules: str = "oracle,least noisy,attention,magnitude,random"
    """Rules of keeping, besides all: oracle, least noisy, attention, magnitude, random, proportion."""
    keep: float = bounded_field(0.5, SHARE)
    """Share of the tokens that is kept."""
    alpha: float = bounded_field(0.2, SHARE)
    """Share of relevant tokens."""

    @classmethod
    def smoke(cls) -> "TokenSparsification":
        """A few trials of a few tokens."""
        few = cls(rules="oracle,random", samples="4:8", alpha=0.4, token_count=10, patterns=4, confusion=0.1, neurons=8)
        return replace(few, batch_size=4, steps=40, loss=0.9, tests=32, trials=2)

    def plan_trials(self) -> tuple[ShallowTrial, ...]:
        """Trials ordered by rule, samples and seed."""
        tokens, model = self.tokens(self.alpha), self.model()
        rules = [self._keep(name) for name in self._names]
        return tuple(trial for rule in rules for trial in self.over_sizes(tokens, model, rule))

    def datasets_of(self, values: Values) -> Datasets:
        """Success over samples, and samples needed, by rule."""
        names, sizes = self._names, self.sizes
        met = {name: np.isfinite(one).reshape(len(names), len(sizes), -1) for name, one in values.items()}
        samples = Along("samples", list(sizes), "Training images", logarithmic=True)
        rules = Along("rule", list(names), "Rule of keeping tokens")
        hinge, error = (
            {name: met[criterion][place].astype(np.float64) for place, name in enumerate(names)}
            for criterion in ("hinge", "0-1")
        )
        found, rates = samples_needed_at(sizes, met["hinge"]), met["hinge"].mean(1)
        step = 1 / len(sizes)
        gains = [over_trials(GAIN, [rules], rates - rates[0], step)]
        first = replace(FIRST, label=f"{GAIN.label} by {names[1]}, against {ALL}")
        gains.append(over_trials(first, [], rates[1] - rates[0], step))
        if RANDOM in names:
            gains.append(over_trials(GAIN_ON_RANDOM, [rules], rates - rates[names.index(RANDOM)], step))
        parts = (axis_of_needed(NEEDED, rules, found), prediction(PREDICTED, [rules], self._theory(found)))
        return {
            "samples-needed": self.group("samples needed", "", *parts, *gains),
            "success-by-rule": self.group(
                "success",
                "Share of the trials that met either criterion within the steps.",
                curves(SUCCESS, [samples], hinge, {}),
                curves(SUCCESS_01, [samples], error, {}),
            ),
        }

    def claims(self, datasets: Datasets, rate: float) -> tuple[Claim, ...]:
        """For each rule, whether it needs fewer images than all tokens do, and than as many at random."""
        found, names = datasets["samples-needed"], self._names[1:]
        fewer = [self._fewer(found.sel(rule=name), name, ALL, rate) for name in names]
        if RANDOM in names:
            others = [name for name in names if name != RANDOM]
            fewer += [self._fewer(found.sel(rule=name), name, RANDOM, rate) for name in others]
        return tuple(fewer)

    @property
    def _names(self) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in self.rules.split(",")))
        unknown = next((name for name in names if name not in RULES), None)
        if unknown is not None:
            raise UserError(f"{unknown!r} is not a rule of keeping tokens; choose among {', '.join(RULES)}.")
        return (ALL, *names)

    def _keep(self, name: str) -> AbstractKeep:
        return KeepAll() if name == ALL else RULES[name](self.keep)

    def _theory(self, found: Needed) -> Numbers:
        """Samples needed by the rules that change the share in a known way, from those needed with all tokens."""
        discriminative = self.alpha + self.confusion
        kept = self.alpha * min(1 / self.keep, 1 / discriminative)
        shares = {ALL: self.alpha, "random": self.alpha, "oracle": kept}
        law = [samples_with_attention(shares[name]) if name in shares else np.nan for name in self._names]
        return found.middle[0] * np.array(law) / law[0]

    def _fewer(self, found: xr.Dataset, name: str, other: str, rate: float) -> Claim:
        gain = read_mean(found, (GAIN if other == ALL else GAIN_ON_RANDOM).name)
        images = float(found["needed"])
        verdict, more = judge_all(lambda one: above(one, 0.0, rate), gain)
        return Claim(
            f"fewer-{name.replace(' ', '-')}-than-{other}",
            f"Keeping {self.keep:g} of the tokens by {name} needs fewer images than "
            f"{'keeping all' if other == ALL else 'keeping as many at random'}",
            verdict,
            f"gain in success {gain.text}; images needed: {f'{images:.0f}' if np.isfinite(images) else 'not reached'}",
            "The gain in success over all numbers of images is above 0 by Student's interval over seeds.",
            LI,
            join_advice(more, "Widen --samples if the images needed lie outside of it."),
            "samples-needed/needed",
            (0.9 if name in ("oracle", "attention") else 0.7) - (0.15 if other == RANDOM else 0),
            kind=ClaimKind.THEORY,
            rate=rate,
        )
