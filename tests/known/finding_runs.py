"""Small runs of made-up numbers, as findings read them."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec

KINDS = {"s": "stem", "a": "attention", "m": "mlp", "c": "convolution", "d": "downsampling", "t": "token-mixing"} | {
    "b": "block"
}


def number(name: str, value: float, error: float = 0.01, count: int = 100) -> xr.Dataset:
    """A quantity without an axis."""
    quantity = Quantity(name, name, "1", name)
    return label_quantity(quantity, (), np.asarray(value), np.asarray(error), np.asarray(count), {})


def depth(
    name: str, kinds: str, values: object, error: object = 0.01, count: int = 100, stages: str = ""
) -> xr.Dataset:
    """A quantity after units of these kinds, layer 0 being the stem where it is named."""
    mean = np.asarray(values, dtype=float)
    layers = np.arange(len(kinds)) + (kinds[0] != "s")
    coords = {
        "layer": layers,
        "unit": ("layer", [f"unit{layer}" for layer in layers]),
        "kind": ("layer", [KINDS[kind] for kind in kinds]),
        "stage": ("layer", [int(stage) for stage in stages or "0" * len(kinds)]),
        "block": ("layer", layers),
    }
    dims = ("layer", "head")[: mean.ndim]
    errors = np.broadcast_to(np.asarray(error, dtype=float), mean.shape)
    return label_quantity(Quantity(name, name, "1", name), dims, mean, errors, np.full(mean.shape, count), coords)


def run_of(
    *groups: tuple[str, xr.Dataset],
    images: int = 100,
    weights: str = "pretrained",
    settings: Mapping[str, object] | None = None,
    model: str = "model",
) -> Run:
    """A run of these groups; those of one name are merged."""
    spec = Spec("measure", {"name": model, "weights": weights}, {}, settings or {})
    root = xr.Dataset(attrs={"spec": spec.text, "skipped": "{}", "images": images})
    merged: Mapping[str, xr.Dataset] = {
        name: xr.merge([d for n, d in groups if n == name], compat="no_conflicts") for name, _ in groups
    }
    return Run(xr.DataTree.from_dict({"/": root, **merged}))


def of_changes(turned: Sequence[tuple[int, int]], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard errors of changes that so many images gained and lost, of so many."""
    gained, lost = np.asarray(turned, dtype=float).reshape(-1, 2).T
    mean = (gained - lost) / count
    spread = np.maximum(gained + lost - count * mean**2, 0) / (count - 1) / count
    return mean, np.sqrt(spread)


def lesions(kinds: str, turned: Sequence[tuple[int, int]], count: int = 100, stages: str = "", **done: object) -> Run:
    """Images gained and lost without each unit; ``done`` says more of what the study did."""
    mean, error = of_changes(turned, count)
    found = depth("top1_change", kinds, mean, error, count, stages)
    names = {name: f"lesion_{name}" for name in ("unit", "kind", "stage", "block")}
    points = [[{"intervention": "lesion", "layers": [int(layer)], "means": [], **done}] for layer in found["layer"]]
    asked = {"study": "lesion", "settings": points}
    return run_of(("lesion-accuracy", found.rename({"layer": "lesion", **names})), settings=asked)


def settings(study: str, axis: str, turned: Mapping[float, tuple[int, int]], count: int = 100, **done: object) -> Run:
    """Images gained and lost at the settings of a study of one axis."""
    quantity = Quantity("top1_change", "top1_change", "1", "top1_change")
    mean, error = of_changes(list(turned.values()), count)
    found = label_quantity(quantity, (axis,), mean, error, np.full(len(turned), count), {axis: list(turned)})
    points = [[{"intervention": study, axis: at, **done}] for at in turned]
    return run_of((f"{study}-accuracy", found), settings={"studies": {study: {"study": study, "settings": points}}})


def predictions(over: float, error: float, top1: float, count: int = 100) -> Run:
    """Confidence and accuracy, all in one bin."""
    share, confidence = np.eye(10)[7], np.where(np.eye(10)[7] > 0, 0.75, np.nan)
    bins = xr.Dataset({"bin_share": ("confidence_bin", share), "bin_confidence": ("confidence_bin", confidence)})
    return run_of(
        ("accuracy", number("top1", top1, 0.05, count)),
        ("calibration", number("ece", abs(over), error, count)),
        ("calibration", number("overconfidence", over, error, count)),
        ("calibration", bins),
    )
