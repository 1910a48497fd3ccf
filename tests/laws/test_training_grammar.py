"""The laws of what a training is made of: objectives, labels, optimisers, hooks, validation; each survives a kill."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional

from vitscope.data.load import images
from vitscope.engine.measure import measure
from vitscope.interventions.weight_prune import WeightPrune
from vitscope.measurement.errors import UserError
from vitscope.models.build import build_model, restore_module
from vitscope.models.checkpoint import read_checkpoint
from vitscope.models.load import load
from vitscope.models.pixels import PixelInput
from vitscope.runs.store import read_run
from vitscope.training.hooks.early_stop import EarlyStop
from vitscope.training.hooks.keep_zeros import KeepZeros
from vitscope.training.hooks.measure_epochs import MeasureEpochs
from vitscope.training.noise import labels_from, noisy_labels
from vitscope.training.objective import TrainingBatch
from vitscope.training.objectives.distillation import Distillation
from vitscope.training.observer import Silent
from vitscope.training.optimizers import make_optimizer, rates
from vitscope.training.recipe import Recipe
from vitscope.training.train import train

SHOWN = images("digits", split="train", limit=40, seed=0)
TEST = images("digits", split="test", limit=20, seed=0)
UNLABELLED = images(np.stack([np.asarray(SHOWN.read(row)) for row in range(24)]))
DIGITS = load("digits")
LIGHT = Recipe(
    image=8,
    channels=1,
    patch=4,
    depth=1,
    epochs=3,
    batch=8,
    randaugment=0,
    accelerator="cpu",
    learning_rate=1e-2,
    save_every=1,
)
ON = Recipe(epochs=3, batch=8, randaugment=0, accelerator="cpu", learning_rate=1e-2, save_every=2)


class Killed(Exception):
    pass


class Kill(Silent):
    def __init__(self, step=0, epoch=0):
        self.last, self.last_epoch = step, epoch

    def step(self, step):
        if step.number == self.last:
            raise Killed

    def epoch(self, number, figures):
        if number == self.last_epoch:
            raise Killed


def weights(training):
    return read_checkpoint(training.weights).weights


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def batch(count=6, classes=10):
    generator = torch.Generator().manual_seed(0)
    shown = torch.randn(count, 1, 8, 8, generator=generator)
    labels = torch.arange(count) % classes
    targets = functional.one_hot(labels, classes).float()
    return TrainingBatch(shown, labels, targets, PixelInput(8, 1, (0.3,), (0.2,)), DIGITS.classes)


def test_a_distillation_is_the_formula():
    taken = batch()
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(1))
    own = DIGITS.preprocessing
    with torch.no_grad():
        taught = DIGITS.module((taken.images * 0.2 + 0.3 - own.mean[0]) / own.std[0])
    p, q = (taught / 3).softmax(1), (logits / 3).softmax(1)
    kl = (p * (p.log() - q.log())).sum(1).mean()
    wanted = 0.7 * 9 * kl + 0.3 * functional.cross_entropy(logits, taken.targets)
    objective = Distillation(DIGITS, temperature=3.0, weight=0.7)
    torch.testing.assert_close(objective.loss(lambda _: logits, taken), wanted)
    plain = dataclasses.replace(taken, labels=None, targets=None)
    torch.testing.assert_close(objective.loss(lambda _: logits, plain), 9 * kl)
    found = objective.evaluate(lambda _: taught, taken)
    assert found["agreement"].mean() == 1
    torch.testing.assert_close(found["divergence"], torch.zeros(6), atol=1e-6, rtol=0)


def test_a_teacher_whose_classes_are_in_another_order_is_read_by_name():
    taken = batch()
    turned = dataclasses.replace(taken, classes=DIGITS.classes[::-1])
    objective = Distillation(DIGITS)
    one, other = (objective.evaluate(lambda x: torch.zeros(6, 10), each) for each in (taken, turned))
    torch.testing.assert_close(one["divergence"], other["divergence"])
    taught = objective._logits(taken)
    torch.testing.assert_close(objective._logits(turned), taught.flip(1))


def test_a_teacher_travels_to_another_process():
    objective = Distillation(WeightPrune(0.5)(DIGITS), weight=0.25)
    again = pickle.loads(pickle.dumps(objective))
    assert again.facts() == objective.facts()
    zeros = torch.zeros(6, 10)
    assert torch.equal(again.loss(lambda _: zeros, batch()), objective.loss(lambda _: zeros, batch()))


def test_a_distillation_needs_no_labels_and_resumes(tmp_path):
    objective = Distillation(DIGITS, temperature=1.0)
    whole = train(LIGHT, UNLABELLED, tmp_path / "whole", objective=objective)
    assert whole.subject.classes == DIGITS.classes
    with pytest.raises(Killed):
        train(LIGHT, UNLABELLED, tmp_path / "run", objective=objective, observer=Kill(4))
    again = train(LIGHT, UNLABELLED, tmp_path / "run", objective=objective, resume=True)
    assert same(weights(again), weights(whole))
    assert whole.run.spec.settings["objective"]["teacher"]["fingerprint"] == DIGITS.fingerprint
    with pytest.raises(UserError, match="was begun with another objective; resume with the same"):
        train(LIGHT, UNLABELLED, tmp_path / "run", objective=Distillation(DIGITS, temperature=4.0), resume=True)


def test_a_student_comes_near_its_teacher(tmp_path):
    recipe = dataclasses.replace(LIGHT, epochs=25, crop="none", flip=False, mixup=0.0, cutmix=0.0, validation=0.2)
    trained = train(recipe, SHOWN, tmp_path, objective=Distillation(DIGITS, weight=1.0))
    found = trained.metrics.validation_divergence.values
    assert found[-1] < 0.5 * found[0]


def test_who_cannot_teach(tmp_path):
    with pytest.raises(UserError, match="distinguishes 10 classes"):
        train(
            LIGHT, images((np.zeros((9, 8, 8), np.uint8), np.arange(9) % 3)), tmp_path, objective=Distillation(DIGITS)
        )
    with pytest.raises(UserError, match=r"temperature is 0\.0; it must be above 0"):
        Distillation(DIGITS, temperature=0.0)
    with pytest.raises(UserError, match="Distillation has no default settings; give a value"):
        train(dataclasses.replace(LIGHT, objective="distillation"), SHOWN, tmp_path)
    with pytest.raises(UserError, match=r"There is no objective named 'clasification' .*is it classification"):
        train(dataclasses.replace(LIGHT, objective="clasification"), SHOWN, tmp_path)


def test_label_noise_flips_what_it_says(tmp_path):
    own = np.repeat(np.arange(10), 2000)
    symmetric = noisy_labels(own, DIGITS.classes, 0.3, "symmetric", 0)
    flipped = symmetric != own
    assert abs(flipped.mean() - 0.3) < 4 * (0.3 * 0.7 / len(own)) ** 0.5
    steps = np.bincount((symmetric - own)[flipped] % 10, minlength=10)
    assert steps[0] == 0
    assert np.abs(steps[1:] / flipped.sum() - 1 / 9).max() < 0.02
    asymmetric = noisy_labels(own, DIGITS.classes, 0.3, "asymmetric", 0)
    assert set((asymmetric - own) % 10) == {0, 1}
    assert not np.array_equal(symmetric, noisy_labels(own, DIGITS.classes, 0.3, "symmetric", 1))
    assert np.array_equal(own, noisy_labels(own, DIGITS.classes, 0.0, "symmetric", 0))
    noisy = train(dataclasses.replace(LIGHT, label_noise=0.5, validation=0.2), SHOWN, tmp_path / "noisy", test=TEST)
    group = noisy.run.tree["label-noise"].to_dataset()
    assert group.attrs["images"] == 32
    assert (group.label != group.given).all()
    assert 5 < group.sizes["image"] < 27
    assert any("training images were given another class on purpose" in note for note in noisy.notes)
    clean = train(dataclasses.replace(LIGHT, validation=0.2), SHOWN, tmp_path / "clean", test=TEST)
    assert not same(weights(noisy), weights(clean))


def test_labels_from_a_file_are_those_that_are_trained_on(tmp_path):
    own = np.asarray(SHOWN.labels)
    (tmp_path / "own.json").write_text(json.dumps([DIGITS.classes[label] for label in own]))
    np.save(tmp_path / "turned.npy", (own + 1) % 10)
    (tmp_path / "turned.txt").write_text("\n".join(str((label + 1) % 10) for label in own))
    runs = {name: train(dataclasses.replace(LIGHT, labels_from=str(tmp_path / name)), SHOWN, tmp_path / f"{name}-run")
            for name in ("own.json", "turned.npy", "turned.txt")}  # fmt: skip
    plain = train(LIGHT, SHOWN, tmp_path / "plain")
    assert same(weights(runs["own.json"]), weights(plain))
    assert same(weights(runs["turned.npy"]), weights(runs["turned.txt"]))
    assert not same(weights(runs["turned.npy"]), weights(plain))
    assert runs["turned.npy"].run.tree["label-noise"].sizes["image"] == 40
    np.save(tmp_path / "turned.npy", (own + 2) % 10)
    with pytest.raises(UserError, match="was begun with other labels"):
        train(dataclasses.replace(LIGHT, labels_from=str(tmp_path / "turned.npy")), SHOWN,
              tmp_path / "turned.npy-run", resume=True)  # fmt: skip
    for content, said in (
        ("0\n1", "holds 2 labels for 40 images"),
        ("x\n" * 40, "Label 0 of .* is 'x', which is none"),
    ):
        (tmp_path / "bad.txt").write_text(content)
        with pytest.raises(UserError, match=said):
            labels_from(str(tmp_path / "bad.txt"), SHOWN, DIGITS.classes)


def test_schedules_are_torchs_and_the_warm_up_comes_before_each():
    steps = rates(dataclasses.replace(LIGHT, schedule="steps", milestones=(1.0, 2.0), epochs=3, warmup=0.0), 5)
    module = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-2)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 10], 0.1)
    for step in range(15):
        assert steps(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()
    constant = rates(dataclasses.replace(LIGHT, schedule="constant", warmup=1.0), 4)
    assert [constant(step) for step in range(6)] == [0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01]
    for changes, said in (({"milestones": (4.0,)}, "milestones is 4; it must be between 0 and 3 epochs"),
                          ({"label_noise": 0.1, "labels_from": "x"}, "both replace the labels")):  # fmt: skip
        with pytest.raises(UserError, match=said):
            dataclasses.replace(LIGHT, **changes)


def test_stochastic_gradient_descent_is_torchs_and_resumes(tmp_path):
    recipe = dataclasses.replace(LIGHT, optimizer="sgd", schedule="steps", milestones=(1.0,), momentum=0.8)
    optimizer = make_optimizer(recipe, build_model("vit-micro", {"depth": 1}, None))
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (0.8, True)
    whole = train(recipe, SHOWN, tmp_path / "whole")
    with pytest.raises(Killed):
        train(recipe, SHOWN, tmp_path / "run", observer=Kill(7))
    assert same(weights(train(recipe, SHOWN, tmp_path / "run", resume=True)), weights(whole))
    for changes in ({"momentum": 0.0}, {"nesterov": False}, {"schedule": "constant"}, {"step_factor": 0.5}):
        other = train(dataclasses.replace(recipe, **changes), SHOWN, tmp_path / f"{changes}")
        assert not same(weights(other), weights(whole))


@pytest.mark.parametrize("step", [0, 3, 8])
def test_zeros_of_a_pruned_start_are_kept_through_a_kill(tmp_path, step):
    pruned = WeightPrune(0.6)(DIGITS)
    zeros = {name: one == 0 for name, one in pruned.module.named_parameters() if one.ndim >= 2}
    if step:
        with pytest.raises(Killed):
            train(ON, SHOWN, tmp_path, start=pruned, hooks="keep-zeros", observer=Kill(step))
    trained = train(ON, SHOWN, tmp_path, start=pruned, hooks="keep-zeros", resume=bool(step))
    found = weights(trained)
    for name, own in pruned.module.named_parameters():
        if own.ndim >= 2 and name.endswith("weight"):
            assert torch.equal(found[name] == 0, zeros[name]), name
            assert not torch.equal(found[name], own)
    with pytest.raises(UserError, match="was begun with other hooks"):
        train(ON, SHOWN, tmp_path, start=pruned, resume=True)
    with pytest.raises(UserError, match="keep-zeros has nothing to keep"):
        train(ON, SHOWN, tmp_path / "none", start=DIGITS, hooks=[KeepZeros()])


def test_an_early_stop_ends_when_nothing_gets_better_and_stays_ended():
    rows = [{"validation_accuracy": value} for value in (0.1, 0.5, 0.4, 0.5, 0.3)]
    hook = EarlyStop(patience=3)
    assert [hook.ends(rows[:end], "validation_accuracy", True) for end in range(1, 6)] == [False] * 4 + [True]
    assert EarlyStop(1).ends(rows[:3], "validation_accuracy", True)
    assert not EarlyStop(1).ends(rows[1:3], "validation_accuracy", False)
    assert EarlyStop(1).ends(rows[:2], "validation_accuracy", False)


def test_a_training_that_was_ended_early_is_finished(tmp_path):
    recipe = dataclasses.replace(LIGHT, epochs=30, validation=0.2, learning_rate=1e-5, final_learning_rate=1e-6)
    hooks = [EarlyStop(2)]
    whole = train(recipe, SHOWN, tmp_path / "whole", hooks=hooks)
    ended = whole.metrics.sizes["epoch"]
    assert ended < 30
    assert any(f"ended after {ended} of 30 epochs" in note for note in whole.notes)
    with pytest.raises(Killed):
        train(recipe, SHOWN, tmp_path / "run", hooks=hooks, observer=Kill(epoch=ended))
    again = train(recipe, SHOWN, tmp_path / "run", hooks=hooks, resume=True)
    assert again.metrics.sizes["epoch"] == ended
    assert same(weights(again), weights(whole))
    with pytest.raises(UserError, match="early-stop needs validation images; set validation"):
        train(LIGHT, SHOWN, tmp_path / "none", hooks=hooks)


def test_validation_images_are_of_each_class_and_are_not_trained_on(tmp_path):
    seen = []

    class Shown(Silent):
        def begin(self, steps, done):
            seen.append(steps)

    recipe = dataclasses.replace(LIGHT, validation=0.25, epochs=4)
    trained = train(recipe, SHOWN, tmp_path / "run", test=TEST, observer=Shown())
    assert seen == [30 // 8 * 4]
    assert trained.metrics.validation_accuracy_count.values.tolist() == [10] * 4
    best = int(trained.metrics.validation_accuracy.values.argmax())
    found = read_checkpoint(trained.weights)
    assert found.training["best_epoch"] == best + 1
    again = train(dataclasses.replace(recipe, seed=1), SHOWN, tmp_path / "other")
    assert not same(weights(again), weights(trained))
    for share in (0.001, 0.999):
        with pytest.raises(UserError, match=r"validation is 0\.\d+ of 40 images, which is"):
            train(dataclasses.replace(recipe, validation=share), SHOWN, tmp_path / f"{share}")


def test_the_kept_weights_are_those_of_the_best_epoch_whenever_it_was_killed(tmp_path):
    recipe = dataclasses.replace(LIGHT, validation=0.25, epochs=6, learning_rate=0.2, warmup=0.0)
    whole = train(recipe, SHOWN, tmp_path / "whole")
    accuracy = whole.metrics.validation_accuracy.values
    best = int(accuracy.argmax()) + 1
    assert best < 6, "this recipe was chosen so that the last epoch is not the best"
    with pytest.raises(Killed):
        train(recipe, SHOWN, tmp_path / "best", observer=Kill(epoch=best))
    assert same(read_checkpoint(tmp_path / "best" / "model.safetensors").weights, weights(whole))
    for step in (best * 3 + 1, 17):
        with pytest.raises(Killed):
            train(recipe, SHOWN, tmp_path / f"{step}", observer=Kill(step))
        again = train(recipe, SHOWN, tmp_path / f"{step}", resume=True)
        assert same(weights(again), weights(whole))
        xr.testing.assert_equal(again.metrics.drop_vars("seconds"), whole.metrics.drop_vars("seconds"))
    (whole.folder / "model.safetensors").unlink()
    kept = weights(train(recipe, SHOWN, tmp_path / "17", resume=True))
    assert same(weights(train(recipe, SHOWN, whole.folder, resume=True)), kept)


def test_diagnostics_are_measured_after_every_second_epoch_and_change_nothing(tmp_path):
    hook = MeasureEpochs(TEST, ("accuracy",), every=2)
    recipe = dataclasses.replace(LIGHT, epochs=4)
    with pytest.raises(Killed):
        train(recipe, SHOWN, tmp_path / "run", hooks=[hook], observer=Kill(epoch=2))
    trained = train(recipe, SHOWN, tmp_path / "run", hooks=[hook], resume=True)
    assert sorted(path.name for path in trained.folder.glob("epoch-*")) == ["epoch-002", "epoch-004"]
    last = read_run(trained.folder / "epoch-004")
    alone = measure(trained.subject, TEST, ["accuracy"])
    assert float(last["accuracy"]) == float(alone["accuracy"])
    assert same(weights(train(recipe, SHOWN, tmp_path / "plain")), weights(trained))


def test_the_run_of_a_training_holds_how_it_went_and_what_the_model_says_of_each_test_image(tmp_path):
    trained = train(LIGHT, SHOWN, tmp_path, test=TEST)
    run = read_run(tmp_path)
    assert run.spec.verb == "train"
    assert run.spec.images["fingerprint"] == TEST.fingerprint
    assert run.spec.settings["images"]["training"] == SHOWN.fingerprint
    assert run.tree["training"].to_dataset().sizes["epoch"] == 3
    (taken,) = TEST.batches(read_checkpoint(trained.weights).input, 20)
    with torch.inference_mode():
        logits = restore_module(read_checkpoint(trained.weights))(taken.pixels)
    predictions = run.tree["predictions"].to_dataset()
    assert predictions.predicted.values.tolist() == logits.argmax(1).tolist()
    assert float(run["accuracy"]) == pytest.approx((logits.argmax(1) == taken.labels).double().mean().item())
    assert trained.metrics.test_accuracy.item() == float(run["accuracy"])
    untested = train(LIGHT, SHOWN, tmp_path / "untested")
    assert list(untested.run) == ["training"]
    assert "test_accuracy" not in untested.metrics
