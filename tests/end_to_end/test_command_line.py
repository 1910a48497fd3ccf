"""The command line as a user types it: every command, every mistake, interrupts and reruns."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import timm
import xarray as xr
from PIL import Image
from typer.testing import CliRunner

from vitscope.cli import app
from vitscope.cli.checkup import choose_diagnostics, deepen
from vitscope.cli.workers import Workers
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.engine.work.executor import AbstractExecutor, InProcess, Processes
from vitscope.engine.work.ray_cluster import RayCluster
from vitscope.findings.checkup import deep
from vitscope.measurement.errors import UserError
from vitscope.models.load import load
from vitscope.runs.store import RunFolder, read_run
from vitscope.training.progress import TrainingBar

VITSCOPE = [sys.executable, "-c", "from vitscope.cli import main; main()"]
FEW = ("--limit", "40", "--batch-size", "4", "--only", "accuracy,token-rank")


class Answer:
    """What a command said and how it ended; a traceback is raised again."""

    def __init__(self, *arguments: str) -> None:
        result = CliRunner().invoke(app, list(arguments), prog_name="vitscope", env={"COLUMNS": "100"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr


def folder_of(root: Path, **classes: int) -> Path:
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    assert Answer("checkup", *FEW, "--out", str(out)).code == 0
    return out


def test_checkup_without_arguments_examines_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    answer = Answer("checkup")
    assert time.monotonic() - began < 60
    assert answer.code == 0
    (page,) = tmp_path.glob("checkups/digits-????????/page.html")
    run = read_run(str(page.parent))
    assert page.parent.name == f"digits-{run.spec.address[:8]}"
    assert str(page.relative_to(tmp_path)) in answer.out
    assert f"{100 * float(run['accuracy']):.1f} ± " in answer.out
    assert all(f"{claim.mark}: {claim.sentence[:20]}" in answer.out for claim in run.claims[:3])
    assert f"{len(run.claims) - 3} more on the page" in answer.out
    assert run.tree.attrs["images"] == 445
    assert len(run.measured) == 11
    assert run.provenance["command"] == "vitscope checkup"


def test_the_command_line_is_kept_as_it_was_typed(finished: Path) -> None:
    command = "vitscope checkup --limit 40 --batch-size 4 --only accuracy,token-rank --out"
    assert str(read_run(str(finished)).provenance["command"]).startswith(command)


def test_again_is_not_measured_again_but_the_page_is_made(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (finished / "page.html").unlink()
    before = (finished / "run.nc").read_bytes()
    monkeypatch.setattr(Accuracy, "observe", lambda *_: pytest.fail("measured again"))
    answer = Answer("checkup", *FEW, "--out", str(finished))
    assert answer.code == 0
    assert "already holds this run" in answer.err
    assert (finished / "page.html").exists()
    assert (finished / "run.nc").read_bytes() == before


def stopping_after(calls: int) -> Callable[..., object]:
    left, observe = iter(range(calls)), Accuracy.observe

    def stopping(*given: object) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return observe(*given)

    return stopping


def test_an_interrupt_keeps_what_is_finished_and_resume_gives_the_same_run(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("checkup", *FEW, "--out", str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(Accuracy, "observe", stopping_after(6))
        stopped = Answer(*arguments)
    assert stopped.code == 130
    assert stopped.err.count("\n") == 1
    assert stopped.err.startswith("interrupted; 40% of the work is saved; continue with: vitscope checkup --limit 40")
    assert stopped.err.endswith(" --resume\n")
    assert not (tmp_path / "run" / "run.nc").exists()

    again, resumed, whole = Answer(*arguments, "--resume"), read_run(str(tmp_path / "run")), read_run(str(finished))
    assert again.code == 0
    assert resumed.claims == whole.claims
    assert resumed.spec == whole.spec
    for name in whole.tree.children:
        xr.testing.assert_identical(resumed.tree[name].to_dataset(), whole.tree[name].to_dataset())
    assert not (tmp_path / "run" / "partial").exists()


def test_resume_does_not_measure_again_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("checkup", *FEW, "--out", str(tmp_path))
    for calls, code in ((6, 130), (6, 0)):  # ten batches, four kept
        monkeypatch.undo()
        monkeypatch.setattr(Accuracy, "observe", stopping_after(calls))
        assert Answer(*arguments, "--resume").code == code


def test_a_part_that_is_not_resumed_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("checkup", *FEW, "--out", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(Accuracy, "observe", stopping_after(6))
        assert Answer(*arguments).code == 130
    answer = Answer(*arguments)
    assert answer.code == 0
    assert "--resume would continue from it" in answer.err


def _heed_interrupts() -> None:
    """What a terminal's foreground process does; one started in the background would inherit that they are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("ended", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_of_a_real_process(tmp_path: Path, ended: signal.Signals) -> None:
    command = [*VITSCOPE, "checkup", "--batch-size", "1", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_interrupts)
    waited = (time.sleep(0.05) for _ in range(600))
    while not list(tmp_path.glob("run/partial/*/batch-1-*")) and process.poll() is None:
        next(waited)
    process.send_signal(ended)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert error.count("\n") == 1
    assert "of the work is saved; continue with: vitscope checkup --batch-size 1" in error


