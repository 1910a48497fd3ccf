"""``bench`` and its command: from models to a run, its page and its table; interrupted, resumed, and refused."""

import itertools
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import vitscope
from vitscope import Plan, UserError
from vitscope.cli import app
from vitscope.deploy import benching, memory, rounds
from vitscope.deploy.backend import BACKENDS, AbstractBackend, TorchRunner, torch_runner
from vitscope.deploy.bench import BenchQuestion
from vitscope.deploy.benching import BenchSettings
from vitscope.deploy.contestant import contestants_of
from vitscope.deploy.onnx_file import write_onnx
from vitscope.interventions.lesion import Lesion
from vitscope.models.compact import compact
from vitscope.runs.store import RunFolder

QUICK = {"rounds": 8, "seconds": 0.5, "memory": False, "threads": 1}


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    monkeypatch.setattr(rounds, "TURN", 0.002)


@pytest.fixture
def backends(monkeypatch):
    """What a test registers is gone after it."""
    list(BACKENDS)
    monkeypatch.setattr(BACKENDS, "_classes", dict(BACKENDS._classes))
    return BACKENDS


@pytest.fixture(scope="module")
def pair():
    """A model, and the same without half of its units."""
    return vitscope.load("digits"), Lesion((1, 2, 3, 4, 5, 6))(vitscope.load("digits"))


@pytest.fixture(scope="module")
def run(pair):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "TURN", 0.002)
        return vitscope.bench(pair, (1, 4), rounds=20, seconds=1, memory=False, threads=1)


def test_the_run_has_every_figure_at_its_place(run, pair):
    times = run["timing"]
    assert times.dims == ("model", "backend", "batch_size")
    assert times.sizes == {"model": 2, "backend": 1, "batch_size": 2}
    assert bool((times > 0).all())
    found = run.tree["timing"].to_dataset()
    assert bool((found["time_low"] <= found["time"]).all())
    assert bool((found["time"] <= found["time_p90"]).all())
    throughput = 1e3 * found["batch_size"] / found["time"]
    assert np.allclose(found["throughput"], throughput.transpose(*found["throughput"].dims))
    assert list(run) == ["timing", "time-ratio", "operations", "pass"]
    assert times["model"].values.tolist() == [pair[0].name, f"{pair[1].name}, {pair[1].edits[0]!r}"]
    adds, weights = run["operations/multiply_adds"], run["operations/parameters"]
    assert 0.4 < float(adds[1] / adds[0]) < 0.6
    assert float(weights[0]) == pair[0].parameter_count / 1e6 > 1.5 * float(weights[1])


def test_half_of_the_units_takes_less_time(run):
    ratio = run["time-ratio"]
    assert bool((ratio[1] < 0.9).all())
    claims = {claim.name.rpartition(" ")[2]: claim for claim in run.claims}
    assert not any("slower" in claims[batch].sentence for batch in ("1", "4"))


def test_the_machine_is_part_of_the_question(run):
    machine = run.spec.settings["machine"]
    assert machine["threads"] == 1
    assert machine["cores"] >= 1
    assert machine["processor"]
    assert torch.__version__.startswith(machine["torch"].partition("+")[0])
    assert run.spec.model["subjects"]
    assert any("billion multiply-adds a second" in note for note in run.notes)


def test_a_run_is_the_same_when_it_is_read_again_and_has_a_page(run, tmp_path):
    run.save(tmp_path / "bench")
    again = vitscope.read_run(tmp_path / "bench")
    assert again["timing"].identical(run["timing"])
    assert again.claims == run.claims
    text = vitscope.report(again, tmp_path / "page.html").read_text()
    for said in ("Time as a share of the first", "What binds it?", "Multiply-adds of an image", "is faster than"):
        assert said in text
    table = again.to_dataframe("time-ratio")
    assert {"model", "backend", "batch_size", "value", "low", "high"} <= set(table.columns)


def test_subjects_are_as_they_were(pair):
    before = [subject.fingerprint for subject in pair]
    threads = torch.get_num_threads()
    vitscope.bench(pair, 2, **{**QUICK, "threads": 2})
    assert [subject.fingerprint for subject in pair] == before
    assert torch.get_num_threads() == threads


