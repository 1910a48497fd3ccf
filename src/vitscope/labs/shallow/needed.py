"""How many samples are needed: success rates over numbers of samples, and where they pass a share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from scipy.optimize import isotonic_regression

from vitscope.labs.fit import Coefficient, Line, line_of_resamples
from vitscope.labs.shallow.trial import TrialOutcome
from vitscope.measurement.errors import UserError
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.ranges import parse_numbers
from vitscope.measurement.trials import Along, Numbers, label_axes, with_words

LI = (
    "Li, Wang, Liu, Chen: A theoretical understanding of shallow vision transformers: learning, generalization, and "
    "sample complexity, ICLR 2023."
)
SHARE = 0.5
"""Success rate from which samples count as enough."""
MISSING = "not reached"
"""What a page says if no number of samples is enough."""
RESAMPLED = 400
"""Bootstrap samples of the seeds."""

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
    "Share of the trials that misclassified no test image at some evaluation; that takes far fewer samples.",
    "Larger is better.",
)
NEEDED = Quantity(
    "needed",
    "Samples needed",
    "samples",
    "Samples at which half of the trials succeed, interpolated between those tried; at the lower edge of the grid it "
    "can be less. Errors are by bootstrap over seeds, with that of the place between the numbers tried.",
    "Smaller is better.",
)


@dataclass(frozen=True, eq=False)
class Needed:
    """Samples at which the success rate passes `SHARE`, for each setting.

    NaN if the most samples do not suffice; the fewest samples if these already do.
    """

    middle: Float[np.ndarray, " settings"]
    resampled: Float[np.ndarray, "draws settings"]
    """The same for each bootstrap sample of the seeds, which takes all trials of a seed together."""
    grain: Float[np.ndarray, " settings"]
    """Standard deviation of the logarithm, uniform between the numbers of samples tried on either side."""
    fewest: int
    trials: int

    @property
    def error(self) -> Float[np.ndarray, " settings"]:
        """Standard error of the samples, by bootstrap and grid; NaN if some draws have no value."""
        complete = ~np.isnan(self.resampled).any(0) & (self.trials > 1)
        few = np.sqrt(self.trials / max(self.trials - 1, 1))
        spread = np.hypot(few * self.resampled.std(0, ddof=1), self.grain * self.middle)
        return np.where(complete, spread, np.nan)

    @property
    def inside(self) -> "Needed":
        """Only values within the grid: NaN also if the fewest samples suffice."""
        middle, resampled = (np.where(one > self.fewest, one, np.nan) for one in (self.middle, self.resampled))
        return replace(self, middle=middle, resampled=resampled)

    def power(self, x: Numbers) -> Line:
        """The line of log samples over log x, through settings within the grid."""
        inside = self.inside
        return line_of_resamples(x, inside.middle, inside.resampled, self.grain, self.trials)

    def power_above(self, other: "Needed", x: Numbers) -> Coefficient:
        """The slope of log samples over log x less that of the other, through settings within the grid of both.

        Bootstrap samples take the same seeds for both, so what trials of one seed share cancels.
        """
        one, two = self.inside, other.inside
        grain = np.hypot(self.grain, other.grain)
        return line_of_resamples(x, one.middle / two.middle, one.resampled / two.resampled, grain, self.trials).slope


def samples_needed_at(
    samples: Sequence[int], reached: Bool[np.ndarray, "settings samples trials"], seed: int = 0
) -> Needed:
    """Where success rates over samples pass `SHARE`, interpolated on a logarithmic axis.

    Rates are first made monotone by isotonic regression, as more samples harm only by chance. Trials of one seed share
    their initial weights, so the bootstrap draws seeds, not trials. If all trials of a setting change from failure to
    success between the same two numbers, they have no spread, and yet the place between these is unknown: ``grain`` is
    its error.
    """
    generator, trials = np.random.default_rng(seed), reached.shape[2]
    drawn = generator.integers(trials, size=(RESAMPLED, trials))
    again = np.moveaxis(reached[:, :, drawn].mean(3), 2, 0)
    middle, width = np.moveaxis(_crossings(samples, reached.mean(2)), -1, 0)
    return Needed(middle, _crossings(samples, again)[..., 0], width / np.sqrt(12), min(samples), trials)


def curves_of_needed(
    quantity: Quantity, axis: Along, measured: Mapping[str, Needed], theory: Mapping[str, Numbers]
) -> xr.Dataset:
    """Needed samples over an axis, a curve for each kind, with bootstrap errors, and predictions."""
    kinds = Along("curve", [*measured, *theory], "Curve")
    known = [(one.middle, one.error, np.full(len(one.middle), one.trials)) for one in measured.values()]
    beside = [(one, np.full(len(one), np.nan), np.zeros(len(one), dtype=np.int64)) for one in theory.values()]
    mean, error, count = (np.stack(parts) for parts in zip(*known, *beside, strict=True))
    return with_words(
        label_axes(quantity, [kinds, axis], mean, error, count), quantity, predicted=list(theory), missing=MISSING
    )


def axis_of_needed(quantity: Quantity, axis: Along, found: Needed) -> xr.Dataset:
    """Needed samples over one axis, with bootstrap errors."""
    count = np.full(len(found.middle), found.trials)
    return with_words(label_axes(quantity, [axis], found.middle, found.error, count), quantity, missing=MISSING)


def steps_of(outcomes: Sequence[TrialOutcome]) -> Mapping[str, Numbers]:
    """The step at which each trial first met each criterion; NaN if it did not."""
    found = {"hinge": [one.hinge_step for one in outcomes], "0-1": [one.error_step for one in outcomes]}
    return {name: np.array([np.nan if one is None else float(one) for one in steps]) for name, steps in found.items()}


def through(middle: Numbers, shape: Numbers) -> Numbers:
    """A curve known up to a constant, scaled through the geometric mean of the measured values above 0."""
    known = np.isfinite(middle) & np.isfinite(shape) & (middle > 0)
    factor = np.exp(np.mean(np.log(middle[known] / shape[known]))) if known.any() else np.nan
    return factor * shape


def sample_sizes(text: str) -> tuple[int, ...]:
    """The whole numbers that ``8,32,128`` names, ascending, or ``8:1024``, which doubles from the first on."""
    first, colon, last = text.partition(":")
    if not colon:
        sizes = parse_numbers(text)
        return tuple(sorted(map(int, sizes))) if all(one >= 1 and one == int(one) for one in sizes) else _refuse(text)
    if not (first.strip().isdecimal() and last.strip().isdecimal() and 0 < int(first) <= int(last)):
        return _refuse(text)
    sizes = [int(first)]
    while 2 * sizes[-1] <= int(last):
        sizes.append(2 * sizes[-1])
    return tuple(sizes)


def _refuse(text: str) -> tuple[int, ...]:
    raise UserError(f"{text!r} names no numbers of samples: write 8:1024, which doubles, or 8,32,128.")


def _crossings(samples: Sequence[int], rates: Numbers) -> Numbers:
    """Where each row of rates passes `SHARE`, and how far apart the logarithms of the samples around it are."""
    logs = np.log(np.asarray(samples, dtype=np.float64))
    flat = rates.reshape(-1, len(samples))
    return np.array([_crossing(logs, isotonic_regression(row).x) for row in flat]).reshape(*rates.shape[:-1], 2)


def _crossing(logs: Numbers, rates: Numbers) -> tuple[float, float]:
    if rates[-1] < SHARE:
        return np.nan, np.nan
    after = int(np.argmax(rates >= SHARE))
    if after == 0:
        return float(round(np.exp(logs[0]))), np.nan  # exactly the fewest, by which `inside` recognises it
    low, high, width = rates[after - 1], rates[after], float(logs[after] - logs[after - 1])
    return float(np.exp(logs[after - 1] + (SHARE - low) / (high - low) * width)), width