MISTAKES = [
    (("checkup", "nonsense"), "No images were given to examine nonsense on; give --images FOLDER"),
    (("checkup", "nonsense", "--images", "digits"), "nonsense"),
    (("checkup", "timm/nonsense", "--images", "digits"), "timm has no model named 'nonsense'"),
    (("checkup", "keras/vgg", "--images", "digits"), "'keras/vgg' is no file, saved folder or model name"),
    (("checkup", "vit-micro", "--images", "/nowhere/photos"), "/nowhere/photos does not exist"),
    (("checkup", "--images", "/etc"), "No model was given to examine on /etc; give MODEL --images /etc, such as"),
    (("study", "lesion", "--images", "/etc"), "No model was given to examine on /etc"),
    (("head", "fit", "--images", "/etc"), "No model was given to examine on /etc"),
    (("checkup", "--split", "dev"), "digits has no split 'dev'; it has: all, test, train."),
    (("checkup", "--limit", "0"), "--limit takes at least one image, not 0."),
    (("checkup", "--label", "fine"), "digits has no label column 'fine'"),
    (("checkup", "--label-map", "/nowhere.json"), "the label map /nowhere.json cannot be read"),
    (("checkup", "--max-broken", "-1"), "--max-broken cannot be negative; it is -1."),
    (("checkup", "--weights", "/nowhere.safetensors"), "/nowhere.safetensors"),
    (("checkup", "vit-micro", "--images", "digits", "--pretrained"), "vit-micro has no pretrained weights"),
    (("checkup", "--only", "accuracy,nonsense"), "There is no diagnostic named 'nonsense'; there are: accuracy, "),
    (("checkup", "--only", "accuracy", "--skip", "accuracy"), "--only and --skip leave no diagnostic to measure."),
    (("checkup", "", "--images", "digits"), "MODEL is empty; give a value"),
    (("checkup", "--images", ""), "--images is empty; give a value"),
    (("study", "lesion", "", "--images", "/etc"), "MODEL is empty; give a value"),
    (("train", "--images", "digits", "--split="), "--split is empty; give a value"),
    (
        ("checkup", "--only", "accuracy", "--only", "calibration"),
        "--only is given twice; give it once; separate several values",
    ),
    (("checkup", "--limit", "40", "--limit=8"), "--limit is given twice; give it once."),
    (("measure", "accuracy", "--seed", "1", "--seed", "1"), "--seed is given twice"),
    (("lab", "run", "masked-phases", "--seed", "1", "--seed", "1"), "--seed is given twice"),
    (("checkup", "--skip", "lesion"), "There is no diagnostic named 'lesion' (it is among the studies)"),
    (("checkup", "--workers", "0"), "--workers must be 1 or more, not 0."),
    (("checkup", "--on", "cloud"), "--on takes local, ray or ray://HOST:PORT, not 'cloud'."),
    (("checkup", "--batch-size", "0"), "The batch size is 0; it must be at least 1."),
    (("checkup", "--device", "meta"), "The device meta holds no numbers to examine; give cpu"),
    (("head", "fit", "--kind", "attn"), "There is no kind of head named 'attn' (is it attention?); there are:"),
    (("head", "path", "--kind", "attn"), "There is no kind of head named 'attn' (is it attention?)"),
    (("head", "fit", "--features", "memory://f"), "Features are written on this machine, but memory://f is a URL"),
    (("checkup", "--seed", "-1"), "--seed is -1; it must be at least 0."),
    (
        ("checkup", "--seed", "99999999999999999999"),
        "--seed is 99999999999999999999; it must be at least 0 and",
    ),
    (("checkup", "--out", "data://run"), "data://run cannot be used"),
    (("measure", "calibration", "--bins", "0"), "bins is 0; it must be at least 1 and at most 10000."),
    (("measure", "attention-sparsity", "--mass", "nan"), "mass is nan; it must be finite and above 0 and at most 1."),
    (("checkup", "--device", "abacus"), "The device 'abacus' is not available here"),
    (("show", "prefix-sink"), "There is nothing named 'prefix-sink' (is it prefix-sinks?)"),
    (("anatomy", "timm/nonsense"), "timm has no model named 'nonsense'"),
    (("runs", "/nowhere"), "There is no folder /nowhere"),
    (("report", "/nowhere"), "There is no finished run at '/nowhere'"),
    (("train", "nonsense", "--images", "digits"), "nonsense"),
    (("train", "--images", "digits", "--epochs", "0"), "epochs is 0; it must be at least 1."),
    (("train", "--images", "digits", "--pool", "max"), "--pool is one of class, average, not 'max'."),
    (("train", "--images", "digits", "--channels", "2"), "--channels is one of 1, 3, not 2."),
    (("report", "/nowhere", "--format", "gif"), "--format is one of html, pdf, png, svg, not 'gif'"),
    (("train", "--images", "/nowhere"), "/nowhere does not exist"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = {"checkup": ("--out", "run"), "train": ("--out", "run")}.get(arguments[0], ())
    out = () if "--out" in arguments else out
    answer = Answer(*arguments, *out)
    assert answer.code == 2
    assert answer.err.startswith("Error: ")
    assert answer.err.count("\n") == 1
    assert message in answer.err
    assert answer.out == ""
    assert not (tmp_path / "run" / "run.nc").exists()


def test_images_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    letters = folder_of(tmp_path / "letters", a=1, b=1)
    broken = folder_of(tmp_path / "broken", **{str(digit): 1 for digit in range(10)})
    (broken / "1" / "bad.png").write_bytes(b"no image")
    for images, message in ((tmp_path / "empty", "no image"), (letters, "class"), (broken, "--max-broken")):
        answer = Answer("checkup", "digits", "--images", str(images), "--out", str(tmp_path / "run"))
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert message in answer.err
    tolerant = ("--images", str(broken), "--max-broken", "1", "--out", str(tmp_path / "run"), "--only", "token-rank")
    answer = Answer("checkup", "digits", *tolerant)
    assert answer.code == 0
    assert "bad.png was left out" in answer.out


def test_a_folder_of_another_run_is_left_alone(finished: Path) -> None:
    before = (finished / "run.nc").read_bytes()
    answer = Answer("checkup", "--limit", "41", "--only", "accuracy", "--out", str(finished))
    assert answer.code == 2
    assert "holds another run (digits on digits/test" in answer.err
    assert (finished / "run.nc").read_bytes() == before


def test_a_full_disk_is_one_sentence_and_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run.nc")

    monkeypatch.setattr(RunFolder, "write", full)
    answer = Answer("checkup", *FEW, "--out", str(tmp_path))
    assert answer.code == 1
    assert answer.err.startswith("Error: No space left on device: run.nc; free some space or give another --out.")
    assert answer.err.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = Answer("checkup", *FEW, "--out", str(tmp_path / "file" / "run"))
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert "Not a directory" in answer.err


def test_a_device_out_of_memory_says_what_to_try(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def exhausted(*_: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(Accuracy, "observe", exhausted)
    answer = Answer("checkup", *FEW, "--out", str(tmp_path))
    assert (answer.code, answer.err) == (1, "Error: The device is out of memory; try a smaller --batch-size.\n")


def test_a_run_and_its_page_can_be_kept_at_a_url() -> None:
    answer = Answer("checkup", *FEW, "--out", "memory://command-line/run")
    assert answer.code == 0
    assert "memory://command-line/run/page.html" in answer.out
    assert fsspec.filesystem("memory").cat_file("/command-line/run/page.html").startswith(b"<!")


def test_list_names_everything_registered() -> None:
    answer = Answer("list")
    assert answer.code == 0
    for name in ("fourier-spectrum", "prefix-sinks", "timm/vit", "transformers/swin", "vitscope/vit"):
        assert f"\n {name} " in answer.out


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("attention-sparsity", ("keys_share", "head", "top", "10", "How many of the largest weights", "Li et al.")),
        (
            "prefix-sinks",
            ("some are above 0.5, fails", "attention-sinks/prefix_mass", "if it holds", "threshold", "0.5"),
        ),
        ("timm/swin", ("tested on", "shifted windows")),
    ],
)
def test_show_tells_definition_fields_and_sources(name: str, texts: tuple[str, ...]) -> None:
    answer = Answer("show", name)
    assert answer.code == 0
    assert [text for text in texts if text not in answer.out] == []


def test_anatomy_shows_every_unit_with_its_shapes() -> None:
    answer = Answer("anatomy", "digits")
    assert answer.code == 0
    rows = [line.split() for line in answer.out.splitlines() if line.strip()[:1].isdigit()]
    assert len(rows) == 13
    assert rows[0] == ["0", "stem", "stem", "8x8", "65", "64"]
    assert rows[1] == ["1", "blocks.0.attn", "attention", "0.0", "8x8", "65", "64", "4", "1x65", "17k"]
    assert rows[12][:4] == ["12", "blocks.5.mlp", "mlp", "0.5"]


def test_anatomy_shows_a_name_as_it_is(tmp_path: Path) -> None:
    timm.models.save_for_hf(
        timm.create_model("test_vit", num_classes=3), tmp_path / "a[red]\x1b[2J[bold]b", safe_serialization=True
    )
    answer = Answer("anatomy", str(tmp_path / "a[red]\x1b[2J[bold]b"))
    assert answer.code == 0, answer.err
    assert answer.out.startswith(r"a[red]\x1b[2J[bold]b  timm/vit")


def test_anatomy_fits_eighty_columns() -> None:
    result = CliRunner().invoke(app, ["anatomy", "timm/swin_tiny_patch4_window7_224"], env={"COLUMNS": "80"})
    rows = [line for line in result.stdout.splitlines() if line[:3].strip().isdigit()]
    assert len(rows) == 28
    assert rows[1].split()[1] == "layers.0.blocks.0.attn"
    assert max(map(len, rows)) <= 80


def test_runs_lists_finished_runs(finished: Path, tmp_path: Path) -> None:
    answer = Answer("runs", str(finished.parent))
    assert answer.code == 0
    assert [text for text in ("digits/test", "40", "run") if text not in answer.out] == []
    assert "There is no finished run below" in Answer("runs", str(tmp_path)).out


def test_a_damaged_run_is_listed_and_left_out_of_reports_by_its_name(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # so that the names are short
    strange = tmp_path / "[bold]\x1b[31m"
    for name in ("one", "two", strange.name, "bad"):
        (tmp_path / name).mkdir()
        shutil.copy(finished / "run.nc", tmp_path / name / "run.nc")
    spoiled = tmp_path / "bad" / "run.nc"
    spoiled.write_bytes(spoiled.read_bytes()[:-2000])
    listed = Answer("runs", str(tmp_path))
    assert listed.code == 0
    assert "unreadable" in listed.out
    assert r"[bold]\x1b[31m" in listed.out
    assert "\x1b" not in listed.out + listed.err
    assert f"{spoiled} cannot be read as a run" in listed.err
    page, runs = tmp_path / "page.html", [str(tmp_path / name) for name in ("one", "bad", "two")]
    for command in ("report", "compare"):
        answer = Answer(command, *runs, "--out", str(page))
        assert answer.code == 0
        assert answer.err.startswith(f"Left out: {spoiled} cannot be read as a run")
        assert page.stat().st_size > 10_000
    alone = Answer("compare", *runs[:2], "--out", str(page))
    assert (alone.code, alone.err.count("\n")) == (2, 1)
    assert "cannot be read as a run" in alone.err


def test_report_makes_pages_and_figures(finished: Path, tmp_path: Path) -> None:
    page, figures = tmp_path / "both.html", tmp_path / "figures"
    assert Answer("report", str(finished), str(finished / "run.nc"), "--out", str(page)).code == 0
    assert page.stat().st_size > 10_000
    drawn = Answer("report", str(finished), "--format", "svg", "--out", str(figures))
    assert drawn.code == 0
    assert [Path(line).exists() for line in drawn.out.split()] == [True]
    assert Answer("report", str(finished), str(finished)).code == 2
    assert Answer("report", str(finished), str(finished), "--format", "png", "--out", str(figures)).code == 2


TINY = ("--images", "digits", "--limit", "64", "--epochs", "2", "--batch", "16", "--image", "8", "--patch", "4",
        "--depth", "1", "--channels", "1", "--randaugment", "0", "--save-every", "1")  # fmt: skip


def test_train_interrupt_resume_and_checkup_of_what_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupting(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingBar, "step", interrupting)
        stopped = Answer("train", "vit-micro", *TINY, "--out", str(tmp_path / "one"))
    assert stopped.code == 130
    assert stopped.err.rstrip().endswith("--resume")
    assert Answer("train", "vit-micro", *TINY, "--out", str(tmp_path / "one"), "--resume").code == 0
    whole = Answer("train", "vit-micro", *TINY, "--out", str(tmp_path / "two"))
    assert whole.code == 0
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert str(two) in whole.out
    assert json.loads((tmp_path / "two" / "recipe.json").read_text())
    checked = [Answer("checkup", str(file), "--images", "digits", *FEW, "--out", f"{file}-run") for file in (one, two)]
    assert [answer.code for answer in checked] == [0, 0]
    first, second = (read_run(f"{file}-run") for file in (one, two))
    assert first.spec.model["fingerprint"] == second.spec.model["fingerprint"]


def test_train_goes_on_from_a_folder_a_file_and_the_weights_of_a_name(tmp_path: Path) -> None:
    few = ("--images", "digits", "--limit", "32", "--epochs", "1", "--batch", "16", "--randaugment", "0")
    assert Answer("train", "digits", *few, "--out", str(tmp_path / "one")).code == 0
    file = tmp_path / "one" / "model.safetensors"
    for number, start in enumerate(
        (("--from", str(tmp_path / "one")), ("--from", str(file)), (str(tmp_path / "one"),))
    ):
        answer = Answer("train", *start, *few, "--out", str(tmp_path / f"on-{number}"))
        assert answer.code == 0
        assert f"It began with the weights of vit-micro ({file})." in " ".join(answer.err.split())
    found = {load(tmp_path / f"on-{number}" / "model.safetensors").fingerprint for number in range(3)}
    assert len(found) == 1
    for flags, said in (
        (("--weights", str(file)), "--weights is given without a model; name the model of the weights"),
        (
            ("--pretrained", "--from", str(file)),
            "--pretrained and --from each set the weights to start from; give only one",
        ),
        (("vit-tiny", "--from", str(file)), "model is vit-tiny, but it comes from the start, vit-micro"),
        (("vit-tiny", "--weights", "/nowhere"), "/nowhere does not exist"),
    ):
        answer = Answer("train", *flags, *few, "--out", str(tmp_path / "none"))
        assert answer.code == 2
        assert said in " ".join(answer.err.split())


def test_train_names_the_choices_of_its_flags() -> None:
    text = Answer("train", "--help").out
    assert "--learning-rate" in text
    assert "Highest learning rate." in text
    assert "One of class, average." in " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize(
    ("workers", "executor"),
    [
        (Workers(), InProcess()),
        (Workers(3), Processes(3)),
        (Workers(on="ray"), RayCluster("local")),
        (Workers(on="ray://host:10001"), RayCluster("ray://host:10001")),
    ],
)
def test_workers_say_where_shards_are_folded(workers: Workers, executor: AbstractExecutor) -> None:
    assert workers.executor == executor


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        (Workers(0), "--workers must be 1 or more"),
        (Workers(on="rayon"), "--on takes local, ray or ray://HOST:PORT"),
        (Workers(on="ray:host"), "--on takes local, ray or ray://HOST:PORT"),
        (Workers(2, "ray"), "leave it out with --on ray"),
    ],
)
def test_other_workers_are_refused(workers: Workers, said: str) -> None:
    with pytest.raises(UserError, match=said):
        _ = workers.executor


