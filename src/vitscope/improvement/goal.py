"""Goals: what a better model is better at, what a step towards it may cost, and when a candidate is still allowed."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, final

from scipy.stats import norm

from vitscope.improvement.figures import Figures
from vitscope.measurement.errors import UserError

RATE = 0.05
"""The one-sided false-alarm rate of the proof that nothing of matter was given up."""
_LEAST_HARM = 1e-3
"""Nats: an edit that costs less than this costs nothing, as far as a few hundred images can tell."""


class AbstractGoal(ABC):
    """A goal. ``cost`` is what it makes smaller."""

    name: ClassVar[str]
    unit: ClassVar[str]

    @abstractmethod
    def cost(self, figures: Figures) -> float:
        """What the search makes smaller: a positive number."""

    def harm(self, before: Figures, after: Figures) -> float:
        """What a step gives up, in nats of mean negative log-likelihood, at least a thousandth."""
        return max(after.change_of_loss(before).mean, _LEAST_HARM)

    def worth(self, before: Figures, after: Figures) -> float:
        """How good a step is: the logarithm of the ratio of costs, for each nat that it gives up."""
        return math.log(self.cost(before) / self.cost(after)) / self.harm(before, after)

    def allows(self, original: Figures, candidate: Figures, give_up: float, tests: int) -> bool:
        """Whether so many test images can be expected to prove that the candidate gives up no more than ``give_up``.

        With a share d of images that only one of the two has right, the standard error of the proof is about
        sqrt(d / tests). The loss of accuracy on the validation images must leave room for 1.64 of them; if there are
        so few test images that nothing can be proven, it must be below half of ``give_up``.
        """
        change = candidate.change_of_accuracy(original)
        discordant = (change.gained + change.lost) / change.count
        room = give_up - float(norm.isf(RATE)) * math.sqrt(discordant / tests)
        return -change.mean <= max(room, give_up / 2 if room <= 0 else 0.0)


@final
class Faster(AbstractGoal):
    """Fewer operations a forward pass, while searching; measured time, when it is proven."""

    name = "faster"
    unit = "operations"

    def cost(self, figures: Figures) -> float:
        """Operations."""
        return float(figures.operations)


@final
class Smaller(AbstractGoal):
    """Fewer weights."""

    name = "smaller"
    unit = "weights"

    def cost(self, figures: Figures) -> float:
        """Weights."""
        return float(figures.weights)


@final
class Calibrated(AbstractGoal):
    """Confidences that can be taken at their word: a lower negative log-likelihood at unchanged predictions."""

    name = "calibrated"
    unit = "nats of negative log-likelihood"

    def cost(self, figures: Figures) -> float:
        """Mean negative log-likelihood."""
        return float(figures.loss.mean())

    def harm(self, before: Figures, after: Figures) -> float:
        """Nothing is given up for it."""
        del before, after
        return 1.0


@final
class Accurate(AbstractGoal):
    """Fewer errors."""

    name = "accurate"
    unit = "share of wrong predictions"

    def cost(self, figures: Figures) -> float:
        """The share of wrong predictions, with half an image added so that it is never 0."""
        return float((~figures.right).sum() + 0.5) / len(figures.right)

    def harm(self, before: Figures, after: Figures) -> float:
        """Nothing is given up for it."""
        del before, after
        return 1.0


GOALS = {goal.name: goal for goal in (Faster(), Smaller(), Calibrated(), Accurate())}


def find_goal(name: str) -> AbstractGoal:
    """The goal of this name. Raises ``UserError`` naming those there are."""
    if name not in GOALS:
        raise UserError(f"There is no goal {name!r}; give {', '.join(GOALS)}.")
    return GOALS[name]
