"""Results of trials: accuracy by point and seed, learning curves, paired differences, and which point is best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float64

from vitscope.measurement.claim import Claim, ClaimKind, Verdict
from vitscope.measurement.crossed import Crossed, crossed_difference
from vitscope.measurement.errors import UserError
from vitscope.measurement.estimate import above, rate_of, samples_needed
from vitscope.measurement.points import Points
from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.measurement.trials import Along, over_trials

_QUESTION = "Which recipe is best?"
_JORDAN = "Jordan, On the Variance of Neural Network Training, ICLR 2024 (2304.01910)"
_SATTERTHWAITE = "Satterthwaite, An approximate distribution of estimates of variance components, Biometrics 1946"
_ACCURACY = Quantity(
    "accuracy", "Test accuracy", "1", "Share of the test images whose class is predicted.", "Larger is better."
)
_NLL = Quantity(
    "nll", "Test negative log-likelihood", "nats", "Mean cross-entropy of the test images.", "Smaller is better."
)
_DIFFERENCE = Quantity(
    "accuracy_difference",
    "Test accuracy, less that of the first point",
    "1",
    "Share of the test images that this point has right and the first has wrong, less the reverse, over all seeds. The "
    "standard error is over images and seeds together.",
    "Larger is better.",
)


@dataclass(frozen=True)
class Trials:
    """All trainings: the grid's points, the seeds, and the groups of each training's run, seeds fastest.

    A training that diverged has no groups, and ``diverged`` says why. A point is compared if none of its trainings did.
    """

    points: Points
    seeds: Sequence[int]
    groups: Sequence[Mapping[str, xr.Dataset]]
    diverged: Sequence[str]

    def __post_init__(self) -> None:
        if not any(self.groups):
            raise UserError(f"Every training of the grid diverged. The first: {self.diverged[0]}")

    def at(self, point: int) -> Sequence[Mapping[str, xr.Dataset]]:
        """The trainings of a point, seed by seed."""
        return self.groups[point * len(self.seeds) : (point + 1) * len(self.seeds)]

    @cached_property
    def names(self) -> list[str]:
        """Each point in words; ``the recipe`` if the grid varies nothing."""
        return [name or "the recipe" for name in self.points.names]

    @cached_property
    def right(self) -> dict[int, Float64[np.ndarray, "seeds images"]]:
        """Which test images each seed has right, by the number of a compared point; empty without test images."""
        if not self.tested:
            return {}
        return {at: np.stack([_right(one["predictions"]) for one in self.at(at)]) for at in self.compared}

    @property
    def tested(self) -> bool:
        """Whether there were test images."""
        return all("predictions" in groups for groups in self.groups if groups)

    @property
    def compared(self) -> list[int]:
        """The numbers of the points none of whose trainings diverged."""
        return [number for number in range(len(self.names)) if all(self.at(number))]

    @property
    def failures(self) -> tuple[str, ...]:
        """A sentence for each training that diverged."""
        each = [f"{name}, seed {seed}" for name in self.names for seed in self.seeds]
        return tuple(f"{one}: {why}" for one, why in zip(each, self.diverged, strict=True) if why)

    @property
    def validation(self) -> Float64[np.ndarray, "points seeds"] | None:
        """The validation accuracy by which each training chose its epoch; None without a validation split.

        NaN for a training that diverged.
        """
        trained = [groups["training"] if groups else None for groups in self.groups]
        if not all("validation_accuracy" in one for one in trained if one is not None):
            return None
        best = [np.nan if one is None else float(one["validation_accuracy"].max()) for one in trained]
        return np.array(best).reshape(len(self.names), len(self.seeds))


def describe_trials(trials: Trials) -> tuple[dict[str, xr.Dataset], tuple[str, ...]]:
    """The groups of the trials' run, and its notes."""
    groups = {"trials": _by_seed(trials)} if trials.tested else {}
    groups["learning-curves"] = _curves(trials)
    if len(trials.right) > 1:
        groups["trial-differences"] = _differences(trials)
    notes = () if len(trials.seeds) > 1 else ("One seed: how far chance alone moves an accuracy is unknown.",)
    return groups, (*trials.failures, *notes)