@pytest.mark.parametrize(
    ("only", "skip", "names"),
    [
        ("token-rank,accuracy", None, ["accuracy", "token-rank"]),
        ("token-rank, accuracy ,", None, ["accuracy", "token-rank"]),
        ("token-rank,accuracy", "accuracy", ["token-rank"]),
    ],
)
def test_only_and_skip_choose_diagnostics(only: str | None, skip: str | None, names: list[str]) -> None:
    assert [diagnostic.name for diagnostic in choose_diagnostics(only, skip)] == names
    assert len(choose_diagnostics(None, "accuracy")) == len(choose_diagnostics(None, None)) - 1


def test_a_deep_checkup_leaves_out_what_is_skipped_and_has_its_own_settings() -> None:
    def names(only: str | None, skip: str | None) -> tuple[list[str], list[str]]:
        diagnostics, studies = deepen(choose_diagnostics(only, skip, deep=True), skip)
        return [one.name for one in diagnostics], [one.name for one in studies]

    assert names("accuracy", None) == (["accuracy", "hessian-spectrum"], ["lesion", "frequency-noise", "token-keep"])
    assert names("accuracy", "hessian-spectrum,lesion") == (["accuracy"], ["frequency-noise", "token-keep"])
    assert names("hessian-spectrum", None)[0] == ["hessian-spectrum"]
    (curvature,), _ = deepen(choose_diagnostics("hessian-spectrum", None, deep=True), None)
    assert curvature == deep()[0][0]


