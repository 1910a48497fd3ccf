"""The documentation says what is: reference pages are generated, links lead somewhere, examples run."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vitscope.measurement.axes import AXES

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def generator():
    found = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_registries_say():
    for file, text in generator().files().items():
        assert file.read_text(encoding="utf-8") == text, f"run python docs/generate.py ({file.name})"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_every_axis_in_the_vocabulary_is_used():
    sources = [path for path in (ROOT / "src").rglob("*.py") if path.name != "axes.py"]
    text = "".join(path.read_text() for path in sources)
    assert [name for name in AXES if not re.search(rf"\b{name}\b", text)] == []


def test_the_example_in_python_runs():
    done = subprocess.run([sys.executable, ROOT / "examples" / "digits_in_python.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pixels far on average" in done.stdout


def test_the_plain_module_is_examined(real_data, tmp_path):
    command = [
        sys.executable,
        ROOT / "examples" / "resnet56_plain_module.py",
        "--limit",
        "200",
        "--out",
        tmp_path / "run",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "27 blocks" in done.stdout
    assert (tmp_path / "run" / "page.html").stat().st_size > 1e6


def test_the_layers_that_contributors_read_are_those_of_the_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = " > ".join(layer.replace("vitscope.", "") for layer in contracts[0]["layers"])
    assert layers in " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
