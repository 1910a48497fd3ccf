"""The proof: one candidate, fixed before the test images are seen, against the original on them."""

from dataclasses import dataclass

import numpy as np

from vitscope.improvement.figures import Figures, expected_calibration_error
from vitscope.improvement.goal import RATE, AbstractGoal, Accurate, Calibrated
from vitscope.measurement.claim import Claim, ClaimKind, Verdict
from vitscope.measurement.estimate import above, samples_needed
from vitscope.measurement.exact import PairedShare, paired_share

_DAVIS = "Non-inferiority by the exact interval of paired shares (Berger and Boos, JASA 1994)"


@dataclass(frozen=True)
class Ratio:
    """A time as a share of another, with its 95 % interval, at a batch size."""

    mean: float
    low: float
    high: float
    batch: int


@dataclass(frozen=True, eq=False)
class Proof:
    """The figures on the test images of the original, of the candidate, and of controls by name.

    ``validation`` is the change of accuracy on the images that chose the candidate: it is biased, and shown for that.
    """

    goal: AbstractGoal
    give_up: float
    original: Figures
    candidate: Figures
    controls: dict[str, Figures]
    validation: PairedShare
    steps: int
    time: Ratio | None = None
    """The candidate's time as a share of the original's; None if it was not timed."""

    @property
    def change(self) -> PairedShare:
        """The change of top-1 accuracy on the test images."""
        return self.candidate.change_of_accuracy(self.original)

    def verdict(self) -> Verdict:
        """Whether the candidate gives up at most ``give_up``: holds, fails, or is undecided, one-sided at 5 %."""
        return above(self.change, -self.give_up, 2 * RATE)

    def claims(self) -> tuple[Claim, ...]:
        """What was gained at what price, and whether the search did better than chance."""
        if not self.steps:
            return (self._nothing(),)
        found = [self._gain()] if isinstance(self.goal, Calibrated | Accurate) else [self._price()]
        found += [self._against(name, figures) for name, figures in self.controls.items()]
        return tuple(found)

    def _nothing(self) -> Claim:
        return Claim(
            name="better-model",
            statement="A better model was found",
            verdict=Verdict.FAILS,
            figure="no step was allowed by the validation images",
            rule="The search takes a step only if the validation images allow it.",
            reference=_DAVIS,
            advice="Allow a larger loss (--give-up), retraining (--retrain 1), or more kinds of edits (--try).",
            evidence="",
            weight=0.9,
            headline=f"No {self.goal.name} model was found at this price: every edit that was tried costs more.",
            kind=ClaimKind.LOOK,
        )

    def _price(self) -> Claim:
        """How much smaller the cost is, and whether accuracy was given up for it."""
        verdict, change = self.verdict(), self.change
        low, high = change.interval(2 * RATE)
        gained, points = self._gained(), f"{100 * self.give_up:g} points"
        headline = {
            Verdict.HOLDS: f"{gained}, and gives up less than {points} of accuracy.",
            Verdict.FAILS: f"{gained}, but gives up more than {points} of accuracy: do not take it.",
            Verdict.UNDECIDED: f"{gained}; whether it gives up less than {points} of accuracy is not proven.",
        }[verdict]
        kind = {Verdict.HOLDS: ClaimKind.GOOD, Verdict.FAILS: ClaimKind.PROBLEM}.get(verdict, ClaimKind.LOOK)
        return Claim(
            name="better-model",
            statement=f"The candidate gives up less than {points} of accuracy",
            verdict=verdict,
            figure=f"{100 * change.mean:+.2f} points on {change.count:,} test images ({change.gained} gained, "
            f"{change.lost} lost), 90 % interval {100 * low:+.2f} to {100 * high:+.2f}; on the validation images, "
            f"which chose it, {100 * self.validation.mean:+.2f}",
            rule=f"The candidate was fixed before the test images were seen. Holds if the lower end of the exact 90 % "
            f"interval of the paired difference of top-1 accuracy is above -{points} (one-sided 5 %), fails if the "
            "upper end is below.",
            reference=_DAVIS,
            advice=self._advice(verdict),
            evidence="proof/accuracy_change",
            weight=1.0,
            headline=headline,
            kind=kind,
            rate=RATE,
        )

    def _gained(self) -> str:
        """What the candidate takes of the original's time or cost, as the beginning of a sentence."""
        share = self.goal.cost(self.candidate) / self.goal.cost(self.original)
        if self.time is None or self.goal.name != "faster":
            return f"It has {share:.0%} of the original's {self.goal.unit}"
        time, other = self.time, f"with {share:.0%} of the {self.goal.unit}"
        if time.high >= 1:
            return f"It is not shown to be faster, {other}"
        return (
            f"It takes {time.mean:.0%} ({time.low:.0%} to {time.high:.0%}) of the original's time at batch "
            f"{time.batch}, {other}"
        )

    def _advice(self, verdict: Verdict) -> str:
        if verdict is Verdict.HOLDS:
            return "Take it: the files are beside this page, with the lines that load each."
        if verdict is Verdict.FAILS:
            return "Allow retraining (--retrain 1), or a larger loss (--give-up)."
        change = self.change

        def judge(count: int) -> Verdict:
            more = count / change.count
            return above(
                paired_share(round(change.gained * more), round(change.lost * more), count), -self.give_up, 2 * RATE
            )

        needed = samples_needed(judge, change.count)
        if needed is None:
            return "No number of images would decide it: the loss seen is the one allowed."
        return f"About {needed:,} test images would decide it, if they are like these."

    def _gain(self) -> Claim:
        """Whether the negative log-likelihood, or the accuracy, is better."""
        accurate = isinstance(self.goal, Accurate)
        change = self.change if accurate else self.candidate.change_of_loss(self.original)
        verdict = above(change, 0.0, 2 * RATE) if accurate else _less(change.interval(2 * RATE))
        before, after = (expected_calibration_error(one) for one in (self.original, self.candidate))
        what = "accuracy" if accurate else "negative log-likelihood"
        amount = f"{100 * change.mean:+.2f} points" if accurate else f"{change.mean:+.4f} nats"
        headline = {
            Verdict.HOLDS: f"It is more {self.goal.name}: {amount} of {what} on test images.",
            Verdict.FAILS: f"It is less {self.goal.name} on test images: {amount} of {what}.",
            Verdict.UNDECIDED: f"Whether it is more {self.goal.name} is not proven: {amount} of {what} on test images.",
        }[verdict]
        return Claim(
            name="better-model",
            statement=f"The candidate is more {self.goal.name}",
            verdict=verdict,
            figure=f"{change.text} over {change.count:,} test images; expected calibration error {before:.3f} before, "
            f"{after:.3f} after; {int((self.original.right != self.candidate.right).sum())} predictions turned",
            rule=f"The candidate was fixed before the test images were seen. Holds if the 90 % interval of the paired "
            f"change of {what} shows a gain (one-sided 5 %).",
            reference="Guo et al., On Calibration of Modern Neural Networks, ICML 2017",
            advice="Take it: the files are beside this page, with the lines that load each."
            if verdict is Verdict.HOLDS
            else "Keep the original.",
            evidence="proof/nll_change",
            weight=1.0,
            headline=headline,
            kind=ClaimKind.GOOD if verdict is Verdict.HOLDS else ClaimKind.LOOK,
            rate=RATE,
        )

    def _against(self, name: str, control: Figures) -> Claim:
        """Whether the candidate is more accurate than a control of the same cost."""
        change = self.candidate.change_of_accuracy(control)
        verdict = above(change, 0.0, 2 * RATE)
        saved = np.array([self.goal.cost(one) / self.goal.cost(self.original) for one in (self.candidate, control)])
        return Claim(
            name=f"beats-{name.replace(' ', '-')}",
            statement=f"The candidate is more accurate than {name}",
            verdict=verdict,
            figure=f"{100 * change.mean:+.2f} points over {change.count:,} test images; cost {saved[0]:.2f} and "
            f"{saved[1]:.2f} of the original's",
            rule="The exact 90 % interval of the paired difference of top-1 accuracy is above 0 (one-sided 5 %).",
            reference=_DAVIS,
            advice="" if verdict is Verdict.HOLDS else "What is removed hardly matters: any choice does as well.",
            evidence="proof/accuracy",
            weight=0.3,
            headline={
                Verdict.HOLDS: f"What was chosen matters: {name} at about the same cost is less accurate.",
                Verdict.FAILS: f"{name.capitalize()} at about the same cost is more accurate.",
                Verdict.UNDECIDED: f"It is not shown to be more accurate than {name} at about the same cost.",
            }[verdict],
            kind=ClaimKind.GOOD if verdict is Verdict.HOLDS else ClaimKind.LOOK,
            rate=RATE,
        )


def _less(interval: tuple[float, float]) -> Verdict:
    low, high = interval
    return Verdict.HOLDS if high < 0 else Verdict.FAILS if low > 0 else Verdict.UNDECIDED
