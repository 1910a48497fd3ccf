"""Spurious tokens: what a pattern that only happens to agree with the label does to a shallow transformer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from vitscope.labs.lab import LABS, Datasets, Values
from vitscope.labs.shallow.criterion import Criterion
from vitscope.labs.shallow.ensemble import train
from vitscope.labs.shallow.keep import DropSpurious, KeepAll
from vitscope.labs.shallow.lab import AbstractShallowLab
from vitscope.labs.shallow.needed import LI
from vitscope.labs.shallow.token_model import AbstractTokens
from vitscope.labs.shallow.trial import ShallowTrial
from vitscope.labs.verdict import judge_all, read_mean
from vitscope.measurement.bounds import SHARE, bounded_field
from vitscope.measurement.claim import Claim, ClaimKind
from vitscope.measurement.estimate import Estimate, above
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.ranges import parse_numbers
from vitscope.measurement.trials import Along, curves, over_trials, prediction

KINDS = ("all tokens", "spurious removed")

HINGE = Quantity(
    "hinge",
    "Hinge loss where the pattern says nothing",
    "1",
    "Mean hinge loss, after training, on test images whose spurious pattern agrees with the label half of the time.",
    "Smaller is better.",
)
ERROR = Quantity(
    "error",
    "0-1 error where the pattern says nothing",
    "1",
    "Share of such test images misclassified after training.",
    "Smaller is better.",
)
GAIN = Quantity(
    "gain",
    "Gain by removing",
    "1",
    "Error with all tokens less error without spurious ones, for the same images and the same start.",
    "Above 0, removing helps.",
)
MOST = replace(GAIN, name="most_gain", meaning="The gain at the largest agreement.")
NOTHING = Quantity(
    "predicted_gain", "Gain, predicted without bias", "1", "0, for a pattern that is no more in the way than others."
)


@LABS.add("spurious-tokens")
@final
@dataclass(frozen=True)
class SpuriousTokens(AbstractShallowLab):
    r"""What a spurious pattern costs that agrees with the label in training and says nothing about it in testing.

    An image has, besides relevant and confusion tokens, a share of tokens of one spurious pattern, which is that of its
    label with probability ``agreement`` in training and 1/2 in testing. The network

    .. math:: F(X) = \frac{1}{|S|} \sum_{l \in S} a_l^T \mathrm{ReLU}\bigl(W_O W_V X_S
       \,\mathrm{softmax}(X_S^T W_K^T W_Q x_l)\bigr)

    is trained on all tokens S, or on those that are not spurious (an oracle). Li, Wang, Liu and Chen (ICLR 2023) say
    that removing tokens of spurious patterns improves testing.

    Conclude what the removal gains at this agreement and number of images. The oracle knows which tokens are spurious:
    do not conclude that a rule without it would gain as much. With an agreement of 1/2 there is no bias and removal
    still raises the share of relevant tokens.
    """

    name = "spurious-tokens"
    title = "Spurious tokens"
    question = "What do spurious tokens cost?"

    agreement: str = "0.5,0.7,0.8,0.9,1.0"
    """Probabilities that the spurious pattern agrees with the label in training: start:stop:count, or a list."""
    spurious: float = bounded_field(0.2, SHARE)
    """Share of spurious tokens."""
    samples: int = 64
    """Training images."""
    alpha: float = bounded_field(0.2, SHARE)
    """Share of relevant tokens."""
    steps: int = 200
    """Steps of training; a multiple of 20."""
    trials: int = 16

    @classmethod
    def smoke(cls) -> "SpuriousTokens":
        """A few trials of a few tokens."""
        few = cls(agreement="0.5,0.9", samples=8, alpha=0.4, token_count=10, patterns=6, confusion=0.1, neurons=8)
        return replace(few, batch_size=4, steps=20, tests=32, trials=2)

    def plan_trials(self) -> tuple[ShallowTrial, ...]:
        """Trials ordered by agreement, kind of tokens and seed."""
        criterion = Criterion(goal="none", steps=self.steps, every=20)
        shared = (self.model(), self.samples, self.rate, self.batch_size, criterion)
        tests = self._tokens(0.5)
        return tuple(
            ShallowTrial(seed, tokens[0], *shared, keep, self.tests, tests[1] or tests[0])
            for tokens in map(self._tokens, parse_numbers(self.agreement))
            for keep in (KeepAll(), DropSpurious())
            for seed in self.seeds
        )

    def run_trials(self, trials: Sequence[ShallowTrial]) -> Values:
        """Hinge loss and 0-1 error at the end."""
        outcomes = train(trials)
        return {
            "hinge": np.array([one.hinge[-1] for one in outcomes]),
            "error": np.array([one.error[-1] for one in outcomes]),
        }

    def datasets_of(self, values: Values) -> Datasets:
        """Loss, error and gain over agreement."""
        levels = parse_numbers(self.agreement)
        top = int(np.argmax(levels))
        axis = Along("agreement", list(levels), "Agreement of the spurious pattern with the label in training")
        found = {name: one.reshape(len(levels), 2, -1) for name, one in values.items()}
        hinge, error = ({kind: found[name][:, i] for i, kind in enumerate(KINDS)} for name in ("hinge", "error"))
        gain = found["error"][:, 0] - found["error"][:, 1]
        return {
            "spurious-error": self.group(
                "error", "", curves(ERROR, [axis], error, {}), curves(HINGE, [axis], hinge, {})
            ),
            "spurious-gain": self.group(
                "gain by removing",
                "Error with all tokens less error without spurious ones, trial by trial.",
                over_trials(GAIN, [axis], gain, 1 / self.tests),
                over_trials(
                    replace(MOST, label=f"{GAIN.label}, agreement {max(levels):g}"), [], gain[top], 1 / self.tests
                ),
                prediction(NOTHING, [axis], np.zeros(len(levels))),
            ),
        }

    def claims(self, datasets: Datasets, rate: float) -> tuple[Claim, ...]:
        """Whether removing helps, at each agreement."""
        found = datasets["spurious-gain"]
        return tuple(
            self._helps(read_mean(found, "gain", agreement=one), one, rate) for one in parse_numbers(self.agreement)
        )

    def _helps(self, gain: Estimate, level: float, rate: float) -> Claim:
        verdict, more = judge_all(lambda one: above(one, 0.0, rate), gain)
        return Claim(
            "removal-helps",
            f"At an agreement of {level:g}, removing spurious tokens improves testing",
            verdict,
            f"0-1 error less by {gain.text}",
            "The gain is above 0 by Student's interval over trials.",
            LI,
            more,
            "spurious-gain/gain",
            round(0.5 + 0.4 * abs(level - 0.5), 3),
            kind=ClaimKind.THEORY,
            rate=rate,
        )

    def _tokens(self, agreement: float) -> tuple[AbstractTokens, AbstractTokens | None]:
        return self.tokens(self.alpha, spurious=self.spurious, agreement=agreement)