def judge_trials(trials: Trials) -> tuple[Claim, ...]:
    """Whether the point that validation chooses beats every other on the test images."""
    if trials.validation is None or len(trials.right) < 2:
        return ()
    best = max(trials.right, key=trials.validation.mean(1).__getitem__)
    others = [point for point in trials.right if point != best]
    changes = [crossed_difference(trials.right[best], trials.right[other]) for other in others]
    rate = rate_of(len(others))
    nearest = min(range(len(others)), key=lambda number: changes[number].interval(rate)[0])
    change, other = changes[nearest], trials.names[others[nearest]]
    verdicts = [above(one, 0.0, rate) for one in changes]
    fails = next((number for number, one in enumerate(verdicts) if one is Verdict.FAILS), None)
    verdict = Verdict.HOLDS if set(verdicts) == {Verdict.HOLDS} else Verdict.UNDECIDED
    if fails is not None:
        verdict, change, other = Verdict.FAILS, changes[fails], trials.names[others[fails]]
    return (_claim(trials.names[best], other, change, verdict, rate),)


def _claim(best: str, other: str, change: Crossed, verdict: Verdict, rate: float) -> Claim:
    low, high = change.interval(rate)
    said = {
        Verdict.HOLDS: (ClaimKind.GOOD, f"Take {best}: it beats every other point.", ""),
        Verdict.FAILS: (
            ClaimKind.LOOK,
            f"Validation chose {best}, but {other} does better on the test images.",
            "Hold out more images for validation, and choose again.",
        ),
        Verdict.UNDECIDED: (
            ClaimKind.LOOK,
            f"Validation chose {best}, but these trainings do not separate it from {other}.",
            _more(change, rate),
        ),
    }
    kind, headline, advice = said[verdict]
    return Claim(
        name="best-point",
        statement="The point of the grid that validation chooses beats every other",
        verdict=verdict,
        figure=f"{best} less {other}: {100 * change.mean:+.2f} points of test accuracy over {change.seeds} seeds, "
        f"{100 * (1 - rate):.3g} % interval {100 * low:+.2f} to {100 * high:+.2f}",
        rule="The point with the best mean validation accuracy less each other point, by seed and test image: holds if "
        "every interval (errors over images and seeds together, Student's t with Satterthwaite's degrees of freedom, "
        "Bonferroni's share of the rate) is above 0, fails if one is below.",
        reference=f"{_JORDAN}; {_SATTERTHWAITE}",
        advice=advice,
        evidence="trial-differences/accuracy_difference",
        weight=0.8,
        headline=headline,
        kind=kind,
        rate=rate,
    )


def _more(change: Crossed, rate: float) -> str:
    if change.seeds < 2:
        return "Repeat with several seeds (--seeds 3): one seed cannot separate a lucky run from a better recipe."

    def judge(seeds: int) -> Verdict:
        spread = change.over_seeds * (change.seeds / seeds) ** 0.5
        error = float(np.hypot(change.over_images, spread))
        return above(
            Crossed(change.mean, error, change.count, over_images=change.over_images, over_seeds=spread, seeds=seeds),
            0.0,
            rate,
        )

    more = samples_needed(judge, change.seeds)
    if more is None or more > 1000:
        return "No number of seeds would separate them on these test images: take the cheaper one."
    return f"About {more} seeds would decide it, if they are like these (--seeds {more})."


def _right(predictions: xr.Dataset) -> Float64[np.ndarray, " images"]:
    return (predictions["predicted"].values == predictions["label"].values).astype(np.float64)


def _by_seed(trials: Trials) -> xr.Dataset:
    """Accuracy and likelihood along the grid's axes and ``seed``; the deviation over seeds along the grid's only."""
    parts = [_read_point(trials, point) for point in range(len(trials.names))]
    words = {
        "title": "Trials",
        "question": _QUESTION,
        "definition": "Each training's accuracy on the test images, which it saw once, when it was finished. The "
        "standard error is over images; the deviation over seeds is separate, since more images do not reduce it.",
        "references": [_JORDAN],
    }
    return trials.points.stack(parts).assign_attrs(words)


