"""``vitscope lab`` and ``vitscope sweep`` as a user types them: runs, grids, interrupts, reruns and mistakes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from vitscope.cli import app
from vitscope.labs.lab import all_labs
from vitscope.labs.masked_phases import MaskedPhases
from vitscope.runs.store import read_run

SMALL = (
    *("--patches", "16", "--areas", "10/2,4/3", "--clusters", "2", "--masked-share", "0.5", "--steps", "20"),
    *("--batch-size", "8", "--evaluated", "32", "--trials", "2"),
)


class Answer:
    """What a command said and how it ended; a traceback is raised again."""

    def __init__(self, *arguments: str) -> None:
        result = CliRunner().invoke(app, list(arguments), prog_name="vitscope", env={"COLUMNS": "160"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_list_has_every_lab() -> None:
    answer = Answer("lab", "list")
    assert answer.code == 0
    assert [name for name in all_labs() if name not in answer.out] == []


def test_the_help_has_the_labs_own_flags_before_those_it_shares() -> None:
    said = Answer("lab", "run", "sample-complexity", "--help").out
    flags = ("--out", "--images", "--alpha", "--samples", "--token-count", "--batch-size")
    places = [said.index(flag) for flag in flags]
    assert places == sorted(places)
    assert "--planted" not in said
    assert "--images" not in Answer("lab", "run", "masked-time", "--help").out


def test_a_lab_is_shown_with_its_own_fields_before_those_it_shares() -> None:
    said = Answer("show", "sample-complexity").out.partition("default")[2]
    places = [said.index(f" {field} ") for field in ("alpha", "samples", "token_count", "batch_size")]
    assert places == sorted(places)


def test_a_run_leaves_a_run_and_a_page_and_says_its_verdicts(here: Path) -> None:
    answer = Answer("lab", "run", "masked-phases", *SMALL)
    assert answer.code == 0
    (folder,) = (here / "labs").iterdir()
    assert folder.name.startswith("masked-phases-")
    assert {path.name for path in folder.iterdir()} == {"run.nc", "page.html"}
    run = read_run(str(folder))
    assert run.spec.settings["lab"] == "masked-phases"
    assert run.spec.settings["patches"] == 16
    assert run.tree.attrs["images"] == 4
    assert "trials    4" in answer.out
    assert all(claim.figure in answer.out for claim in run.claims)
    assert str(run.provenance["command"]).startswith("vitscope lab run masked-phases")
    html = (folder / "page.html").read_text()
    assert "Examined on 4 trials" in html
    assert "masked share" in html


def test_the_same_run_is_not_made_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("lab", "run", "masked-phases", *SMALL, "--out", "one")
    Answer(*arguments)
    monkeypatch.setattr(MaskedPhases, "run_trials", lambda *_: pytest.fail("trained again"))
    again = Answer(*arguments)
    assert again.code == 0
    assert "already holds this run" in again.err
    other = Answer(*arguments, "--seed", "1")
    assert other.code == 2
    assert "never overwritten" in other.err


def test_an_interrupt_says_how_to_go_on_and_what_is_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = MaskedPhases.run_trials, []

    def interrupted(self: MaskedPhases, trials):
        calls.append(len(trials))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, trials)

    monkeypatch.setattr(MaskedPhases, "run_trials", interrupted)
    arguments = ("lab", "run", "masked-phases", *SMALL, "--out", "one")
    stopped = Answer(*arguments)
    assert stopped.code == 130
    assert "2 of 4 trials are saved; continue with: vitscope lab run masked-phases" in stopped.err
    assert "--resume" in stopped.err
    resumed = Answer(*arguments, "--resume")
    assert resumed.code == 0
    assert calls == [2, 2, 2]
    assert not (here / "one" / "partial").exists()


def test_a_sweep_makes_axes_of_settings(here: Path) -> None:
    answer = Answer("sweep", "masked-phases", "--grid", "high=1,1.5", "masked_share=0.25,0.5", *SMALL, "--out", "one")
    assert answer.code == 0, answer.err
    run = read_run("one")
    assert run["learned-10-2/correlation"].dims == ("high", "masked_share", "curve", "step")
    assert run["learned-10-2/correlation"]["high"].values.tolist() == [1.0, 1.5]
    assert run.tree.attrs["images"] == 16
    assert run.spec.settings["grid"] == {"high": [1.0, 1.5], "masked_share": [0.25, 0.5]}
    assert "At high 1.5, masked share 0.25" in answer.out
    assert (here / "one" / "page.html").stat().st_size > 1e6


def test_two_workers_come_to_the_numbers_of_one_process(here: Path) -> None:
    small = ("--samples", "4,8", "--token-count", "10", "--patterns", "4", "--neurons", "8", "--steps", "20")
    asked = (
        "sweep",
        "sample-complexity",
        "--grid",
        "alpha=0.3",
        "tau=0.1:0.2:2",
        *small,
        "--tests",
        "32",
        "--trials",
        "1",
    )
    assert Answer(*asked, "--out", "one").code == 0
    several = Answer(*asked, "--workers", "2", "--on", "local", "--resume", "--out", "two")
    assert several.code == 0, several.err
    one, two = read_run("one"), read_run("two")
    assert one.spec.address == two.spec.address
    assert one["needed-samples/needed"].dims == ("noise", "curve", "alpha")
    for name, node in one.tree.children.items():
        assert node.to_dataset().equals(two.tree[name].to_dataset()), name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lab", "run", "nothing"), "There is no lab named 'nothing'; there are: attention-concentration"),
        (("lab", "run", "masked-phases", "--areas", "80-4"), "'80-4' names no areas"),
        (("lab", "run", "masked-phases", "--areas", "80/3"), "do not partition 100 patches"),
        (("lab", "run", "masked-phases", "--workers", "0"), "--workers must be 1 or more"),
        (("sweep", "masked-phases", "--grid", "high=1,2", "--on", "ray:head"), "--on takes local, ray or ray://HOST"),
        (("sweep", "masked-phases", "--grid", "steps=10:15:3"), "steps must be: 10, 12.5, 15"),
        (("lab", "run", "sample-complexity", "--images", "digits", "--classes", "a"), "--classes takes class numbers"),
        (("lab", "run", "sample-complexity", "--images", "digits", "--classes", "1"), "give two different ones"),
        (("lab", "run", "sample-complexity", "--samples", "8:4"), "'8:4' names no numbers of samples"),
        (("lab", "run", "sample-complexity", "--law", "flat"), "--law is one of ball, gaussian"),
        (("lab", "run", "token-sparsification", "--rules", "luck"), "'luck' is not a rule of keeping tokens"),
        (("sweep", "masked-phases", "--grid", "tau=1"), "masked-phases has no setting 'tau'"),
        (("sweep", "masked-phases", "--grid", "high"), "--grid takes settings and values once each"),
        (("lab", "run", "masked-phases", "--trials", "0"), "trials is 0; it must be at least 1"),
    ],
    ids=lambda one: one if isinstance(one, str) else " ".join(one[1:]),
)
def test_mistakes_are_said_in_one_line(here: Path, arguments: tuple[str, ...], said: str) -> None:
    answer = Answer(*arguments)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert answer.err.count("\n") == 1
