"""Watching a training in the real frameworks, and reading back what the real sinks wrote."""

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from vitscope.data.load import images
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.diagnostics.attention_entropy import AttentionEntropy
from vitscope.engine.measure import measure
from vitscope.measurement.errors import UserError
from vitscope.models.load import load
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.runs.store import find_runs, read_run
from vitscope.training.watch import MLflow, Monitor, TensorBoard, WeightsAndBiases
from vitscope.training.watch.scalar import Scalar

WATCHED = images("digits", split="test", limit=8, seed=0)
CONFIG = VitConfig(image=8, channels=1, patch=4, dim=8, depth=1, heads=2, drop_path=0.2)
TOLD = (Scalar("accuracy/top1", 0.5, "1", 0.25), Scalar("attention-entropy/entropy/layer_01", 1.5, "nats"))


def monitor(folder, **settings):
    return Monitor(WATCHED, (Accuracy(), AttentionEntropy()), str(folder), budget=1.0, **settings)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def steps(folder):
    return sorted(path.parent.name for path in folder.glob("*/run.nc"))


# Lightning


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def lightning(request):
    pytest.importorskip(request.param.split(".")[0], reason=f"{request.param} is not installed")
    return importlib.import_module(request.param)


def fit(lightning, folder, callbacks, accumulate=1, epochs=2):
    """Two epochs of four batches of digits."""

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = Vit(CONFIG)

        def training_step(self, batch, index):
            return functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-2)

    lightning.seed_everything(3, verbose=False)
    module = Module()
    data = TensorDataset(torch.randn(16, 1, 8, 8), torch.randint(10, (16,)))
    logger = importlib.import_module(f"{lightning.__name__}.loggers").CSVLogger(folder)
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=logger, callbacks=callbacks,
        accumulate_grad_batches=accumulate, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, 4, shuffle=True))
    return module, logger


def test_lightning_ends_with_the_same_weights(lightning, tmp_path):
    from vitscope.training.watch.lightning import WatchCallback

    plain, _ = fit(lightning, tmp_path / "plain", [])
    watch = WatchCallback(monitor(tmp_path / "runs", every=4))
    watched, logger = fit(lightning, tmp_path / "watched", [watch])
    assert same(plain.state_dict(), watched.state_dict())
    assert steps(tmp_path / "runs") == ["step-000000", "step-000004", "step-000008"]
    last = read_run(str(tmp_path / "runs" / "step-000008"))
    assert last.spec.model["fingerprint"] == load(watched.model).fingerprint
    logger.save()
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        logged = {row["step"]: row for row in csv.DictReader(file) if row["accuracy/nll"]}
    assert sorted(logged) == ["0", "4", "8"]
    assert float(logged["8"]["accuracy/nll"]) == pytest.approx(float(last["accuracy/nll"]))
    assert float(logged["8"]["standard-error/accuracy/nll"]) == pytest.approx(float(last["accuracy/nll_error"]))


def test_lightning_counts_steps_of_the_optimiser(lightning, tmp_path):
    from vitscope.training.watch.lightning import WatchCallback

    fit(lightning, tmp_path / "log", [WatchCallback(monitor(tmp_path / "runs", every=1))], accumulate=2, epochs=1)
    assert steps(tmp_path / "runs") == ["step-000000", "step-000001", "step-000002"]


def test_lightning_is_told_before_the_training_that_there_is_no_such_submodule(lightning, tmp_path):
    from vitscope.training.watch.lightning import WatchCallback

    with pytest.raises(UserError, match=r"Module has no submodule 'net' to watch; it has: model\. Give WatchCallback"):
        fit(lightning, tmp_path, [WatchCallback(monitor(tmp_path), submodule="net")])


def test_the_lightning_module_itself_can_be_watched(lightning, tmp_path):
    from vitscope.models.pixels import PixelInput
    from vitscope.training.watch import AsSubject
    from vitscope.training.watch.lightning import WatchCallback

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def forward(self, pixels):
            return self.layers(pixels)

        def training_step(self, batch, index):
            return functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    subject = AsSubject(input=PixelInput(8, 1, (0.5,), (0.5,)))
    watch = WatchCallback(Monitor(WATCHED, (Accuracy(),), str(tmp_path), 1, 1.0, subject=subject), "")
    trainer = lightning.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path,
        callbacks=[watch],
    )  # fmt: skip
    trainer.fit(Classifier(), DataLoader(TensorDataset(torch.randn(4, 1, 8, 8), torch.randint(10, (4,))), 4))
    assert steps(tmp_path) == ["step-000000", "step-000001"]


# transformers


def small_vit():
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4,
        num_labels=10, hidden_dropout_prob=0.1,
    )  # fmt: skip
    return ViTForImageClassification(config)


def test_transformers_trainer_ends_with_the_same_weights(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="accelerate, which transformers' Trainer needs, is not installed")
    from transformers import Trainer, TrainingArguments

    from vitscope.training.watch.transformers import WatchCallback

    rows = [{"pixel_values": torch.randn(3, 8, 8), "labels": n % 10} for n in range(16)]
    arguments = TrainingArguments(
        str(tmp_path / "out"), per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=2,
        report_to=[], save_strategy="no", use_cpu=True, seed=1, disable_tqdm=True,
    )  # fmt: skip
    plain, watched = small_vit(), small_vit()
    Trainer(plain, arguments, train_dataset=rows).train()
    watch = WatchCallback(monitor(tmp_path / "runs", every=4))
    Trainer(watched, arguments, train_dataset=rows, callbacks=[watch]).train()
    assert same(plain.state_dict(), watched.state_dict())
    assert steps(tmp_path / "runs") == ["step-000000", "step-000004", "step-000008"]
    last = read_run(str(tmp_path / "runs" / "step-000008"))
    assert last.spec.model["fingerprint"] == load(watched).fingerprint
    assert last.spec.model["family"] == "transformers/vit"


