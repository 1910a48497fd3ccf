"""Watching a training: it goes on bitwise as if nobody had looked, and what was seen is kept, stated and bounded."""

import dataclasses
import random
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune
from typer.testing import CliRunner

from vitscope.cli import app
from vitscope.data.load import images
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.diagnostics.attention_entropy import AttentionEntropy
from vitscope.diagnostics.hessian_spectrum import HessianSpectrum
from vitscope.diagnostics.token_similarity import TokenSimilarity
from vitscope.engine.measure import measure
from vitscope.measurement.errors import UserError
from vitscope.models.checkpoint import read_checkpoint
from vitscope.models.load import load
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.models.pixels import PixelInput
from vitscope.runs.run import Run
from vitscope.runs.store import read_run
from vitscope.training.observer import AbstractTrainingObserver, Several, Silent
from vitscope.training.recipe import Recipe
from vitscope.training.train import train
from vitscope.training.watch import AsSubject, Monitor
from vitscope.training.watch.own import WatchObserver
from vitscope.training.watch.pace import Pace, Turn
from vitscope.training.watch.scalar import Scalar, plain_values, scalars, units
from vitscope.training.watch.sink import AbstractSink
from vitscope.training.watch.snapshot import keep_random_states, snapshot, strip_wrappers
from vitscope.training.watch.store import StepStore

TINY = Recipe(
    image=8, channels=1, patch=4, depth=2, epochs=2, batch=8, drop_path=0.2, save_every=2, accelerator="cpu",
    learning_rate=1e-2,
)  # fmt: skip
SHOWN = images("digits", split="train", limit=24, seed=0)
WATCHED = images("digits", split="test", limit=10, seed=0)
INPUT = PixelInput(8, 1, (0.5,), (0.5,))
CONFIG = VitConfig(image=8, channels=1, patch=4, dim=8, depth=1, heads=2)
FEW = (Accuracy(), AttentionEntropy())


class Kept(AbstractSink):
    """Keeps what it is told."""

    def __init__(self):
        self.logged, self.notes, self.closed = {}, {}, 0

    def log(self, step, scalars):
        self.logged[step] = {scalar.name: scalar for scalar in scalars}

    def note(self, step, text):
        self.notes[step] = text

    def close(self):
        self.closed += 1


class Drawing(Kept):
    """Draws numbers, as libraries do to name their runs."""

    def log(self, step, scalars):
        np.random.random(), torch.rand(3)  # noqa: NPY002


class Broken(Kept):
    """Fails at everything."""

    def log(self, step, scalars):
        raise ConnectionError("no network")

    note = log

    def close(self):
        raise ConnectionError("no network")


class Clock:
    """Tells the time it was set to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Plain(nn.Module):
    """Batch norm, dropout, and blocks that are found."""

    def __init__(self):
        super().__init__()
        block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3))
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.Sequential(block)
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def vit(seed=0):
    torch.manual_seed(seed)
    return Vit(CONFIG)


def monitor(folder, **settings):
    return Monitor(**{"images": WATCHED, "diagnostics": FEW, "folder": folder, "every": 1, "budget": 1.0, **settings})


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def random_states():
    """Not Python's: the type checks of the tests draw from it."""
    return np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


def reckless(module):
    """A subject maker that draws numbers, and spoils the module it is given."""
    np.random.random(), torch.rand(3)  # noqa: NPY002
    subject = AsSubject(input=INPUT)(module)
    with torch.no_grad():
        for value in module.state_dict().values():
            value.zero_()
    return subject


def trained(watch, module):
    """Four steps of training with dropout, batch norm and random batches; gradients are left from the last one."""
    np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    module.train()
    for step in range(4):
        watch(module, step)
        optimizer.zero_grad()
        x = torch.randn(6, 1, 8, 8) + np.random.random()  # noqa: NPY002
        functional.cross_entropy(module(x), torch.randint(10, (6,))).backward()
        optimizer.step()
    watch(module, 4)
    return module


