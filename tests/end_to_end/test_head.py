"""``vitscope head`` as a user types it: fits, paths, comparisons, interrupts, reruns and mistakes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from vitscope.cli import app
from vitscope.convex import load
from vitscope.convex.runs import compare, path
from vitscope.convex.solver import Progress
from vitscope.data import images
from vitscope.runs.run import Run
from vitscope.runs.store import read_run

SMALL = ("--images", "digits", "--limit", "200", "--test-limit", "100", "--pool", "2", "--width", "6")
QUICK = ("--gates", "2", "--tol", "0.02")


class Answer:
    """What a command said and how it ended; a traceback is raised again."""

    def __init__(self, *arguments: str) -> None:
        result = CliRunner().invoke(app, ["head", *arguments], prog_name="vitscope", env={"COLUMNS": "160"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, features: str) -> tuple[Path, Answer]:
    out = tmp_path_factory.mktemp("fitted") / "head"
    arguments = ("fit", "digits", *SMALL, *QUICK, "--beta", "0.02", "--features", features, "--out", str(out))
    return out, Answer(*arguments)


def tokens_of(features: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The kept features of so many images."""
    found = [folder for folder in Path(features).iterdir() if len(np.load(folder / "labels.npy")) == count]
    return np.load(found[0] / "tokens.npy"), np.load(found[0] / "labels.npy")


def along(run: Run) -> xr.Dataset:
    """All that a run tells along a path."""
    parts = ("convex-path", "convex-path-rank", "convex-path-spectrum", "convex-path-certificate")
    return xr.merge([run.tree[part].to_dataset() for part in parts], combine_attrs="override")


def interrupted_after(calls: int, of: Callable[..., object]) -> Callable[..., object]:
    """The function, which raises Ctrl-C from the given call on."""
    made = 0

    def called(*given: object, **named: object) -> object:
        nonlocal made
        made += 1
        if made > calls:
            raise KeyboardInterrupt
        return of(*given, **named)

    return called


def test_fit_leaves_a_head_a_run_and_a_page(fitted: tuple[Path, Answer], features: str) -> None:
    out, answer = fitted
    assert answer.code == 0
    assert {path.name for path in out.iterdir()} == {"head.safetensors", "run.nc", "page.html"}
    run = read_run(str(out))
    assert list(run.tree.children) == [
        "convex-head",
        "convex-training",
        "convex-spectrum",
        "convex-tokens",
        "convex-gram",
    ]
    tokens, labels = tokens_of(features, 100)
    right = float((load(out).predict(tokens) == labels).mean())
    assert float(run["convex-head"]) == pytest.approx(right)
    assert f"{100 * right:.1f} ± " in answer.out
    head = run.tree["convex-head"].to_dataset()
    assert float(head["lower_bound"]) <= float(head["objective"])
    gap = float(head["objective"] / head["lower_bound"] - 1)
    assert float(head["relative_gap"]) == pytest.approx(100 * gap)
    assert int(head["heads"]) == int(np.isfinite(run["convex-spectrum"].values).sum())
    assert run["convex-tokens/token_weight"].shape[:1] + run["convex-tokens/token_weight"].shape[2:] == (6, 2, 2)
    assert [claim.name for claim in run.claims] == ["certified"]
    assert f"{run.claims[0].mark}: The head is within" in answer.out
    assert str(out / "page.html") in answer.out
    assert "Weights of patches" in (out / "page.html").read_text()