def test_the_command_line_itself_imports_nothing_heavy() -> None:
    program = "import vitscope, sys; had = set(sys.modules); import vitscope.cli; print(*(set(sys.modules) - had))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    roots = {name.split(".")[0] for name in loaded}
    heavy = {"torch", "timm", "torchvision", "transformers", "xarray", "plotly", "matplotlib", "ray", "sklearn"}
    assert roots & heavy == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs", "nowhere"),
        ("head", "fit", "--kind", "attn"),
        ("checkup", "--workers", "0"),
        ("lab", "run", "masked-phases", "--workers", "0"),
    ],
)
def test_what_can_be_refused_at_once_is_refused_before_anything_heavy_is_imported(arguments: tuple[str, ...]) -> None:
    program = (
        "import sys\nfrom vitscope.cli import app\n"
        f"try:\n    app({list(arguments)!r})\n"
        "except SystemExit as end:\n    print(end.code, *({'torch', 'xarray', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "2", done


def test_a_terminal_of_few_letters_loses_nothing(tmp_path: Path) -> None:
    few = ("checkup", *FEW, "--out", str(tmp_path / "run"))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*VITSCOPE, *few], capture_output=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"\\xb1" in done.stdout


def test_help_names_every_command() -> None:
    text = Answer("--help").out
    commands = ("checkup", "list", "show", "anatomy", "train", "runs", "report")
    assert [command for command in commands if f"│ {command} " not in text] == []


CHOSEN = """
import os, sys
from vitscope.cli import main
sys.argv = ["vitscope", "--help"]
try:
    main()
except SystemExit:
    print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""


@pytest.mark.parametrize("given", [None, "active"])
def test_idle_threads_sleep_unless_the_user_says_otherwise_and_before_torch_is_there(given):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    found = subprocess.run([sys.executable, "-c", CHOSEN], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.splitlines()[-1] == f"{given or 'passive'} False"