@pytest.mark.parametrize(("make", "settings"), [
    (Plain, {"subject": AsSubject(input=INPUT), "sinks": (Drawing(),)}), (Plain, {"subject": reckless}),
    (lambda: Vit(CONFIG), {}), (lambda: Vit(CONFIG), {"folder": "/proc/nowhere"}),
])  # fmt: skip
def test_a_watched_training_is_bitwise_an_unwatched_one(tmp_path, make, settings):
    calls = {"plain": 0, "watched": 0}
    results = {}
    for name in calls:
        torch.manual_seed(0)
        module = make()
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
        watch = monitor(**{"folder": tmp_path, **settings}).step if name == "watched" else (lambda *_: None)
        results[name] = trained(watch, module), random_states()
    (plain, states), (watched, states_watched) = results["plain"], results["watched"]
    assert same(plain.state_dict(), watched.state_dict())
    assert states == states_watched
    assert all(part.training for part in watched.modules())
    assert calls == {"plain": 4, "watched": 4}
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
        assert other.requires_grad
    runs = sorted(path.parent.name for path in tmp_path.glob("*/run.nc"))
    assert runs == ([] if "folder" in settings else [f"step-00000{step}" for step in range(5)])


def test_the_own_trainer_ends_with_the_same_weights_and_its_last_run_is_of_them(tmp_path):
    plain = train(TINY, SHOWN, tmp_path / "plain")
    watch = WatchObserver(monitor(tmp_path / "watched", every=2))
    watched = train(TINY, SHOWN, tmp_path / "watched", observer=watch)
    assert same(read_checkpoint(plain.weights).weights, read_checkpoint(watched.weights).weights)
    names = sorted(path.name for path in watched.folder.glob("step-*"))
    assert names == ["step-000000", "step-000002", "step-000004", "step-000006"]
    by_hand = measure(load(watched.weights), WATCHED, FEW)
    last = read_run(str(watched.folder / "step-000006"))
    for name in ("accuracy", "attention-entropy"):
        xr.testing.assert_equal(by_hand.tree[name].to_dataset(), last.tree[name].to_dataset())
    assert last.spec.model["weights"] == "step 6 of a training"
    assert last.spec.model["name"] == "vit-micro"
    assert int(last.tree.attrs["step"]) == 6
    first = read_run(str(watched.folder / "step-000000"))
    assert first.spec.model["fingerprint"] != last.spec.model["fingerprint"]


def test_the_moving_average_is_watched_where_there_is_one(tmp_path):
    recipe = dataclasses.replace(TINY, ema=0.9)
    watched = train(recipe, SHOWN, tmp_path, observer=WatchObserver(monitor(tmp_path, every=6)))
    found = read_run(str(tmp_path / "step-000006")).spec.model["fingerprint"]
    assert found == load(watched.weights).fingerprint


def test_a_resumed_training_keeps_the_runs_it_finds(tmp_path):
    class Kill(Silent):
        def step(self, step):
            if step.number == 5:
                raise InterruptedError

    with pytest.raises(InterruptedError):
        train(TINY, SHOWN, tmp_path, observer=Several((WatchObserver(monitor(tmp_path, every=2)), Kill())))
    before = {path: path.read_bytes() for path in tmp_path.glob("step-*/run.nc")}
    assert sorted(path.parent.name for path in before) == ["step-000000", "step-000002", "step-000004"]
    train(TINY, SHOWN, tmp_path, resume=True, observer=WatchObserver(monitor(tmp_path, every=2)))
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.name for path in tmp_path.glob("step-*"))[3:] == ["step-000006"]
    assert not list(tmp_path.glob("*/failure.txt"))


def test_another_run_of_a_step_is_put_beside_it(tmp_path):
    one, other, third = (monitor(tmp_path).step(vit(seed), 200) for seed in (0, 1, 2))
    again = monitor(tmp_path).step(vit(1), 200)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000200", "step-000200-2", "step-000200-3"]
    xr.testing.assert_equal(again.tree["accuracy"].to_dataset(), other.tree["accuracy"].to_dataset())
    kept = [read_run(str(tmp_path / name)) for name in ("step-000200", "step-000200-2", "step-000200-3")]
    assert [run.spec.address for run in kept] == [run.spec.address for run in (one, other, third)]


