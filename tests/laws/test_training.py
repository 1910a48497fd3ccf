"""The laws of training: weights follow from recipe and images alone, whenever it was interrupted and whoever helped."""

import dataclasses
import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from vitscope.data.load import images
from vitscope.measurement.errors import UserError
from vitscope.models.build import build_model, restore_module
from vitscope.models.checkpoint import read_checkpoint
from vitscope.runs.hold import hold_folder
from vitscope.training.augmentation import step_seeded
from vitscope.training.observer import Silent
from vitscope.training.parameters import parameter_groups
from vitscope.training.recipe import Recipe
from vitscope.training.state import METRICS, STATE, WEIGHTS, kept_step
from vitscope.training.train import train

# 24 images in batches of 8: an epoch of 3 steps, a state after every second step and every epoch.
TINY = Recipe(
    model="vit-micro",
    image=8,
    channels=1,
    patch=4,
    depth=2,
    epochs=2,
    batch=8,
    drop_path=0.2,
    ema=0.9,
    save_every=2,
    accelerator="cpu",
    learning_rate=1e-2,
)
RESNET = dataclasses.replace(TINY, model="timm/test_resnet", image=32, patch=None, depth=None, drop_path=0.0)
SHOWN = images("digits", split="train", limit=24, seed=0)
TEST = images("digits", split="test", limit=20, seed=0)


class Killed(Exception):
    pass


class Kill(Silent):
    """Ends the training in one step, or at the end of an epoch."""

    def __init__(self, step, epoch=0):
        self.last, self.last_epoch, self.begun = step, epoch, []

    def begin(self, steps, done):
        self.begun.append((steps, done))

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