def test_backends_give_the_modules_logits(backends):
    """On ONNX Runtime, and on a backend that doubles what the module gives, which is found out."""

    @BACKENDS.add("double")
    @dataclass(frozen=True)
    class Doubling(AbstractBackend):
        """Gives other logits."""

        name = "double"

        def check(self, device):
            pass

        def prepare(self, module, shape, batches, threads):
            return torch_runner(lambda images: 2 * module(images), module)

    run = vitscope.bench("digits", (1, 3), ("eager", "onnx", "double"), **QUICK)
    apart = run["logits"].sel(model=run["logits"]["model"].values[0])
    assert float(apart.sel(backend="onnx")) < 1e-4
    assert float(apart.sel(backend="double")) >= 0.5
    assert run.claims[0].sentence == "double gives other logits than the module: its times are those of another model."


def test_what_cannot_run_is_left_out_unless_it_is_the_first(backends):
    @BACKENDS.add("broken")
    @dataclass(frozen=True)
    class Broken(AbstractBackend):
        """Cannot run."""

        name = "broken"

        def check(self, device):
            pass

        def prepare(self, module, shape, batches, threads):
            raise RuntimeError("there is no compiler\nand more lines")

    run = vitscope.bench("digits", 2, ("eager", "broken"), **QUICK)
    assert run.skipped == {"broken": "there is no compiler"}
    assert run["timing"].sizes["backend"] == 2
    assert not np.isfinite(float(run["timing"].sel(backend="broken").item()))
    with pytest.raises(UserError, match=r"broken cannot run \(there is no compiler\)"):
        vitscope.bench("digits", 2, ("broken", "eager"), **QUICK)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    subject = vitscope.load("digits")
    module, shape = compact(subject), subject.preprocessing.shape
    write_onnx(module, shape, folder / "model.onnx")
    torch.export.save(torch.export.export(module, (torch.zeros(4, *shape),)), folder / "model.pt2")
    return folder


def test_exported_files_are_timed_beside_a_model(files):
    several = ["digits", files / "model.onnx", files / "model.pt2"]
    run = vitscope.bench(several, (1, 4), images=vitscope.images("digits", limit=6), **QUICK)
    times = run["timing"]
    assert int(np.isfinite(times).sum()) == 2 + 2 + 1
    assert np.isfinite(float(times.sel(model="model.pt2", backend="pt2", batch_size=4)))
    said = "it was exported for batches of 4 and takes no others"
    assert run.skipped == {"model.pt2 (pt2) at batch 1": said}
    assert bool((run["reading"][0] > 0).all())
    assert "pictures-bind" in [claim.name for claim in run.claims]
    adds = run["operations/multiply_adds"]
    assert float(adds.sel(model="model.pt2")) == float(adds[0])
    assert np.isnan(float(adds.sel(model="model.onnx")))


class Stop:
    """Interrupts after so many reports of progress."""

    def __init__(self, reports):
        self.left = reports

    def __call__(self, done, total):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def test_an_interrupt_keeps_finished_rounds(tmp_path, monkeypatch):
    contestants = contestants_of(["digits", "digits"], "eager", None)
    question = BenchQuestion(contestants, BenchSettings((1,), rounds=12, seconds=1, threads=1, memory=False))
    with pytest.raises(KeyboardInterrupt):
        vitscope.carry_out(question, Plan(folder=tmp_path, progress=Stop(5)))
    kept = len(RunFolder(str(tmp_path)).parts(question.spec))
    assert 2 <= kept <= 6
    assert (
        question.describe_kept(Plan(folder=tmp_path)) == f"{kept} rounds and the memory of 0 of 2 contestants are saved"
    )
    took: list[int] = []
    taken = rounds.ReadyContestant.take_turn
    monkeypatch.setattr(rounds.ReadyContestant, "take_turn", lambda one: took.append(one.contestant) or taken(one))
    run = vitscope.carry_out(question, Plan(folder=tmp_path, resume=True))
    assert len(took) == 2 * (12 - kept)
    assert int(run.tree["time-ratio"].to_dataset()["time_ratio_count"].max()) == 12
    assert vitscope.carry_out(question, Plan(folder=tmp_path)).claims == run.claims


