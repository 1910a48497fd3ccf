"""The house rules that a machine can check."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "src" / "vitscope").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LAYERS = {"cli", "report", "findings", "labs", "diagnostics", "interventions", "convex", "training", "engine"} | {
    "models",
    "data",
    "runs",
    "measurement",
    "numerics",
}
ONLY_IN = {
    "timm": {"models/timm", "training/augmentation.py", "data/augmentation.py", "data/imagenet.py"},
    "torchvision": {"models/torchvision", "models/transformers/input.py"},  # transforms
    "transformers": {"models/transformers", "training/watch/transformers.py"},
    "lightning": {"training/watch/lightning.py"},
    "pytorch_lightning": {"training/watch/lightning.py"},
    "tensorboard": {"training/watch/tensorboard.py"},
    "mlflow": {"training/watch/mlflow.py"},
    "wandb": {"training/watch/wandb.py"},
    "plotly": {"report"},
    "matplotlib": {"report"},
    "ray": {"engine/ray_cluster.py"},
}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT / "src" / "vitscope"))


def imported(tree: ast.AST) -> set[str]:
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def test_the_package_holds_exactly_the_layers():
    assert {path.name for path in (ROOT / "src" / "vitscope").iterdir() if path.is_dir()} - {"__pycache__"} == LAYERS


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_modules_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    bodies = {node.name: [part for part in node.body if not _is_text(part)] for node in functions}
    long = {name: body[-1].end_lineno - body[0].lineno + 1 for name, body in bodies.items() if body}
    assert {name: lines for name, lines in long.items() if lines > 40} == {}


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_libraries_are_imported_only_where_they_belong(path):
    roots = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}
    for library, places in ONLY_IN.items():
        allowed = any(relative(path).startswith(place) for place in places)
        assert allowed or library not in roots, f"{library} is imported in {relative(path)}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_no_lazy_annotations_and_no_self(path):
    text = path.read_text()
    assert "from __future__ import annotations" not in text
    assert not re.search(r"from typing import .*\bSelf\b", text)


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_unpickled_but_the_programs_own_parcels(path):
    text = path.read_text()
    assert not re.search(r"torch\.load\((?![^)]*weights_only=True)", text) or path == Path(__file__)
    allowed = {"engine/parcel.py"}
    unpickles = re.search(r"\b(cloud)?pickle\.loads?\(", text)
    assert not unpickles or path in TESTS or relative(path) in allowed


def test_importing_the_package_costs_little_more_than_torch():
    program = (
        "import sys; import vitscope; print([m for m in ('timm', 'transformers', 'plotly', 'ray') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
