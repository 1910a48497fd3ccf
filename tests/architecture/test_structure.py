"""The house rules that a machine can check."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vitscope.numerics import attention, direction

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "src" / "vitscope").rglob("*.py"))
SOURCES = {path: path.read_text() for path in MODULES}
TREES = {path: ast.parse(text) for path, text in SOURCES.items()}
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LAYERS = {"cli", "report", "findings", "labs", "diagnostics", "interventions", "convex", "training", "engine"} | {
    "models",
    "data",
    "deploy",
    "improvement",
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
    "ray": {"engine/work/ray_cluster.py"},
    "onnx": {"deploy"},
    "onnxruntime": {"deploy"},
}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT / "src" / "vitscope"))


def imported(tree: ast.AST) -> set[str]:
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def test_the_package_holds_exactly_the_layers():
    assert {path.name for path in (ROOT / "src" / "vitscope").iterdir() if path.is_dir()} - {"__pycache__"} == LAYERS


def test_modules_and_functions_stay_small():
    assert {relative(path) for path, text in SOURCES.items() if len(text.splitlines()) > 400} == set()
    assert {f"{relative(path)}: {name}" for path, tree in TREES.items() for name in long_functions(tree)} == set()


def long_functions(tree: ast.AST) -> set[str]:
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    bodies = {node.name: [part for part in node.body if not _is_text(part)] for node in functions}
    return {name for name, body in bodies.items() if body and body[-1].end_lineno - body[0].lineno + 1 > 40}


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_libraries_are_imported_only_where_they_belong():
    for path, tree in TREES.items():
        roots = {name.split(".")[0] for name in imported(tree)}
        for library, places in ONLY_IN.items():
            allowed = any(relative(path).startswith(place) for place in places)
            assert allowed or library not in roots, f"{library} is imported in {relative(path)}"


def test_no_lazy_annotations_and_no_self():
    assert {relative(path) for path, text in SOURCES.items() if "from __future__ import annotations" in text} == set()
    self_typed = {path for path, text in SOURCES.items() if re.search(r"from typing import .*\bSelf\b", text)}
    assert self_typed == set()


def test_nothing_is_unpickled_but_the_programs_own_parcels():
    for path in [*MODULES, *TESTS]:
        text = path.read_text()
        assert not re.search(r"torch\.load\((?![^)]*weights_only=True)", text) or path == Path(__file__), path
        unpickles = re.search(r"\b(cloud)?pickle\.loads?\(", text)
        assert not unpickles or path in TESTS or relative(path) == "engine/work/parcel.py", path


def test_types_and_shapes_are_checked_as_the_tests_run():
    with pytest.raises(TypeError, match="seed"):
        direction.gaussian((2,), "0", "weight")
    with pytest.raises(TypeError, match="smallest"):  # axes of one name, of two lengths
        attention.distinct_keys(torch.ones(1, 3, 4), torch.ones(2, 3))


def test_importing_the_package_costs_little_more_than_torch():
    program = (
        "import sys; import vitscope; print([m for m in ('timm', 'transformers', 'plotly', 'ray') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def test_there_is_one_of_each():
    """What several rooms need is written once, in the lowest room that can hold it."""
    once = {
        r"os\.replace\(": {"runs/whole.py"},  # the atomic write
        r"view\(torch\.uint8\)": {"numerics/digest.py"},  # the bytes and the digest of a tensor
        r"register_(full_)?(forward|backward)(_pre)?_hook\(": {"models/hooks.py"},  # hooks that last one call
        r"zeros\(\(?1, \*": {"models/feed.py"},  # the image of zeros
        r"count \* (more|other|share)|Golub and LeVeque": {"numerics/moments.py"},  # moments merged
    }
    for pattern, homes in once.items():
        found = {relative(path) for path, text in SOURCES.items() if re.search(pattern, text)}
        assert found == homes, f"{pattern} is written in {sorted(found - homes)} too"


def test_no_class_name_has_two_meanings():
    """The adapters of several libraries are the same thing of each, in files of one name; ``left`` may only shrink."""
    left: set[str] = set()
    homes: dict[str, set[str]] = {}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name.lstrip("_"), set()).add(relative(path))
    alike = re.compile(r"models/(timm|torchvision|transformers)/|training/watch/(lightning|transformers)")
    double = {name for name, files in homes.items() if len(files) > 1 and not all(map(alike.match, files))}
    assert double == left