def elsewhere(call):
    """Call it in a thread of its own, and return what it does."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return train(TINY, SHOWN, tmp_path_factory.mktemp("straight") / "run", test=TEST)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6])
def test_resumed_after_a_kill_in_any_step_the_weights_are_those_of_no_kill(tmp_path, straight, step):
    with pytest.raises(Killed):
        train(TINY, SHOWN, tmp_path, test=TEST, observer=Kill(step))
    resumed = train(TINY, SHOWN, tmp_path, test=TEST, resume=True, observer=(watch := Kill(0)))
    assert watch.begun == [(6, {1: 0, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4}[step])]
    assert same(weights(resumed), weights(straight))
    xr.testing.assert_equal(resumed.metrics.drop_vars("seconds"), straight.metrics.drop_vars("seconds"))


def test_killed_between_epochs_twice_and_resumed_with_workers(tmp_path, straight):
    helped = dataclasses.replace(TINY, workers=1, save_every=1, cache_gib=0.0)
    with pytest.raises(Killed):
        train(TINY, SHOWN, tmp_path, test=TEST, observer=Kill(0, epoch=1))
    with pytest.raises(Killed):
        train(helped, SHOWN, tmp_path, test=TEST, resume=True, observer=Kill(5))
    assert same(weights(train(TINY, SHOWN, tmp_path, test=TEST, resume=True)), weights(straight))


def test_a_finished_training_is_not_trained_on(tmp_path, straight):
    watch = Kill(0)
    again = train(TINY, SHOWN, straight.folder, test=TEST, resume=True, observer=watch)
    assert watch.begun == [(6, 6)]
    assert same(weights(again), weights(straight))


def test_batch_statistics_are_resumed(tmp_path):
    whole = train(RESNET, SHOWN, tmp_path / "straight")
    with pytest.raises(Killed):
        train(RESNET, SHOWN, tmp_path / "killed", observer=Kill(3))
    assert same(weights(train(RESNET, SHOWN, tmp_path / "killed", resume=True)), weights(whole))


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"randaugment": 0}, {"mixup": 0.0, "cutmix": 0.0}, {"flip": False}, {"crop": "none"}, {"ema": 0.0},
     {"drop_path": 0.0}, {"label_smoothing": 0.0}, {"clip": 0.01}, {"weight_decay": 0.5}, {"crop": "resized"}],
)  # fmt: skip
def test_every_part_of_a_recipe_changes_the_weights(tmp_path, straight, changes):
    other = train(dataclasses.replace(TINY, **changes), SHOWN, tmp_path)
    assert not same(weights(other), weights(straight))


@pytest.mark.parametrize("crop", ["padded", "resized"])
def test_weights_do_not_depend_on_what_was_drawn_before_nor_change_what_is_drawn_after(tmp_path, crop):
    recipe = dataclasses.replace(TINY, crop=crop)
    first = train(recipe, SHOWN, tmp_path / "first")
    states = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    second = train(recipe, SHOWN, tmp_path / "second")
    assert same(weights(first), weights(second))
    assert states == (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002


def test_a_seeded_block_repeats_and_leaves_no_trace():
    def drawn():
        return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002

    with step_seeded(3, torch.device("cpu")):
        first = drawn()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    with step_seeded(3, torch.device("cpu")):
        second = drawn()
    assert first == second
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002


def test_an_average_that_forgets_at_once_is_the_weights(tmp_path):
    plain = train(dataclasses.replace(TINY, ema=0.0), SHOWN, tmp_path / "plain")
    average = train(dataclasses.replace(TINY, ema=1e-12), SHOWN, tmp_path / "average")
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(average)[name], value)


def test_matrices_and_kernels_decay_alone():
    module = build_model("vit-micro", {"depth": 1, "registers": 1}, None)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decaying, others = parameter_groups(module, 0.3)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    found = {names[id(parameter)] for parameter in decaying["params"]}
    kernels = {"attn.qkv", "attn.proj", "mlp.0", "mlp.2"}
    assert found == {"patches.weight", "head.weight", *(f"blocks.0.{name}.weight" for name in kernels)}
    assert len(others["params"]) + len(found) == len(names)


def test_the_checkpoint_says_how_it_came_about(straight):
    found = read_checkpoint(straight.weights)
    module = restore_module(found)
    assert found.classes == SHOWN.classes
    assert module.config.input == found.input
    assert found.input.mean[0] == pytest.approx(np.mean([np.array(SHOWN.read(i)) for i in range(24)]) / 255, abs=1e-3)
    assert found.training["recipe"] == json.loads(json.dumps(dataclasses.asdict(TINY)))
    assert found.training["last_epoch"]["train_loss"] == straight.metrics.train_loss.values[-1]


def test_metrics_are_labelled_by_epoch_and_true_of_the_saved_model(straight):
    metrics = straight.metrics
    assert metrics.epoch.values.tolist() == [1, 2]
    assert metrics.test_accuracy_count.item() == 20  # seen once, at the end
    assert metrics.train_loss_count.values.tolist() == [3, 3]
    assert metrics.learning_rate.values.tolist() == [TINY.learning_rate, TINY.final_learning_rate]
    found = read_checkpoint(straight.weights)
    (batch,) = TEST.batches(found.input, 20)
    with torch.inference_mode():
        nll = torch.nn.functional.cross_entropy(
            restore_module(found)(batch.pixels), batch.labels, reduction="none"
        ).double()
    assert metrics.test_nll.item() == pytest.approx(nll.mean().item(), rel=1e-5)
    assert metrics.test_nll_error.item() == pytest.approx(nll.std().item() / 20**0.5, rel=1e-4)


def test_it_learns_32_digits_by_heart(tmp_path):
    shown = images("digits", split="train", limit=32, seed=0)
    recipe = Recipe(
        image=8, channels=1, patch=2, depth=2, epochs=15, batch=4, learning_rate=3e-3, warmup=2.0, label_smoothing=0.0,
        crop="none", flip=False, randaugment=0, mixup=0.0, cutmix=0.0, save_every=1000, accelerator="cpu",
    )  # fmt: skip
    assert train(recipe, shown, tmp_path, test=shown).metrics.test_accuracy.item() == 1.0


def test_a_training_that_diverges_keeps_its_last_good_state(tmp_path):
    recipe = dataclasses.replace(TINY, learning_rate=1e30, warmup=1.0, clip=0.0, ema=0.0, save_every=1)
    with pytest.raises(UserError, match=r"The training diverged before step \d \(the loss is not finite\); lower"):
        train(recipe, SHOWN, tmp_path)
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert state["step"] > 0
    assert state["losses"].isfinite().all()
    assert all(weights.isfinite().all() for weights in state["model"].values())


def test_a_folder_is_not_trained_into_twice(tmp_path, straight):
    with pytest.raises(UserError, match="already holds a training; resume it, or give another folder"):
        train(TINY, SHOWN, straight.folder)
    with pytest.raises(UserError, match=r"with another recipe \(epochs 2 -> 3, seed 0 -> 1\); resume with the same"):
        train(dataclasses.replace(TINY, epochs=3, seed=1), SHOWN, straight.folder, resume=True)
    with pytest.raises(UserError, match="was begun with other images; resume with the same, or begin anew"):
        train(TINY, images("digits", split="train", limit=25, seed=0), straight.folder, resume=True)


def test_other_pixels_under_the_same_labels_are_other_images(tmp_path):
    pictures = np.arange(8 * 64, dtype=np.uint8).reshape(8, 8, 8)
    labels, recipe = np.arange(8) % 2, dataclasses.replace(TINY, epochs=1)
    train(recipe, images((pictures, labels)), tmp_path / "run")
    with pytest.raises(UserError, match="was begun with other images"):
        train(recipe, images((pictures[::-1].copy(), labels)), tmp_path / "run", resume=True)
    train(recipe, images((pictures.copy(), labels.copy())), tmp_path / "run", resume=True)


def test_a_training_that_has_saved_nothing_leaves_nothing_and_may_begin_again(tmp_path):
    with pytest.raises(Killed):
        train(TINY, SHOWN, tmp_path / "run", observer=Kill(1))
    assert not (tmp_path / "run").exists()
    with pytest.raises(Killed):
        train(TINY, SHOWN, tmp_path / "run", observer=Kill(2))
    assert kept_step(tmp_path / "run") == 2


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_one_device_is_one_training_whatever_a_batch_system_numbers(tmp_path, straight, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with pytest.raises(UserError, match="already holds a training"):
        train(TINY, SHOWN, straight.folder)
    with hold_folder(tmp_path / "run"), pytest.raises(UserError, match="in use by another vitscope"):
        elsewhere(lambda: train(TINY, SHOWN, tmp_path / "run"))


def test_weights_without_their_state_are_not_written_over(tmp_path, straight):
    lost = tmp_path / "lost"
    shutil.copytree(straight.folder, lost)
    (lost / STATE).unlink()
    before = {path.name: path.read_bytes() for path in lost.iterdir()}
    for _ in range(2):
        with pytest.raises(UserError, match=r"the weights after 2 epochs, but .*state\.pt.* is missing; restore it"):
            train(TINY, SHOWN, lost, test=TEST, resume=True)
        assert {path.name: path.read_bytes() for path in lost.iterdir()} == before


def test_weights_of_one_epoch_whose_state_was_not_saved_yet_are_made_again(tmp_path, straight):
    with pytest.raises(Killed):
        train(TINY, SHOWN, tmp_path, test=TEST, observer=Kill(0, epoch=1))
    (tmp_path / STATE).unlink()
    with pytest.raises(Killed):
        train(TINY, SHOWN, tmp_path, test=TEST, resume=True, observer=Kill(1))
    assert same(weights(train(TINY, SHOWN, tmp_path, test=TEST, resume=True)), weights(straight))


@pytest.mark.parametrize("name", [METRICS, WEIGHTS])
@pytest.mark.parametrize("content", [b"garbage", None])
def test_what_a_finished_training_has_lost_is_written_again(tmp_path, straight, name, content):
    lost = tmp_path / "lost"
    shutil.copytree(straight.folder, lost)
    (lost / name).unlink()
    if content:
        (lost / name).write_bytes(content)
    again = train(TINY, SHOWN, lost, test=TEST, resume=True)
    assert same(weights(again), weights(straight))
    xr.testing.assert_equal(again.metrics, straight.metrics)


@pytest.mark.parametrize("changes", [{}, {"crop": "resized"}])
def test_broken_images_are_put_up_with_whether_or_not_all_fit_into_memory(tmp_path, changes):
    folder = tmp_path / "images"
    for number in range(24):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(path)
    (folder / "b" / "5.png").write_bytes(b"no image")
    recipe = dataclasses.replace(TINY, epochs=1, **changes)
    shown = images(str(folder), max_broken=1)
    cached = train(recipe, shown, tmp_path / "cached")
    read = train(dataclasses.replace(recipe, cache_gib=0.0), shown, tmp_path / "read")
    assert same(weights(cached), weights(read))
    with pytest.raises(UserError, match=r"1 broken image met in .*5\.png"):
        train(dataclasses.replace(recipe, cache_gib=0.0), images(str(folder)), tmp_path / "strict")


def test_a_full_disk_and_a_place_elsewhere_are_named(tmp_path, monkeypatch):
    def full(*_, **__):
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904 - as torch's writer does

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left") as error:
        train(TINY, SHOWN, tmp_path / "run")
    assert error.value.filename == str(tmp_path / "run" / STATE)
    with pytest.raises(UserError, match="in a local folder, and memory://run is not"):
        train(TINY, SHOWN, "memory://run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be at least 1."),
        ({"batch": 7}, r"batch is 7; it must be a multiple of 2 \(1 devices, mixing in pairs\)."),
        ({"randaugment": 11}, "randaugment is 11; it must be between 0 and 10."),
        ({"ema": 1.0}, "ema is 1.0; it must be at least 0 and below 1."),
        ({"final_learning_rate": 1.0}, "final_learning_rate is 1.0; it must be from 0 to 0.01."),
        ({"model": "timm/resnet18_cifar"}, "depth can be set for the project's own ViT, not for timm/resnet18_cifar."),
        ({"model": "timm/resnet18_cifar", "depth": None}, "timm/resnet18_cifar takes no argument 'patch_size'"),
        ({"model": "timm/none", "depth": None}, "timm has no model named 'none'"),
        ({"model": "jax/vit", "depth": None}, "'jax/vit' cannot be built by name; give vit-micro"),
        ({"model": "vit-nano"}, "vitscope has no model of its own named 'vit-nano'"),
    ],
)
def test_a_recipe_that_cannot_be_followed_says_why(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        train(dataclasses.replace(TINY, **changes), SHOWN, tmp_path)


def test_images_that_cannot_be_trained_on(tmp_path):
    with pytest.raises(UserError, match="images has no labels, which training needs; give"):
        train(TINY, images(np.zeros((4, 8, 8), np.uint8)), tmp_path / "unlabelled")
    with pytest.raises(UserError, match="1 images are too few for a batch on 1 devices"):
        train(TINY, images((np.zeros((1, 8, 8), np.uint8), np.zeros(1, int))), tmp_path / "one")
