"""A search and its proof as labelled arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from vitscope.improvement.figures import expected_calibration_error
from vitscope.improvement.goal import AbstractGoal
from vitscope.improvement.proof import Proof, Ratio
from vitscope.improvement.search import Candidate, TriedMove
from vitscope.measurement.estimate import Estimate
from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.runs.run import Run

_QUESTION = "What makes it better, and at what price?"
_ACCURACY = Quantity("accuracy", "Test accuracy", "1", "Share of the test images that are right.", "Larger is better.")
_NLL = Quantity("nll", "Test negative log-likelihood", "nats", "Mean over the test images.", "Smaller is better.")
_ACCURACY_CHANGE = Quantity(
    "accuracy_change",
    "Change of accuracy",
    "points",
    "Top-1 accuracy less that of the original, image by image, in percentage points.",
    "Larger is better.",
)
_NLL_CHANGE = Quantity(
    "nll_change",
    "Change of negative log-likelihood",
    "nats",
    "Mean negative log-likelihood less that of the original, image by image.",
    "Smaller is better.",
)
_COST = Quantity("cost", "Cost", "of the original", "{what} as a share of the original's.", "Smaller is better.")
_ECE = Quantity(
    "calibration_error",
    "Expected calibration error",
    "%",
    "Mean distance of confidence and accuracy over 15 equally filled bins; biased upwards for few images.",
    "Smaller is better.",
)


def describe_search(
    taken: Sequence[Candidate], tried: Sequence[TriedMove], goal: AbstractGoal
) -> dict[str, xr.Dataset]:
    """The candidates by their ``cost`` and by the number of ``edits``, and what was tried, ``move`` by move."""
    first = taken[0].figures
    changes = [(one.figures.change_of_accuracy(first), one.figures.change_of_loss(first)) for one in taken]
    costs = [goal.cost(one.figures) / goal.cost(first) for one in taken]
    words = ["the original", *(move.label for move in taken[-1].path)]
    steps = {"edits": ("edits", np.arange(len(taken)), {"long_name": "Edits"}), "edit": ("edits", words)}
    found = {"search": _label("edits", steps, changes, costs, goal, "Steps that were taken, on validation images")}
    if len(taken) > 2 and len(set(costs)) == len(costs):
        line = {
            "cost": ("cost", np.array(costs), {"long_name": f"{goal.unit.capitalize()} as a share of the original's"})
        }
        front = [_labelled(_ACCURACY_CHANGE, "cost", line, [accuracy for accuracy, _ in changes], 100.0)]
        found = {"front": _with_words(front, "Accuracy against cost, on validation images"), **found}
    known = [(one, one.after) for one in tried if one.after is not None]
    if known:
        moves: dict[str, Any] = {
            "move": ("move", np.arange(1, len(known) + 1), {"long_name": "Trial"}),
            "edit": ("move", [one.move.label for one, _ in known]),
            "after": ("move", [one.step for one, _ in known]),
            "outcome": ("move", [one.said or "another was better" for one, _ in known]),
        }
        pairs = [(after.change_of_accuracy(one.before), after.change_of_loss(one.before)) for one, after in known]
        ratios = [goal.cost(after) / goal.cost(one.before) for one, after in known]
        found["tried"] = _label("move", moves, pairs, ratios, goal, "Edits that were tried, on a few images")
    return found


def describe_proof(proof: Proof) -> dict[str, xr.Dataset]:
    """The original, the candidate and the controls on the test images, along ``model``."""
    shown = {"original": proof.original, "better": proof.candidate, **proof.controls}
    models = {"model": ("model", list(shown), {"long_name": "Model"})}
    each = list(shown.values())
    changes = [(one.change_of_accuracy(proof.original), one.change_of_loss(proof.original)) for one in each]
    costs = [proof.goal.cost(one) / proof.goal.cost(proof.original) for one in each]
    errors = [Estimate(expected_calibration_error(one), np.nan, len(one.right)) for one in each]
    parts = [
        _labelled(_ACCURACY, "model", models, [_mean(one.right.astype(np.float64)) for one in each]),
        _label("model", models, changes, costs, proof.goal, ""),
        _labelled(_NLL, "model", models, [_mean(one.loss) for one in each]),
        _labelled(_ECE, "model", models, errors, 100.0),
    ]
    return {"proof": _with_words(parts, "The proof, on test images")}


def read_ratio(timing: Run) -> Ratio:
    """The better model's time over the original's at the largest batch, with its 95 % interval."""
    found = timing.tree["time-ratio"].to_dataset().isel(model=-1, batch_size=-1).squeeze()
    low, high = (float(found[f"time_ratio_{end}"]) for end in ("low", "high"))
    return Ratio(float(found["time_ratio"]), low, high, int(found["batch_size"]))


def _mean(values: np.ndarray) -> Estimate:
    known = values[np.isfinite(values)]
    return Estimate(float(known.mean()), float(known.std(ddof=1) / len(known) ** 0.5), len(known))


def _label(
    axis: str,
    coords: Mapping[str, Any],
    changes: Sequence[tuple[Estimate, Estimate]],
    costs: Sequence[float],
    goal: AbstractGoal,
    title: str,
) -> xr.Dataset:
    """Changes of accuracy and of the negative log-likelihood, and costs, along an axis."""
    cost = replace(_COST, meaning=f"{goal.unit.capitalize()} as a share of the original's.")
    parts = [
        _labelled(_ACCURACY_CHANGE, axis, coords, [accuracy for accuracy, _ in changes], 100.0),
        _labelled(cost, axis, coords, [Estimate(one, np.nan, 0) for one in costs]),
        _labelled(_NLL_CHANGE, axis, coords, [loss for _, loss in changes]),
    ]
    return _with_words(parts, title)


def _labelled(
    quantity: Quantity, axis: str, coords: Mapping[str, Any], estimates: Sequence[Estimate], factor: float = 1.0
) -> xr.Dataset:
    return label_quantity(
        quantity,
        (axis,),
        factor * np.array([one.mean for one in estimates]),
        factor * np.array([one.error for one in estimates]),
        np.array([one.count for one in estimates]),
        coords,
    )


def _with_words(parts: Sequence[xr.Dataset], title: str) -> xr.Dataset:
    words = {"title": title, "question": _QUESTION, "definition": f"{title}; errors are over images, in pairs."}
    return xr.merge(parts, combine_attrs="override").assign_attrs(words)