def test_rounds_follow_from_the_seconds(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(benching, "_GAUGES", 0.05)
    vitscope.bench("digits", 1, seconds=1.5, threads=1, memory=False, plan=Plan(say=said.append))
    found = re.fullmatch(r"Timing, 1 contestant at batch 1, 1 threads?: (\d+) rounds, about \d+ s", said[0])
    assert found
    assert 8 <= int(found[1]) <= 30


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"models": []}, "There is no model to time"),
        ({"batch": ()}, "The batch sizes are"),
        ({"batch": (2, 2)}, "each once"),
        ({"batch": 0}, "A batch size is 0; it must be at least 1"),
        ({"backend": "onxx"}, "no backend named 'onxx'.*onnx"),
        ({"backend": ()}, "nothing to run the models"),
        ({"threads": 0}, "threads is 0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"rounds": 1}, "rounds is 1; it must be at least 2"),
        ({"models": "nowhere.onnx"}, r"There is no file nowhere\.onnx"),
        ({"models": "timm/vit_tniy"}, "vit_tniy"),
    ],
)
def test_what_cannot_be_is_one_sentence(given, said):
    with pytest.raises(UserError, match=said):
        vitscope.bench(**{"models": "digits", **given})


def invoke(*arguments, **settings):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)], env={"COLUMNS": "120"}, **settings)


def test_the_command_shows_times_and_writes_the_page(files, tmp_path):
    done = invoke("digits", files / "model.onnx", "--batch", "1,4", "--threads", 1, "--rounds", 8, "--seconds", 1,
                  "--out", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    lines = [re.sub(r"\s+", " ", line).strip() for line in done.stdout.splitlines()]
    rows = [line for line in lines if re.match(r"(digits|model\.onnx) (eager|onnx) [14] ", line)]
    assert len(rows) == 4
    assert any("billion multiply-adds an image" in line for line in lines)
    assert (tmp_path / "out" / "page.html").stat().st_size > 1e6
    run = vitscope.read_run(tmp_path / "out")
    assert run.provenance["command"].startswith("vitscope bench digits")
    assert run.skipped or int(np.isfinite(run["memory"]).sum()) == 4  # where the peak cannot be read it is left out
    again = invoke("digits", files / "model.onnx", "--batch", "1,4", "--threads", 1, "--rounds", 8, "--seconds", 1,
                   "--out", tmp_path / "out")  # fmt: skip
    assert "already holds this run" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("digits", "--batch", "one"), "--batch takes numbers of images"),
        (("digits", "--batch", "0"), "--batch is 0"),
        (("digits", "--backend", "eager,,onnx"), "--backend takes names"),
        (("digits", "--backend", "quick"), "no backend named 'quick'"),
        (("digits", "--threads", "0"), "--threads is 0"),
        (("digits", "--rounds", "1"), "--rounds is 1"),
        (("digits", "--images", "nowhere"), "nowhere"),
        (("nothing.pt2",), "There is no file nothing.pt2"),
        (("timm/vit_tniy",), "vit_tniy"),
    ],
)
def test_what_the_command_refuses_is_one_line(arguments, said):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr.replace("\n", " ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_weights_are_of_one_model(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    done = invoke("vit-micro", "vit-tiny", "--weights", weights)
    assert done.exit_code == 2
    assert "is of one model, and 2 were given" in done.stderr.replace("\n", " ")


def test_times_need_no_processes(monkeypatch):
    """As in a script without a guard, whose worker processes end as they begin."""

    def refuse(self, work, shards, advance):
        raise UserError("Worker processes import the script. Guard it.")
        yield

    monkeypatch.setattr(memory.Processes, "fold", refuse)
    run = vitscope.bench("digits", 1, **{**QUICK, "memory": True})
    assert run.skipped == {"memory": "Worker processes import the script. Guard it"}
    assert "memory" not in run
    assert float(run["timing"].item()) > 0


def test_what_is_ready_to_run_needs_no_gradients():
    runner = TorchRunner(lambda images: images * torch.ones(1, requires_grad=True), torch.empty(0))
    assert not runner.run(runner.place(torch.ones(1, 1, 2, 2))).requires_grad
    assert list(itertools.islice(BACKENDS, 3)) == ["compile", "eager", "onnx"]


def test_models_go_by_the_labels_they_are_given(pair):
    names = [one.model for one in contestants_of(pair, "eager", None, ["before", "after"])]
    assert names == ["before", "after"]
    for labels in (["one"], ["same", "same"], "ab"):
        with pytest.raises(UserError, match="2 models were given the labels"):
            contestants_of(pair, "eager", None, labels)


def test_random_weights_are_the_same_when_the_bench_is_given_again():
    state = torch.random.get_rng_state()
    first, again = (contestants_of("vit-micro", "eager", None)[0] for _ in range(2))
    assert first.facts() == again.facts()
    assert torch.equal(torch.random.get_rng_state(), state)
