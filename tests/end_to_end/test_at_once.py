"""The small things of the command line: they answer at once, and know what a mistyped word may mean."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from test_command_line import Answer

import vitscope
from vitscope.cli.settings import print_settings
from vitscope.runs.run import Run

HEAVY = ("torch", "timm", "torchvision", "transformers", "xarray", "pandas", "scipy", "plotly", "matplotlib", "ray")
QUICK = [
    "--version",
    "--help",
    "list",
    "show fourier-spectrum",
    "show mlp",
    "show nonsense",
    "study --help",
    "study lesion --help",
    "study lession",
    "measure hessian-spectrum --help",
    "lab list",
    "lab run masked-time --help",
    "sweep masked-time --help",
    "head fit --help",
    "checkup --help",
    "checkup --images nowhere",
    "checkup timm/deit_tiny_patch16_244 --images digits",
    "checkup torchvision/resnet55 --images digits",
    "checkup nonsense --images digits",
    "checkup --only nonsense",
    "checkup --weights nowhere.pt",
    "study lesion --images nowhere",
    "measure accuracy keras/vgg --images digits",
    "train vit-mcro --images digits --out run",
    "train --images nowhere --out run",
    "train --images digits --watch nonsense --out run",
    "anatomy nonsense",
    "report nowhere",
    "compare nowhere elsewhere",
]


def test_small_things_import_nothing_heavy(tmp_path: Path) -> None:
    program = f"""
import sys
from typer.testing import CliRunner
from vitscope.cli import app
for line in {QUICK!r}:
    done = CliRunner().invoke(app, line.split())
    heavy = [name for name in {HEAVY!r} if name in sys.modules]
    assert not heavy, (line, heavy)
    assert done.exit_code in (0, 2) and "Traceback" not in done.output, (line, done.output)
    assert done.exit_code == 0 or done.stderr.count("\\n") == 1, (line, done.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_that_of_the_package() -> None:
    assert Answer("--version").out == f"vitscope {vitscope.__version__}\n"


MEANT = [
    (("chekup",), "There is no command 'chekup' (is it checkup?); vitscope has: checkup, "),
    (("head", "fitt"), "There is no command 'fitt' (is it fit?); vitscope head has: fit, path, compare."),
    (("lab", "lst"), "There is no command 'lst' (is it list?)"),
    (("study", "lession"), "There is no study named 'lession' (is it lesion?)"),
    (("study", "accuracy"), "There is no study named 'accuracy' (it is among the diagnostics)"),
    (("measure", "hesian-trace"), "There is no diagnostic named 'hesian-trace' (is it hessian-trace?)"),
    (("lab", "run", "masked-tim"), "There is no lab named 'masked-tim' (is it masked-time?)"),
    (("checkup", "--augment", "srong"), "--augment is one of none, weak, strong, not 'srong' (is it strong?)."),
    (("checkup", "--only", "acuracy"), "There is no diagnostic named 'acuracy' (is it accuracy?)"),
    (("checkup", "--only", ","), "--only and --skip leave no diagnostic to measure."),
    (("report", "x", "--format", "pfd"), "--format is one of html, pdf, png, svg, not 'pfd' (is it pdf?)."),
    (("report", "rum"), "There is no finished run at 'rum' (is it run?): the path does not exist."),
    (("checkup", "vit-micro", "--images", "ru"), "--images: ru does not exist (is it run?); give a path that does."),
    (("anatomy", "deit_tiny_patch16_224"), "(is it timm/deit_tiny_patch16_224?); a name is digits, "),
    (("anatomy", "timm/deit_tiny_patch16_244"), "timm has no model named 'deit_tiny_patch16_244' (is it deit_tiny_pa"),
    (
        ("report", "run", "--out", "memory://x"),
        "--out is memory://x, but pages and figures are written on this mach",
    ),
    (("compare", "run", "run", "--out", "file/page.html"), "file is a file, not a folder; give another place."),
    (("report", "run", "--out", "file/page.html"), "file is a file, not a folder; give another place."),
]


def test_a_mistyped_word_is_told_what_it_may_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small().save("run")
    Path("file").write_text("")
    for arguments, said in MEANT:
        answer = Answer(*arguments)
        assert (answer.code, answer.err.count("\n"), answer.out) == (2, 1, ""), arguments
        assert answer.err.startswith("Error: ")
        assert said in answer.err, (arguments, answer.err)


def small() -> Run:
    """A study of two axes by hand, without images or models."""
    down, across = np.array([0.5, 0.25, 0.125]), ["fog", "snow"]
    top1 = np.array([[0.9, 0.8, 0.7], [0.6, 0.5, np.nan]])
    coords = {"keep": ("keep", down, {"long_name": "Share kept"}), "corruption": across}
    words = {"long_name": "Top-1 accuracy", "units": "1"}
    two = ("corruption", "keep")
    study = xr.Dataset(
        {
            "top1": (two, top1, words),
            "top1_error": (two, top1 / 10),
            "top1_change": (two, top1 - 1, words),
            "top1_intact": ((), 0.95, words),
        },
        coords=coords,
    )
    spec = '{"verb":"study","model":{"name":"m"},"images":{"name":"i"},"settings":{}}'
    attributes = {"spec": spec, "provenance": "{}", "skipped": "{}", "notes": "[]", "anatomy": "[]", "images": 3}
    return Run(xr.DataTree.from_dict({"/": xr.Dataset(attrs=attributes), "study-accuracy": study}))


def test_a_study_of_two_axes_is_a_grid_on_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_settings(small())
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == ["Share", "kept", "fog", "snow"]
    assert lines[2:5] == [["0.5", "0.9000", "0.6000"], ["0.25", "0.8000", "0.5000"], ["0.125", "0.7000"]]
    said = " ".join(word for line in lines[5:] for word in line)
    assert said == "Top-1 accuracy. Across: corruption. Intact: 0.9500. Standard errors: at most 0.0900."
    monkeypatch.setenv("COLUMNS", "20")
    print_settings(small())
    assert capsys.readouterr().out == "", "what does not fit is on the page"


def test_every_figure_can_be_pdf(tmp_path: Path) -> None:
    small().save(tmp_path / "run")
    drawn = Answer("report", str(tmp_path / "run"), "--format", "pdf")
    assert drawn.code == 0
    files = [Path(line) for line in drawn.out.split()]
    assert {file.parent for file in files} == {tmp_path / "run" / "figures"}
    assert {file.name for file in files} == {"study-accuracy-top1.pdf", "study-accuracy-top1_change.pdf"}
    assert all(file.read_bytes().startswith(b"%PDF-") for file in files)


def test_a_folder_for_the_page_gets_it(tmp_path: Path) -> None:
    small().save(tmp_path / "run")
    (tmp_path / "pages").mkdir()
    assert Answer("report", str(tmp_path / "run"), "--out", str(tmp_path / "pages")).code == 0
    assert Answer("compare", *[str(tmp_path / "run")] * 2, "--out", f"{tmp_path}/pages/").code == 0
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == ["compare.html", "page.html"]


def test_names_of_units_are_broken_at_their_dots() -> None:
    from vitscope.cli.anatomy import _at_dots

    assert _at_dots("stages.0.blocks.0.attn_block.attn", 18) == ["stages.0.blocks.0.", "attn_block.attn"]
    assert _at_dots("stem", 2) == ["stem"]