def test_transformers_own_handler_of_callbacks_reaches_the_monitor(tmp_path):
    pytest.importorskip("transformers")
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import CallbackHandler

    from vitscope.training.watch.transformers import WatchCallback

    arguments = object.__new__(TrainingArguments)  # whose __init__ needs accelerate
    handler = CallbackHandler([WatchCallback(monitor(tmp_path, every=2))], small_vit(), None, None, None)
    for step in range(4):
        state = TrainerState(global_step=step, is_world_process_zero=step < 2)
        event = handler.on_step_end if step else handler.on_train_begin
        event(arguments, state, TrainerControl())
    state = TrainerState(global_step=4, is_world_process_zero=True)
    handler.on_step_end(arguments, state, TrainerControl())
    handler.on_train_end(arguments, state, TrainerControl())
    assert steps(tmp_path) == ["step-000000", "step-000004"]


# A timm loop


def test_a_timm_loop_measures_what_a_checkpoint_of_that_step_gives(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, num_classes=10, patch_size=16)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch, saved = monitor(tmp_path, every=2), {}
    for step in range(5):
        watch.step(model, step)
        saved[step] = {name: value.clone() for name, value in model.state_dict().items()}
        functional.cross_entropy(model.train()(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
        optimizer.step(), optimizer.zero_grad()
    found = {run.tree.attrs["step"]: run for _, run in find_runs(str(tmp_path))}
    assert sorted(found) == [0, 2, 4]
    for step, run in found.items():
        other = timm.create_model("test_vit", img_size=32, num_classes=10, patch_size=16)
        other.load_state_dict(saved[int(step)])
        by_hand = measure(load(other), WATCHED, (Accuracy(), AttentionEntropy()))
        assert run.spec.model["fingerprint"] == by_hand.spec.model["fingerprint"]
        np.testing.assert_array_equal(run["attention-entropy"].values, by_hand["attention-entropy"].values)


# Sinks


def test_tensorboard_reads_back_what_was_logged(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoard(tmp_path)
    sink.log(200, TOLD)
    sink.log(400, TOLD)
    sink.note(400, "postponed")
    sink.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("accuracy/top1")] == [(200, 0.5), (400, 0.5)]
    assert events.Scalars("standard-error/accuracy/top1")[0].value == 0.25
    assert events.Scalars("attention-entropy/entropy/layer_01")[0].value == 1.5
    (table,) = events.Tensors("watch/units/text_summary")
    assert b"| attention-entropy/entropy | nats |" in table.tensor_proto.string_val[0]
    assert events.Tensors("watch/notes/text_summary")[0].tensor_proto.string_val[0] == b"postponed"


def test_mlflow_reads_back_what_was_logged(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file:{tmp_path}/runs")
    try:
        with mlflow.start_run() as run:
            for sink in (MLflow(), MLflow(run.info.run_id)):
                sink.log(200, TOLD)
                sink.note(200, "postponed " * 1000)
                sink.close()
        client = mlflow.tracking.MlflowClient()
        found = client.get_run(run.info.run_id).data
        history = client.get_metric_history(run.info.run_id, "attention-entropy/entropy/layer_01")
    finally:
        mlflow.set_tracking_uri(before)
    assert found.metrics["accuracy/top1"] == 0.5
    assert found.metrics["standard-error/accuracy/top1"] == 0.25
    assert {(point.step, point.value) for point in history} == {(200, 1.5)}
    assert found.tags["vitscope.unit.attention-entropy.entropy"] == "nats"
    assert len(found.tags["vitscope.note.step-000200"]) == 5000


def test_weights_and_biases_keeps_what_was_logged(tmp_path):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    sink = WeightsAndBiases()
    with pytest.raises(UserError, match=r"No Weights & Biases run is active; call wandb\.init"):
        sink.log(0, TOLD)
    run = wandb.init(mode="offline", dir=str(tmp_path), settings=wandb.Settings(silent=True, console="off"))
    try:
        run.log({"loss": 1.0}, step=250)  # the training logs by its own step, and is ahead
        sink.log(200, TOLD)
        sink.note(200, "postponed")
        assert run.summary["watch/step"] == 200
        assert run.summary["accuracy/top1"] == 0.5
        assert run.summary["standard-error/accuracy/top1"] == 0.25
        assert run.summary["watch/note/step-000200"] == "postponed"
        assert dict(run.config["vitscope_units"]) == {"accuracy/top1": "1", "attention-entropy/entropy": "nats"}
    finally:
        run.finish()


@pytest.mark.parametrize(
    ("make", "name"), [(lambda: TensorBoard("logs"), "tensorboard"), (MLflow, "mlflow"), (WeightsAndBiases, "wandb")]
)
def test_a_missing_library_is_named_with_its_remedy(monkeypatch, make, name):
    monkeypatch.setattr("importlib.util.find_spec", lambda library: None)
    with pytest.raises(UserError, match=rf"{name} is not installed; install it with: pip install 'vitscope\[{name}\]'"):
        make()


def test_a_missing_lightning_is_named_with_its_remedy(monkeypatch):
    monkeypatch.delitem(sys.modules, "vitscope.training.watch.lightning", raising=False)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if "lightning" in name and "." not in name else found(name)
    )
    with pytest.raises(UserError, match=r"lightning is not installed; install it with: pip install 'vitscope\[light"):
        importlib.import_module("vitscope.training.watch.lightning")