def _read_point(trials: Trials, point: int) -> xr.Dataset:
    seed = {"seed": ("seed", [str(one) for one in trials.seeds], {"long_name": "seed"})}
    groups = [one.get("predictions") for one in trials.at(point)]
    none = np.empty(0)  # a training that diverged has no value
    columns = {
        _ACCURACY: [none if one is None else _right(one) for one in groups],
        _NLL: [none if one is None else one["loss"].values for one in groups],
    }
    parts = [_over_images(quantity, values, seed) for quantity, values in columns.items()]
    deviation = Quantity(
        "accuracy_deviation",
        "Deviation of test accuracy over seeds",
        "1",
        "Standard deviation of the accuracy over a point's seeds; its standard error assumes a normal distribution.",
        "Smaller is steadier.",
    )
    found = parts[0]["accuracy"].values[np.isfinite(parts[0]["accuracy"].values)]
    if len(trials.seeds) > 1:
        spread = found.std(ddof=1) if len(found) > 1 else np.nan
        error = spread / np.sqrt(2 * (len(found) - 1)) if len(found) > 1 else np.nan
        parts.append(label_quantity(deviation, (), np.array(spread), np.array(error), np.array(len(found)), {}))
    return xr.merge(parts, combine_attrs="override")


def _over_images(quantity: Quantity, rows: Sequence[np.ndarray], coords: Mapping[str, Any]) -> xr.Dataset:
    finite = [row[np.isfinite(row)].astype(np.float64) for row in rows]
    mean = np.array([row.mean() if len(row) else np.nan for row in finite])
    error = np.array([row.std(ddof=1) / np.sqrt(len(row)) if len(row) > 1 else np.nan for row in finite])
    return label_quantity(quantity, ("seed",), mean, error, np.array([len(row) for row in finite]), coords)


def _curves(trials: Trials) -> xr.Dataset:
    """Every figure of the epochs along ``point`` and ``epoch``: means and standard errors over seeds."""
    first = next(groups for groups in trials.groups if groups)["training"]
    names = [str(name) for name in first.data_vars if f"{name}_error" in first and first[name].dims == ("epoch",)]
    epochs = [max(one["training"].sizes["epoch"] for one in trials.groups if one)]
    axes = [
        Along("point", trials.names, "Point of the grid"),
        Along("epoch", list(range(1, epochs[0] + 1)), "Epoch"),
    ]
    parts: list[xr.Dataset] = []
    for name in names:
        said = first[name].attrs
        meaning = str(said["meaning"]).partition("; the standard error")[0].rstrip(".")
        quantity = Quantity(name, said["long_name"], said["units"], f"{meaning}.", said["better"])
        values = np.full((len(trials.names), epochs[0], len(trials.seeds)), np.nan)
        for point in range(len(trials.names)):
            for seed, one in enumerate(trials.at(point)):
                if name in one.get("training", ()):
                    found = one["training"][name].values
                    values[point, : len(found), seed] = found
        parts.append(over_trials(quantity, axes, values))
    words = {
        "title": "Learning curves",
        "question": _QUESTION,
        "definition": "The figures of each epoch, by point of the grid; the standard error is over seeds.",
        "references": [_JORDAN],
    }
    return xr.merge(parts, combine_attrs="override").assign_attrs(words)


def _differences(trials: Trials) -> xr.Dataset:
    """Each compared point less the first compared point, along ``point``."""
    first, *others = trials.right
    changes = [crossed_difference(trials.right[other], trials.right[first]) for other in others]
    names = [trials.names[other] for other in others]
    coords = {"point": ("point", names, {"long_name": f"Point of the grid, less {trials.names[first]}"})}
    means, errors = (np.array([getattr(one, name) for one in changes]) for name in ("mean", "error"))
    counts = np.array([one.count for one in changes])
    found = label_quantity(_DIFFERENCE, ("point",), means, errors, counts, coords)
    ends = np.array([one.interval(0.05) for one in changes])
    plain: dict[str, Any] = {
        f"accuracy_difference_{end}": ("point", ends[:, place], {"long_name": f"{end} end of the 95 % interval"})
        for place, end in enumerate(("low", "high"))
    }
    words = {
        "title": "Differences between points",
        "question": _QUESTION,
        "definition": "Points are compared by seed and by test image. With the squares a and b of the standard errors "
        "over images and over seeds, the error is the root of a + b, and the interval is Student's t with "
        "Satterthwaite's degrees of freedom.",
        "references": [_SATTERTHWAITE, _JORDAN],
    }
    return found.assign(plain).assign_attrs(words)
