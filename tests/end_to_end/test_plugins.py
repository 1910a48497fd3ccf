"""Classes of one's own, from an installed package and from a notebook, as docs/how-to/plugins.md has them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "plugins.md"
CLASSES = [text for text in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S) if ".add(" in text]


def install(site: Path, name: str, module: str, source: str) -> None:
    """A distribution as pip leaves it, whose entry point names a module."""
    (site / f"{module}.py").write_text(source)
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vitscope.plugins]\n{module} = {module}\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's package, one that cannot be imported, and one that takes a name of the project after its own."""
    found = tmp_path_factory.mktemp("site")
    first = [text.partition("\n\n\n[")[0].partition("\n\n\nvitscope.")[0] for text in CLASSES]
    install(found, "vitscope-massive", "vitscope_massive", "\n\n".join(first))
    install(found, "vitscope-broken", "vitscope_broken", "import nothing_of_this_name\n")
    greedy = CLASSES[0].partition("\n\n\n[")[0]
    twice = greedy.replace("massive-activations", "mine") + greedy.replace("massive-activations", "accuracy")
    install(found, "vitscope-greedy", "vitscope_greedy", twice)
    return found


def run(program: str, site: Path | None, folder: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(site)] if site else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)


COMMANDS = """
from typer.testing import CliRunner
from vitscope.cli import app
for line in {lines!r}:
    done = CliRunner().invoke(app, line.split(), env={{"COLUMNS": "100"}})
    print(f"{{line}}: {{done.exit_code}}", done.stdout, done.stderr, sep="\\n", flush=True)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
import vitscope
run = vitscope.measure(vitscope.load("digits"), vitscope.images("digits", limit=10), "massive-activations")
print("in Python:", list(run))
"""


def test_a_package_is_there_and_a_broken_one_is_left_out(site: Path, tmp_path: Path) -> None:
    lines = [
        "list",
        "show massive-activations",
        "measure massive-activations --help",
        "study weight-noise --shares 0.1 --limit 20 --out run",
        "checkup --limit 20 --only massive-activations,token-rank --out checkup",
        "measure mine",
    ]
    done = run(COMMANDS.format(lines=lines), site, tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.split(": 0\n") + done.stdout.split(": 2\n")[-1:]
    assert "\n massive-activations  " in said[1]
    assert "\n weight-noise " in said[1]
    assert " mine " not in said[1], "what a broken plugin has registered is taken back"
    told = "The plugin vitscope_broken (vitscope_broken) is left out: ModuleNotFoundError: No module named 'nothing"
    assert done.stdout.count(told) == 1
    assert (
        "vitscope_greedy) is left out: UserError: The diagnostic name 'accuracy' is taken by Accuracy of vitscope"
        in (done.stdout)
    )
    assert "The share of the entries that are below the usual one." in said[2]
    assert "--usual" in said[3]
    assert "Noise over weights" in said[4]
    assert (tmp_path / "run" / "page.html").exists()
    assert "massive" in (tmp_path / "checkup" / "page.html").read_text()
    assert "There is no diagnostic named 'mine'" in said[-1]
    assert "in Python: ['massive-activations']" in said[-1]


def test_a_class_of_a_notebook_travels_to_workers_and_its_cell_can_be_run_again(tmp_path: Path) -> None:
    program = f"""
cell = {CLASSES[0]!r}
import torch
import vitscope
import xarray
torch.set_num_threads(1)  # as many as a worker has
from vitscope.engine.work.executor import Processes
if __name__ == "__main__":
    exec(cell)
    exec(cell)
    subject, images = vitscope.load("digits"), vitscope.images("digits", limit=40)
    asked = (subject, images, ["massive-activations", "accuracy"])
    alone = vitscope.measure(*asked, vitscope.Plan(batch_size=5))
    spread = vitscope.measure(*asked, vitscope.Plan(batch_size=5, executor=Processes(2)))
    xarray.testing.assert_allclose(alone["massive-activations"], spread["massive-activations"], rtol=1e-12)
    print(float(spread["massive-activations"][-1]))
"""
    (tmp_path / "notebook.py").write_text(program)  # a script, which workers are started from
    done = subprocess.run([sys.executable, "notebook.py"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 1
