"""A run made by hand, whose every name is hostile to a page."""

import json

import numpy as np
import xarray as xr

from vitscope.measurement.claim import Claim, Verdict
from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec

HOSTILE = "<script>alert('x')</script>&\"</pre>"
ANATOMY = (
    {"unit": f"{HOSTILE}.attn", "kind": "attention", "stage": 0, "block": 0},
    {"unit": "blocks.0.mlp", "kind": "mlp", "stage": 0, "block": 0},
    {"unit": "down", "kind": "downsampling", "stage": 1, "block": 1},
    {"unit": "blocks.1.attn", "kind": "attention", "stage": 1, "block": 1},
)
COORDINATES = {
    "layer": np.arange(5),
    "unit": ("layer", ["stem", *(str(unit["unit"]) for unit in ANATOMY)]),
    "kind": ("layer", ["stem", *(str(unit["kind"]) for unit in ANATOMY)]),
    "head": np.arange(3),
    "frequency": np.linspace(0, 1, 4),
    "confidence_bin": np.array([0.25, 0.75]),
    "epoch": np.arange(1, 3),
}
BESIDE = {"layer": ("unit", "kind")}
SIZES = {"layer": 5, "head": 3, "frequency": 4, "confidence_bin": 2, "epoch": 2}


def dataset(name: str, *dims: str, unit: str = "1") -> xr.Dataset:
    """A quantity over these axes, 0.1, 1.1, 2.1 ... with errors of 0.25 over 16 samples."""
    shape = tuple(SIZES[dim] for dim in dims)
    mean = np.asarray(np.arange(0.1, np.prod(shape)).reshape(shape))
    coords = {name: COORDINATES[name] for dim in dims for name in (dim, *BESIDE.get(dim, ()))}
    quantity = Quantity(name, f"label of {name}", unit, f"meaning of {name}", "Larger is better.")
    return label_quantity(quantity, dims, mean, np.full(shape, 0.25), np.full(shape, 16), coords)


def claim(name: str, weight: float, evidence: str) -> Claim:
    """A claim with that weight."""
    return Claim(name, f"statement {name}", Verdict.UNDECIDED, "0.1", "rule", "paper", "advice", evidence, weight)


def run(groups: dict[str, xr.Dataset], claims: tuple[Claim, ...] = (), skipped: dict[str, str] | None = None) -> Run:
    """A run of these groups."""
    spec = Spec(
        "measure", {"name": HOSTILE, "weights": "random", "parameters": 1234567}, {"name": "cats", "count": 16}, {}
    )
    root = xr.Dataset(
        attrs={
            "spec": spec.text,
            "provenance": json.dumps({"command": "vitscope checkup 'a < b'", "ended": "2026-01-02T03:04:05+00:00"}),
            "anatomy": json.dumps(ANATOMY),
            "skipped": json.dumps(skipped or {}),
            "notes": json.dumps([]),
        }
    )
    made = Run(xr.DataTree.from_dict({"/": root, **groups}))
    return made.with_claims(claims) if claims else made


def group(title: str, question: str, *quantities: xr.Dataset) -> xr.Dataset:
    """A diagnostic's group."""
    merged = xr.merge(quantities, combine_attrs="drop", compat="override", join="outer")
    return merged.assign_attrs(
        title=title, question=question, references=["a paper"], definition="One.\n\n.. math:: a_1 < \\frac12"
    )