def test_the_same_fit_again_is_not_made_again(
    fitted: tuple[Path, Answer], features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = fitted
    monkeypatch.setattr(Progress, "record", interrupted_after(0, Progress.record))
    again = ("fit", "digits", *SMALL, *QUICK, "--features", features, "--out", str(out))
    answer = Answer(*again, "--beta", "0.02")
    assert answer.code == 0
    assert "already" in answer.err
    other = Answer(*again, "--beta", "0.05")
    assert other.code == 2
    assert "holds another run" in other.err


def test_an_interrupted_fit_keeps_its_best_point_and_goes_on_from_there(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = Progress.record
    monkeypatch.setattr(Progress, "record", interrupted_after(2, reached))
    arguments = ("fit", "digits", *SMALL, "--gates", "2", "--tol", "1e-3", "--features", features, "--beta", "0.02")
    answer = Answer(*arguments, "--out", str(tmp_path))
    assert answer.code == 130
    assert answer.err.count("\n") == 1
    assert "head.safetensors holds its best point" in answer.err
    assert "continue with: vitscope head fit digits" in answer.err
    assert answer.err.rstrip().endswith("--resume")
    assert not (tmp_path / "run.nc").exists()
    assert "was interrupted" in (tmp_path / "page.html").read_text()
    head = load(tmp_path)
    assert head.solution_.stopped == "interrupted"
    assert head.certificate_.relative_gap > 1e-3
    monkeypatch.setattr(Progress, "record", reached)
    again = Answer(*arguments, "--out", str(tmp_path), "--resume")
    assert again.code == 0
    other = load(tmp_path)
    assert not other.interrupted_
    assert other.certificate_.relative_gap <= 1e-3
    assert other.history_[0].primal <= head.certificate_.primal * (1 + 1e-6)
    run = read_run(str(tmp_path))
    assert "continued from its best point" in run.notes[0]
    assert not (tmp_path / "partial").exists()


def test_a_beta_without_heads_is_said_on_the_page(features: str, tmp_path: Path) -> None:
    arguments = ("fit", "digits", *SMALL, *QUICK, "--kind", "mlp", "--beta", "9", "--features", features)
    assert Answer(*arguments, "--out", str(tmp_path)).code == 0
    assert "leaves no head" in read_run(str(tmp_path)).notes[0]


def test_a_beta_too_small_to_certify_is_said_with_what_to_do(features: str, tmp_path: Path) -> None:
    arguments = ("fit", "digits", *SMALL, *QUICK, "--beta", "1e-7", "--max-passes", "40", "--features", features)
    answer = Answer(*arguments, "--out", str(tmp_path))
    assert answer.code == 0
    assert "problem: The certificate does not reach 2 %: a better head may exist." in answer.out
    assert "a larger beta" in answer.out


def test_tokens_that_were_changed_on_disk_are_refused(tmp_path: Path) -> None:
    arguments = ("fit", "digits", *SMALL, *QUICK, "--kind", "linear", "--features", str(tmp_path / "features"))
    assert Answer(*arguments, "--beta", "0.1", "--out", str(tmp_path / "a")).code == 0
    for folder in (tmp_path / "features").iterdir():
        np.load(folder / "tokens.npy", mmap_mode="r+")[3, 1] = np.nan
    answer = Answer(*arguments, "--beta", "0.2", "--out", str(tmp_path / "b"))
    assert answer.code == 2
    assert "are damaged (tokens.npy is not as it was written); delete that folder." in answer.err


def test_images_of_one_class_are_refused(tmp_path: Path) -> None:
    some = images("digits", limit=100)
    pixels = np.stack([np.asarray(some.read(i)) for i in range(20)])
    np.savez(tmp_path / "some.npz", images=pixels, labels=np.zeros(20, np.int64))
    arguments = ("--images", str(tmp_path / "some.npz"), "--features", str(tmp_path / "f"), "--out", str(tmp_path))
    answer = Answer("fit", "digits", "--pool", "2", "--width", "4", *arguments)
    assert answer.code == 2
    assert "All labels are of one class, 0; give images of at least two classes" in answer.err


def test_more_gates_than_make_sense_are_refused(features: str, tmp_path: Path) -> None:
    arguments = (*SMALL, "--features", features, "--out", str(tmp_path), "--gates", "30000")
    answer = Answer("path", "digits", *arguments)
    assert answer.code == 2
    assert "give at most 20000 (8 to 64 are usual)" in answer.err


def test_beta_is_chosen_on_images_held_out(features: str, tmp_path: Path) -> None:
    arguments = ("--kind", "linear", "--activation", "linear", "--beta", "auto", "--betas", "5", "--tol", "0.02")
    answer = Answer("fit", "digits", *SMALL, *arguments, "--features", features, "--out", str(tmp_path))
    assert answer.code == 0
    head = load(tmp_path)
    assert head.validation_ is not None
    assert head.beta_ in [trial.beta for trial in head.validation_]
    run = read_run(str(tmp_path))
    assert float(run["convex-head/penalty"]) == pytest.approx(head.beta_)
    assert "convex-tokens" not in run  # a linear head sees the mean token


def test_a_path_goes_on_where_it_was_interrupted(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("path", "digits", *SMALL, *QUICK, "--kind", "linear", "--betas", "4", "--features", features)
    solve = path.solve
    monkeypatch.setattr(path, "solve", interrupted_after(2, solve))
    answer = Answer(*arguments, "--out", str(tmp_path / "a"))
    assert answer.code == 130
    assert "2 of 4 points are saved" in answer.err
    assert answer.err.rstrip().endswith("--resume")
    monkeypatch.setattr(path, "solve", interrupted_after(2, solve))
    assert Answer(*arguments, "--out", str(tmp_path / "a"), "--resume").code == 0
    monkeypatch.setattr(path, "solve", solve)
    assert Answer(*arguments, "--out", str(tmp_path / "b")).code == 0
    resumed, whole = (along(read_run(str(tmp_path / name))) for name in "ab")
    for name in ("objective", "lower_bound", "top1", "singular_value"):
        np.testing.assert_allclose(resumed[name], whole[name], rtol=1e-5)
    assert (np.diff(whole["objective"].values) < 0).all()
    assert (whole["lower_bound"] <= whole["objective"]).all()
    assert whole["beta"].values[-1] == pytest.approx(1e-3)
    assert whole["beta"].attrs["scale"] == "log"


def test_a_comparison_goes_on_where_it_was_interrupted(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("compare", "digits", *SMALL, *QUICK, "--kinds", "linear,fno", "--betas", "2", "--seeds", "2")
    arguments = (*arguments, "--features", features, "--out", str(tmp_path))
    fit = compare.fit_head
    monkeypatch.setattr(compare, "fit_head", interrupted_after(3, fit))
    answer = Answer(*arguments)
    assert answer.code == 130
    assert "3 of 4 fits are saved" in answer.err
    monkeypatch.setattr(compare, "fit_head", interrupted_after(1, fit))
    answer = Answer(*arguments, "--resume")
    assert answer.code == 0
    assert [word in answer.out for word in ("linear", "fno", "test top-1")] == [True] * 3
    run = read_run(str(tmp_path))
    assert {claim.name for claim in run.claims} == {"attention-like-heads-win", "certified"}
    found = run.tree["convex-comparison"].to_dataset()
    assert found["head_kind"].values.tolist() == ["linear", "fno"]
    assert found["top1_count"].values.tolist() == [100, 100]
    assert found["penalty_count"].values.tolist() == [2, 2]
    np.testing.assert_allclose(found["top1"], found["top1_over_seeds"])


def test_without_a_test_split_a_fifth_is_held_out_and_the_page_says_so(tmp_path: Path) -> None:
    some = images("digits", limit=100)
    pixels = np.stack([np.asarray(some.read(i)) for i in range(100)])
    np.savez(tmp_path / "some.npz", images=pixels, labels=some.labels)
    arguments = (
        "fit",
        "digits",
        "--images",
        str(tmp_path / "some.npz"),
        "--pool",
        "2",
        "--width",
        "4",
        "--kind",
        "mlp",
    )
    out = str(tmp_path / "out")
    answer = Answer(*arguments, *QUICK, "--beta", "0.05", "--features", str(tmp_path / "f"), "--out", out)
    assert answer.code == 0
    run = read_run(out)
    assert int(run.tree["convex-head"].to_dataset()["top1_count"]) == 20
    assert "held out for the test" in run.notes[0]
    assert "held out for the test" in (tmp_path / "out" / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fit", "digits", "--kind", "fno,mlp"), "There is no kind of head named 'fno,mlp'"),
        (("fit", "digits", "--kind", "softmax"), "There is no kind of head named 'softmax'"),
        (("fit", "digits", "--beta", "0"), "--beta takes a number above 0 or auto, not '0'"),
        (("compare", "digits", "--kinds", "linear,conv"), "There is no kind of head named 'conv'"),
        (("compare", "digits", "--seeds", "0"), "--seeds must be 1 or more"),
        (("fit", "digits", "--gates", "0"), "gates is 0; give a whole number, 1 or more"),
        (("path", "digits", "--tol", "0"), "tol is 0.0; give a number above 0"),
        (("compare", "digits", "--validation", "1"), "validation is 1.0; give a number between 0 and 1"),
        (("fit", "digits", "--ensemble", "2", "--activation", "linear"), "give ensemble=1"),
        (("path", "digits", "--activation", "gelu"), "--activation is one of linear, gated-relu, relu"),
        (("path", "digits", "--pool", "0"), "--pool and --width must be 1 or more"),
        (("fit", "vit-micro"), "--images FOLDER"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = Answer(*arguments)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize("command", ["fit", "path", "compare"])
def test_every_flag_has_its_help(command: str) -> None:
    shown = Answer(command, "--help").out
    for flag in ("--pool", "--width", "--features", "--gates", "--class-weight", "--test-split", "--out", "--resume"):
        assert flag in shown
    assert "--augment" not in shown
    for flag in ("--ensemble", "--validation"):
        assert (flag in shown) is (command != "path")
