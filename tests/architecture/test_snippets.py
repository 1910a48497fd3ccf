"""Every snippet of the documentation does what it says: Python runs, commands have the flags that are shown.

A page's Python blocks run in order in a folder of their own, after its stand-ins for what it does not define itself. A
block that cannot run here is marked in the page, ``<!-- not run: the reason -->`` above it.
"""

import re
import shlex
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_documentation import ROOT
from typer.main import get_command
from typer.testing import CliRunner

from vitscope import images, load, measure
from vitscope.cli import app
from vitscope.models.catalogue import import_installed_adapters
from vitscope.runs import registry

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    reason: str | None
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(found["language"], found["text"], found["reason"], text[: found.start("text")].count("\n"))
        for found in BLOCK.finditer(text)
    ]


SUBJECT = 'import vitscope\nsubject, images = vitscope.load("digits"), vitscope.images("digits", limit=20)\n'
PICTURES = """
import numpy as np
from pathlib import Path
from PIL import Image
for i, name in enumerate({names!r}):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 40, 3), 60 * i, np.uint8) + np.arange(40, dtype=np.uint8)[:, None]).save(name)
"""
BEFORE = {
    "README.md": PICTURES.format(names=[f"photos/{i}.png" for i in range(3)]),
    "docs/concepts/pass.md": SUBJECT
    + 'vitscope.checkup(subject, images, "attention-entropy", vitscope.Plan(folder="checkups/first"))',
    "docs/concepts/studies.md": SUBJECT,
    "docs/how-to/convex-heads.md": SUBJECT,
    "docs/how-to/during-training.md": PICTURES.format(
        names=[f"photos/{s}/{c}/0.png" for s in ("train", "val") for c in "ab"]
    )
    + """
import torch
from vitscope.models.own.vit import Vit, VitConfig
model = Vit(VitConfig(image=8, channels=3, patch=4, classes=2, dim=16, depth=1, heads=2))
loader = [(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))]
criterion, optimizer = torch.nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1)
diagnostics, mean, std, names = "accuracy", (0.5,) * 3, (0.2,) * 3, ["a", "b"]
""",
    "docs/how-to/labs.md": """
from dataclasses import replace
def small(**settings):
    return replace(SampleComplexity.smoke(), **{k: v for k, v in settings.items() if k != "trials"})
""",
    "docs/how-to/own-model.md": PICTURES.format(names=[f"cifar10/test/{c}/0.png" for c in "abc"])
    + """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.layer1 = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU()) for _ in range(2)))
        self.layer2 = nn.Sequential(nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU()))
        self.head = nn.Linear(8, 3)
    def forward(self, x):
        return self.head(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))
torch.manual_seed(0)
model = Net()
import timm
small = timm.create_model("vit_tiny_patch16_224", depth=1, patch_size=8, img_size=(64, 256), num_classes=10)
torch.save({"state_dict": small.state_dict()}, "last.ckpt")
""",
    "docs/how-to/study.md": SUBJECT,
}
"""What a page takes for granted, small."""
INSTEAD = {
    "README.md": {'"timm/swin_tiny_patch4_window7_224", pretrained=True': '"vit-micro"'},  # which is out of reach here
    "docs/how-to/convex-heads.md": {"pool=7, width=64": "pool=2, width=4", "tol=1e-4": "tol=0.2, max_passes=50"},
    "docs/how-to/labs.md": {"SampleComplexity(": "small("},
    "docs/how-to/study.md": {'HessianSpectrum(per="block")': 'HessianSpectrum(per="block", batches=1, steps=3)'},
}
"""Words of a page, and smaller ones that are run instead."""


@pytest.fixture
def registries(monkeypatch):
    """What a page registers is gone after it, and what it made the project import stays."""
    import_installed_adapters()
    for one in registry._REGISTRIES:
        list(one)
        monkeypatch.setattr(one, "_classes", dict(one._classes))


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if any(b.language == "python" for b in blocks(p))], ids=named)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch, registries):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("__page__")
    monkeypatch.setitem(sys.modules, "__page__", module)  # where dataclasses look for their module
    exec(BEFORE.get(named(page), ""), vars(module))
    for block in blocks(page):
        if block.language == "python" and not block.reason:
            text = block.text
            for words, instead in INSTEAD.get(named(page), {}).items():
                text = text.replace(words, instead)
            exec(compile("\n" * block.line + text, str(page), "exec"), vars(module))


def commands(page: Path) -> list[list[str]]:
    """The command lines of vitscope on a page: in blocks, and within its text if they have flags."""
    shown = "\n".join(block.text for block in blocks(page) if not block.language).replace("\\\n", " ").split("\n")
    inline = [line for line in re.findall(r"`(vitscope [^`]+)`", BLOCK.sub("", page.read_text())) if " -" in line]
    lines = [line.replace(" ...", " ") for line in (*shown, *inline) if line.startswith("vitscope ")]
    return [shlex.split(line, comments=True)[1:] for line in lines if "--help" not in line]


MEANT = {"study": "lesion", "measure": "accuracy", "run": "masked-time", "sweep": "sample-complexity"}
"""For NAME after these."""


def parsed(arguments: list[str]) -> None:
    """Parse as the command line does, and run nothing. Raises for a command, flag or value that there is not."""
    command, context = get_command(app), None
    while True:
        context = command.make_context(command.name or "vitscope", list(arguments), parent=context)
        if not hasattr(command, "resolve_command"):
            return
        first, *more = [*getattr(context, "_protected_args", ()), *context.args]
        meant = MEANT.get(command.name, first) if first == "NAME" else first
        _, command, arguments = command.resolve_command(context, [meant, *more])


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p) and p.name != "plugins.md"], ids=named)
def test_the_commands_of_a_page_have_the_flags_that_are_shown(page):
    for arguments in commands(page):  # those of plugins.md need its package: tests/end_to_end/test_plugins.py
        parsed(arguments)


QUICK = ("list", "show", "runs", "report", "compare")


def test_the_quick_commands_of_all_pages_run(tmp_path, monkeypatch):
    """Those that need no model; where a page has a finished run, there is one."""
    monkeypatch.chdir(tmp_path)
    run = measure(load("digits"), images("digits", limit=4), ["accuracy", "token-rank"])
    lines = {tuple(line) for page in PAGES for line in commands(page) if line[0] in QUICK or line == ["lab", "list"]}
    assert len(lines) > 5
    for line in sorted(lines):
        for place in line[1:]:
            if line[0] in ("report", "compare") and "." not in place and not place.startswith("-"):
                Path(place, "run.nc").exists() or run.save(place)
        if "massive-activations" not in line:
            done = CliRunner().invoke(app, line)
            assert done.exit_code == 0, (line, done.output)


def test_a_command_that_is_not_there_is_found():
    for wrong in (["checkup", "--imges", "x"], ["chekup"], ["study", "lession"], ["checkup", "--limit", "many"]):
        with pytest.raises(Exception, match=r"imges|chekup|lession|valid integer"):
            parsed(wrong)


def test_every_page_with_python_is_run_but_for_what_says_why_not():
    skipped = {named(page): [block.reason for block in blocks(page) if block.reason] for page in PAGES}
    assert {name for name, reasons in skipped.items() if reasons} == {"docs/how-to/during-training.md"}
    assert all(len(reason.split()) > 3 for reasons in skipped.values() for reason in reasons)
