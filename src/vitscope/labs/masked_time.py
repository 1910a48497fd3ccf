"""Masked pretraining: how long local patches take to find their own area, against its size."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from vitscope.labs.fit import Line, line_of_trials
from vitscope.labs.lab import LABS, Datasets, Values
from vitscope.labs.masked.areas import HUANG, pairs_of
from vitscope.labs.masked.clusters import ClusteredPatches
from vitscope.labs.masked.lab import AbstractMaskedLab
from vitscope.labs.masked.theory import mean_field_time
from vitscope.labs.masked.training import MaskedTraining, MaskedTrial, first_reached, train
from vitscope.labs.verdict import join_advice, judge_all, read_mean
from vitscope.measurement.bounds import SHARE, bounded_field
from vitscope.measurement.claim import Claim, ClaimKind, Verdict
from vitscope.measurement.estimate import Estimate, below
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.trials import Along, Numbers, over_trials, prediction, with_words

FACTOR = 1.5
"""The mean-field time counts as right within this factor."""
STRAIGHT = 0.95
"""Growth counts as linear if a straight line explains more than this share of the variance of mean times."""

TIME = Quantity(
    "time",
    "Steps to half",
    "steps",
    "When hidden local patches first give half of their attention to their own area, if a patch of it is visible.",
    "Smaller is faster.",
)
MEAN_FIELD = Quantity(
    "predicted_time",
    "Steps to half, mean field",
    "steps",
    "The same in closed form, for one strength, the mean number of visible patches and nothing else that learns.",
)
NEVER = Quantity(
    "never", "Never reached half", "1", "Share of the trials that did not reach half.", "Smaller is better."
)
EXPONENT = Quantity(
    "exponent",
    "Exponent of the time",
    "1",
    "Slope of log time against log P / C_s by least squares, the mean over trials. Terms that do not "
    "grow with P / C_s pull it below the exponent of the leading one.",
)
SLOPE = Quantity("slope", "Slope of the time", "steps", "Slope of the time against P / C_s by least squares.")
OFFSET = Quantity("offset", "Offset of the time", "steps", "Where that line meets P / C_s = 0.")


@LABS.add("masked-time")
@final
@dataclass(frozen=True)
class MaskedTime(AbstractMaskedLab):
    r"""How the time until local patches attend to their own area grows as local areas become a smaller share.

    The theorem (Huang, Wen, Chi, Liang, arXiv 2403.02233) bounds the time from above by

    .. math:: \frac1\eta \Bigl[\log P \, P^{\max\{2 (U / Lo - 1), 1\} (1 - \kappa_s)}
       + \frac1\epsilon \log \frac{P}{\epsilon}\Bigr]

    with local areas of :math:`P^{\kappa_s}` patches; for equal strengths the first term is
    :math:`P^{1 - \kappa_s} = P / C_s` times log P. The lab measures the step at which attention to the own area, if a
    patch of it is visible, reaches one half. The predicted time is that of a mean field (one strength, the mean number
    of visible patches, no other feature or position that learns), in closed form and without a free constant.

    Conclude how the time grows over this range. A slope of log time below 1 does not contradict the theorem, which is
    an upper bound and has a second term; nor does a straight line prove the exponent: P / C_s covers less than a
    decade.
    """

    name = "masked-time"
    title = "Masked pretraining: time"
    question = "How long does masked pretraining take?"

    sizes: str = "64/8,100/10,100/8,64/4,100/5,100/4,144/4"
    """Patches of an image / of a local area; several separated by commas."""
    global_share: float = bounded_field(0.2, SHARE)
    """Approximate share of the patches in the global area: the rest is made of whole local areas."""
    clusters: int = 2
    masked_share: float = bounded_field(0.5, SHARE)
    steps: int = 100
    """Steps of training, at most."""
    evaluated: int = 128
    trials: int = 6

    @classmethod
    def smoke(cls) -> "MaskedTime":
        """Two sizes of a few patches."""
        return cls(sizes="12/4,16/3,16/2", steps=40, batch_size=8, evaluated=32, trials=3)

    @property
    def data(self) -> tuple[ClusteredPatches, ...]:
        """The distributions, by P / C_s."""
        pairs = sorted(set(pairs_of(self.sizes, "sizes")), key=lambda pair: pair[0] / pair[1])
        made: dict[float, ClusteredPatches] = {}
        for patches, local in pairs:
            whole = patches - max(1, round(patches * (1 - self.global_share) / local)) * local
            made.setdefault(patches / local, self.areas_of(patches, whole, local))
        return tuple(made.values())

    def form(self, trial: MaskedTrial) -> Hashable:
        """The setting, which fixes the numbers of patches and areas."""
        return trial.setting

    def run_trials(self, trials: Sequence[MaskedTrial]) -> Values:
        """The step at which each trial reaches half; NaN if it does not."""
        recorded = tuple(range(0, self.steps + 1, 2))
        trajectory = train(trials, MaskedTraining(recorded, self.batch_size, self.evaluated, torch.float32))
        reached = first_reached(trajectory.steps, trajectory.reading.local_attention, 0.5)
        return {"time": reached.double().numpy()}

    def datasets_of(self, values: Values) -> Datasets:
        """Times over P / C_s, and the line through them."""
        ratios = self._ratios
        axis = Along("patch_ratio", list(ratios), "Patches over those of a local area, P / C_s")
        times = values["time"].reshape(len(ratios), -1)
        alone = np.array([mean_field_time(one, self.rate) if one.low == one.high else np.nan for one in self.data])
        complete = np.isfinite(times).all()
        line = line_of_trials(ratios, times, logarithmic=False) if complete else Line.unknown()
        power = line_of_trials(ratios, times, logarithmic=True) if complete else Line.unknown()
        parts = (
            with_words(over_trials(TIME, [axis], times), TIME, missing="not reached"),
            prediction(MEAN_FIELD, [axis], alone),
        )
        never = over_trials(NEVER, [axis], np.isnan(times).astype(np.float64))
        fits = (power.slope.dataset(EXPONENT), line.slope.dataset(SLOPE), line.offset.dataset(OFFSET))
        return {"masked-time": self.group("steps to half", "", *parts, never, *fits)}

    def claims(self, datasets: Datasets, rate: float) -> tuple[Claim, ...]:
        """Whether growth keeps to the bound, whether it is linear, and whether the mean field predicts it."""
        found = datasets["masked-time"]
        times, alone = found["time"].values, found["predicted_time"].values
        exponent = read_mean(found, "exponent")
        bound = max(2 * (self.high / self.low - 1), 1.0) if self.low else np.inf
        known = bool(np.isfinite(exponent.mean) and len(self._ratios) > 2)
        straight = float(np.corrcoef(self._ratios, times)[0, 1] ** 2) if known else np.nan
        apart = np.abs(np.log(times / alone))
        return (
            self._claim(
                "time-bound",
                f"The time grows no faster than P / C_s{f' to the power {bound:g}' if bound != 1 else ''}",
                judge_all(lambda one: below(one, bound, rate), exponent if known else Estimate(np.nan, np.nan, 0)),
                f"exponent {exponent.mean:.3f} ± {exponent.error:.3f}",
                f"The exponent's interval of Student's t over trials is below {bound:g}.",
                rate,
            ),
            self._claim(
                "time-linear",
                "The time is a straight line in P / C_s",
                (_verdict(straight > STRAIGHT, known), ""),
                f"r² {straight:.3f}, {float(found['slope']):.2f} steps for each P / C_s, {float(found['offset']):+.1f}",
                f"A straight line explains more than {STRAIGHT:g} of the variance of the mean times, of at least three "
                "sizes; a threshold, not a test.",
            ),
            self._claim(
                "time-mean-field",
                f"The mean field predicts the time within a factor of {FACTOR:g}",
                (_verdict(bool(apart.max() < np.log(FACTOR)), bool(np.isfinite(apart).all())), ""),
                f"measured over predicted: {_span(times / alone)}",
                f"Mean time over prediction is between 1/{FACTOR:g} and {FACTOR:g} for every size; a threshold.",
            ),
        )

    @property
    def _ratios(self) -> Numbers:
        return np.array([one.patches / one.local_size for one in self.data])

    def _claim(
        self, name: str, statement: str, tested: tuple[Verdict, str], figure: str, rule: str, rate: float | None = None
    ) -> Claim:
        weight = {"time-bound": 0.9, "time-linear": 0.7}.get(name, 0.5)
        longer = join_advice(tested[1], "Raise --steps if half is not always reached.")
        rest = (figure, rule, HUANG, longer, "masked-time/time", weight)
        return Claim(name, statement, tested[0], *rest, kind=ClaimKind.THEORY, rate=rate)


def _verdict(holds: bool, known: bool) -> Verdict:
    """The verdict of a threshold, undecided if the value is unknown."""
    return (Verdict.HOLDS if holds else Verdict.FAILS) if known else Verdict.UNDECIDED


def _span(values: Numbers) -> str:
    finite = values[np.isfinite(values)]
    return f"{finite.min():.2f} to {finite.max():.2f}" if finite.size else "not known"