def test_a_diverged_training_is_noted_and_goes_on(tmp_path, caplog):
    module, sink = vit(), Kept()
    with torch.no_grad():
        module.blocks[0].mlp[0].bias[3] = torch.nan
    watch = monitor(tmp_path, sinks=(sink,))
    assert watch.step(module, 1) is None
    text = "The weights are not finite (blocks.0.mlp.0.bias): the training has diverged; lower the learning rate."
    assert (tmp_path / "step-000001" / "failure.txt").read_text() == f"{text}\n"
    assert sink.notes == {1: f"could not be measured: {text}"}
    assert sink.logged == {}
    assert caplog.messages == [f"Step 1 could not be measured: {text}"]
    assert watch.step(vit(), 2) is not None


def raises(error):
    def subject(module):
        raise error

    return subject


def test_a_diagnostic_that_finds_nothing_to_read_is_named_once(tmp_path, caplog):
    watch = monitor(tmp_path, subject=AsSubject(input=INPUT))
    assert all(watch.step(Plain(), step) is not None for step in range(2))
    assert caplog.messages == [
        "attention-entropy is not measured: Plain has no attention that this reads (its units: convolution)."
    ]


def test_curvature_is_taken_and_leaves_no_gradients(tmp_path):
    module, sink = vit(), Kept()
    diagnostic = HessianSpectrum(top=1, batch=4, batches=1, steps=20, ends="largest")
    run = monitor(tmp_path, diagnostics=(diagnostic,), sinks=(sink,)).step(module, 0)
    assert sink.logged[0]["hessian-spectrum/largest"].value == run["hessian-spectrum/largest"].item()
    assert all(weight.grad is None for weight in module.parameters())


def test_a_defect_is_noted_with_its_trace(tmp_path):
    assert monitor(tmp_path, subject=raises(ZeroDivisionError("by zero"))).step(vit(), 7) is None
    lines = (tmp_path / "step-000007" / "failure.txt").read_text().splitlines()
    assert lines[:2] == ["ZeroDivisionError: by zero", "Traceback (most recent call last):"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes_through_and_the_random_states_are_as_before(tmp_path, error):
    module, before = vit(), random_states()
    with pytest.raises(error):
        monitor(tmp_path, subject=lambda copied: raises(error())(torch.rand(1))).step(module, 0)
    assert random_states() == before


def test_all_random_states_are_kept():
    def drawn():
        return np.array([random.random(), np.random.random(), torch.rand(()).item()])  # noqa: NPY002

    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    first = drawn()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    with pytest.raises(ZeroDivisionError), keep_random_states():
        drawn()[0] + 1 / 0
    assert drawn().tolist() == first.tolist()


def test_a_sink_that_fails_is_named_once_and_the_others_are_told(tmp_path, caplog):
    sink = Kept()
    watch = monitor(tmp_path, sinks=(Broken(), sink))
    assert all(watch.step(vit(), step) is not None for step in range(3))
    watch.close()
    assert sorted(sink.logged) == [0, 1, 2]
    assert sink.closed == 1
    assert caplog.messages == ["Broken failed, first at step 0: ConnectionError: no network"]


def test_a_folder_that_cannot_be_written_is_named(caplog):
    sink = Kept()
    assert monitor("/proc/nowhere", sinks=(sink,)).step(vit(), 3) is None
    assert "Step 3 could not be measured: " in caplog.messages[0]
    assert "This failure could not be noted in /proc/nowhere either: " in caplog.messages[1]
    assert list(sink.notes) == [3]


def test_only_the_first_process_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    assert monitor(tmp_path).step(vit(), 0) is None
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    assert monitor(tmp_path).step(vit(), 0) is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "every is 0; it is the number of steps between measurements, at least 1."),
        ({"budget": 0.0}, "budget is 0.0; it is a share of the time, above 0 and at most 1."),
        ({"budget": 1.5}, "budget is 1.5; it is a share"),
        ({"diagnostics": ()}, "There is nothing to watch; give at least one diagnostic"),
        ({"batch_size": 0}, "The batch size is 0; it must be at least 1."),
    ],
)
def test_settings_that_cannot_be(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        monitor(tmp_path, **settings)


# When


def test_multiples_are_due_once_reached_or_passed():
    pace = Pace(10, 1.0)
    steps = [0, 0, 1, 9, 10, 10, 11, 19, 21, 25, 45, 50, 0, 10]
    due = [step for step in steps if pace.turn(step, 0.0) is Turn.MEASURE]
    assert due == [0, 10, 21, 45, 50, 0, 10]  # 20, 30 and 40 were passed over; after 50 another training began


def test_a_measurement_waits_until_it_fits_the_budget():
    pace = Pace(10, 0.2)
    assert pace.turn(0, 100.0) is Turn.MEASURE
    pace.record_measurement(100.0, 104.0)  # 4 seconds, which are 0.2 of 16 + 4
    assert pace.turn(5, 110.0) is Turn.PASS
    assert pace.turn(10, 119.9) is Turn.POSTPONE
    assert pace.turn(19, 130.0) is Turn.PASS  # the next multiple, not the next step
    assert pace.turn(20, 120.0) is Turn.MEASURE
    pace.record_measurement(120.0, 121.0)
    assert pace.spent == 5.0
    assert pace.share(125.0) == 0.2


@given(
    st.floats(0.01, 1.0),
    st.lists(st.tuples(st.floats(0.001, 5.0), st.floats(0.001, 50.0)), min_size=2, max_size=60),
    st.integers(1, 5),
)
@settings(max_examples=200, deadline=None)
def test_all_measurements_but_the_latest_stay_within_the_budget(budget, durations, every):
    pace, now, costs, began = Pace(every, budget), 0.0, [], []
    for step, (training, cost) in enumerate(durations):
        if pace.turn(step, now) is Turn.MEASURE:
            began.append(now)
            costs.append(cost)
            pace.record_measurement(now, now + cost)
            now += cost
        now += training
    assert sum(costs[:-1]) <= budget * (began[-1] - began[0]) * (1 + 1e-9)


def test_postponing_is_said_once_and_the_cost_is_logged(tmp_path, caplog):
    clock, sink = Clock(), Kept()

    def slow(module):
        clock.now += 4.0
        return AsSubject()(module)

    watch = monitor(tmp_path, sinks=(sink,), clock=clock, subject=slow, budget=0.2, every=2)
    module, measured = vit(), []
    for step in range(20):
        if watch.step(module, step) is not None:
            measured.append(step)
        clock.now += 2.0
    assert measured == [0, 8, 16]  # 16 seconds of training after each
    assert sink.logged[8]["watch/seconds"] == Scalar("watch/seconds", 4.0, "s")
    assert sink.logged[16]["watch/share"] == Scalar("watch/share", 8.0 / 40.0, "1")
    assert list(sink.notes) == [2]
    assert caplog.messages == [
        "The last measurement took 4 s, too much for a time share of 0.2 at step 2; measurements wait for later "
        "multiples of 2 until they fit. Raise every or budget, or use fewer images or diagnostics."
    ]


# The copy


def test_a_copy_shares_nothing_and_has_no_hooks():
    module = Plain().train()
    seen = []
    for part in module.modules():
        part.register_forward_hook(lambda *_: seen.append(1))
        part.register_forward_pre_hook(lambda *_, **__: seen.append(2), with_kwargs=True)
        part.register_full_backward_hook(lambda *_: seen.append(3))
    module.stem.lock = None
    copied = snapshot(module)
    assert same(module.state_dict(), copied.state_dict())
    pointers = {value.data_ptr() for value in module.state_dict().values()}
    assert pointers.isdisjoint(value.data_ptr() for value in copied.state_dict().values())
    assert not any(part.training for part in copied.modules())
    pixels = torch.zeros(2, 1, 8, 8, requires_grad=True)
    copied(pixels).sum().backward()
    assert seen == []
    assert all(part.training for part in module.modules())
    module(pixels).sum().backward()
    assert set(seen) == {1, 2, 3}


def test_pruning_and_tied_weights_stay_and_half_precision_becomes_single():
    module = Plain().bfloat16()
    prune.random_unstructured(module.head, "weight", 0.5)
    module.twin = module.head
    module(torch.zeros(1, 1, 8, 8, dtype=torch.bfloat16))  # makes head.weight the result of an operation
    with torch.no_grad():
        module.head.weight_orig += 1.0  # as a step would: head.weight is of before it
    copied = snapshot(module)
    assert copied.head.weight.is_leaf
    copied(torch.zeros(1, 1, 8, 8))
    assert torch.equal(copied.head.weight, (module.head.weight_orig * module.head.weight_mask).float())
    assert copied.twin is copied.head
    assert {value.dtype for value in copied.parameters()} == {torch.float32}
    assert {value.dtype for value in module.parameters()} == {torch.bfloat16}


def test_wrappers_are_taken_off():
    class OptimizedModule(nn.Module):
        def __init__(self, module):
            super().__init__()
            self._orig_mod = module

    module = Plain()
    assert strip_wrappers(OptimizedModule(nn.DataParallel(module))) is module
    assert isinstance(snapshot(OptimizedModule(module)), Plain)


def test_what_cannot_be_copied_is_said():
    module = Plain()
    module.lock = (value for value in ())
    with pytest.raises(
        UserError, match=r"Plain cannot be copied \(cannot pickle 'generator' object\); watch only the sub"
    ):
        snapshot(module)
    module = Plain()
    module.blocks.forward = lambda x: x
    with pytest.raises(UserError, match="The forward of blocks was replaced by a function, which a copy would share"):
        snapshot(module)

    class FullyShardedDataParallel(Plain):
        pass

    with pytest.raises(UserError, match=r"spread over processes \(FullyShardedDataParallel\), and one process alone"):
        snapshot(nn.Sequential(FullyShardedDataParallel()))


# The scalars


def run_of(**groups):
    return Run(xr.DataTree.from_dict({"/": xr.Dataset(), **groups}))


def test_scalars_by_hand():
    depth = xr.Dataset(
        {
            "entropy": (("layer", "head"), [[1.0, 3.0], [4.0, np.nan], [np.nan, np.nan]], {"units": "nats"}),
            "entropy_error": (("layer", "head"), [[0.1, 0.3], [0.5, np.nan], [np.nan, np.nan]]),
            "entropy_count": (("layer", "head"), [[9, 9], [9, 0], [0, 0]]),
            "spectrum": (("layer", "frequency"), np.ones((3, 2))),
            "nothing": (("layer",), [np.nan] * 3),
        },
        coords={"layer": [1, 3, 5]},
    )
    plain = xr.Dataset({"top1": ((), 0.5, {"units": "1"}), "top1_error": ((), 0.25), "top1_count": ((), 4)})
    hessian = xr.Dataset(
        {
            "largest": (("part", "rank"), [[5.0, 1.0]], {"units": "loss"}),
            "largest_error": (("part", "rank"), [[0.5, 0.1]]),
            "each": (("part", "minibatch", "rank"), [[[4.0, 1.0]]]),
        },
        coords={"part": ["model"]},
    )
    blocks = xr.Dataset({"trace": ("part", [7.0, 8.0], {"units": "loss"})}, coords={"part": ["stem", "blocks.0"]})
    found = scalars(run_of(attention=depth, accuracy=plain, hessian=hessian, blocks=blocks))
    assert found == (
        Scalar("attention/entropy/mean", 3.0, "nats", 0.35),
        Scalar("attention/entropy/last", 4.0, "nats", 0.5),
        Scalar("attention/entropy/layer_01", 2.0, "nats", 0.2),
        Scalar("attention/entropy/layer_03", 4.0, "nats", 0.5),
        Scalar("accuracy/top1", 0.5, "1", 0.25),
        Scalar("hessian/largest", 5.0, "loss", 0.5),
        Scalar("blocks/trace/stem", 7.0, "loss"),
        Scalar("blocks/trace/blocks.0", 8.0, "loss"),
    )
    assert units(found[:6]) == {"attention/entropy": "nats", "accuracy/top1": "1", "hessian/largest": "loss"}
    assert plain_values((found[4], found[-1])) == {
        "accuracy/top1": 0.5, "standard-error/accuracy/top1": 0.25, "blocks/trace/blocks.0": 8.0
    }  # fmt: skip


def test_what_the_sinks_are_told_is_what_the_run_holds(tmp_path):
    sink = Kept()
    run = monitor(tmp_path, sinks=(sink,), diagnostics=(Accuracy(), TokenSimilarity())).step(vit(), 0)
    told = sink.logged[0]
    assert told["accuracy/nll"].value == float(run["accuracy/nll"])
    assert told["accuracy/nll"].error == float(run["accuracy/nll_error"])
    assert told["token-similarity/cosine/mean"].value == pytest.approx(float(run["token-similarity"].mean()))
    assert told["token-similarity/cosine/last"].value == float(run["token-similarity"][-1])
    assert told["token-similarity/cosine/layer_02"].value == float(run["token-similarity"].sel(layer=2))
    assert told["watch/seconds"].value > 0


# The store, observers, the command line


def test_steps_have_six_digits_and_any_folder(tmp_path):
    def never():
        raise AssertionError

    assert StepStore("memory://watched").place(200, never)[0].url == "memory://watched/step-000200"
    assert StepStore(str(tmp_path)).place(1234567, never)[0].url == f"{tmp_path}/step-1234567"


def test_several_observers_are_told_in_order_and_all_are_told_the_end(tmp_path):
    told = []

    class Tells(AbstractTrainingObserver):
        def __init__(self, name):
            self.name = name

        def model(self, name, module, input, classes):
            told.append((self.name, "model", name, type(module).__name__, input.channels, len(classes)))

        def begin(self, steps, done):
            told.append((self.name, "begin", steps, done))

        def step(self, step):
            told.append((self.name, "step", step.number))

        def epoch(self, number, figures):
            told.append((self.name, "epoch", number))

        def end(self):
            told.append((self.name, "end"))
            raise KeyError(self.name)

    recipe = dataclasses.replace(TINY, epochs=1, batch=24)
    with pytest.raises(KeyError):
        train(recipe, SHOWN, tmp_path, observer=Several((Tells("a"), Tells("b"))))
    events = [("model", "vit-micro", "Vit", 1, 10), ("begin", 1, 0), ("step", 1), ("epoch", 1), ("end",)]
    assert told == [(name, *event) for event in events for name in ("a", "b")]


def command(*arguments):
    return CliRunner().invoke(app, ["train", "vit-micro", *arguments], prog_name="vitscope", env={"COLUMNS": "100"})


def test_the_command_line_watches(tmp_path):
    fixed = ["--images", "digits", "--limit", "20", "--image", "8", "--channels", "1", "--depth", "1", "--epochs", "1"]
    fixed += ["--batch", "10", "--accelerator", "cpu", "--watch-every", "2", "--watch-budget", "1"]
    out = str(tmp_path / "out")
    done = command(*fixed, "--out", out, "--watch", "token-similarity,accuracy", "--watch-images", "10")
    assert done.exit_code == 0, done.stderr
    run = read_run(f"{out}/step-000002")
    assert sorted(run.measured) == ["accuracy", "token-similarity"]
    assert run.tree.attrs["images"] == 10
    assert run.spec.images["name"] == "digits/test"
    assert sorted(path.name for path in Path(out).glob("step-*")) == ["step-000000", "step-000002"]
    wrong = command(*fixed, "--out", str(tmp_path / "wrong"), "--watch", "entropy")
    assert wrong.exit_code == 2
    assert "There is no diagnostic named 'entropy'; there are: accuracy, attention-distance" in wrong.stderr
    assert not (tmp_path / "wrong").exists()


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    example = Path(__file__).parents[2] / "examples" / "watch_a_training.py"
    monkeypatch.setattr("sys.argv", [str(example), str(tmp_path)])
    monkeypatch.setattr("vitscope.training.watch.monitor.Pace", lambda every, _: Pace(every, 1.0))  # however slow it is
    runpy.run_path(str(example), run_name="__main__")
    out = capsys.readouterr().out
    assert all(f"step {step:3d}: accuracy " in out for step in (0, 30, 60, 90, 120))
    assert f"of the time went into watching; runs in {tmp_path}" in out
