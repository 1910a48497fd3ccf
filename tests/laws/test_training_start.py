"""The laws of starts: a training begins with just the weights of its start, in its input, and changes what it may."""

import copy
import dataclasses

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.optim import param_groups_layer_decay
from torch import nn

from vitscope.data.load import images
from vitscope.measurement.errors import UserError
from vitscope.models.build import build_model, head_names
from vitscope.models.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from vitscope.models.load import load
from vitscope.models.pixels import PixelInput
from vitscope.models.start import start_of
from vitscope.training.observer import Silent
from vitscope.training.parameters import evaluating, freeze, parameter_groups, set_training
from vitscope.training.recipe import Recipe
from vitscope.training.train import train

SHOWN = images("digits", split="train", limit=24, seed=0)
LIGHT = Recipe(
    epochs=1, batch=8, randaugment=0, mixup=0.0, cutmix=0.0, accelerator="cpu", learning_rate=1e-2, save_every=1
)
DIGITS = load("digits")
SMALL = {"embed_dim": 24, "depth": 3, "num_heads": 3, "patch_size": 8}


class Killed(Exception):
    pass


class First(Silent):
    """Keeps the module as it is before the first step, and may end the training in a step."""

    def __init__(self, last=0):
        self.last = last

    def model(self, name, module, input, classes):
        self.module, self.input, self.classes = copy.deepcopy(module).eval(), input, classes

    def step(self, step):
        if step.number == self.last:
            raise Killed


def grid(image=32, **fields):
    """A small timm model with class names of its own, whose norms and heads differ from their first values."""
    module = timm.create_model("vit_tiny_patch16_224", img_size=image, num_classes=5, **SMALL, **fields)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.02)
    return module


def saved(module, path, image=32):
    """The module as a subject that says how it is made."""
    arguments = {**SMALL, "img_size": image, "num_classes": 5}
    shown = PixelInput(image, 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    names = tuple("abcde")
    save_checkpoint(Checkpoint(module.state_dict(), "timm/vit_tiny_patch16_224", arguments, names, shown), path)
    return load(path)


def test_of_the_same_classes_the_whole_start_is_kept_in_its_own_input(tmp_path):
    first = First()
    trained = train(LIGHT, SHOWN, tmp_path, start=DIGITS, observer=first)
    (batch,) = SHOWN.batches(first.input, 24)
    with torch.inference_mode():
        assert torch.equal(first.module(batch.pixels), DIGITS.module(batch.pixels))
    assert first.classes == DIGITS.classes
    assert (first.input.mean, first.input.std) == (DIGITS.preprocessing.mean, DIGITS.preprocessing.std)
    assert not any("head" in note for note in trained.notes)
    again = load(trained.weights)
    assert again.preprocessing.mean == DIGITS.preprocessing.mean
    assert read_checkpoint(trained.weights).training["start"]["fingerprint"] == DIGITS.fingerprint
    assert again.fingerprint != DIGITS.fingerprint


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (tuple("abcdefg"), "head of 10 classes was replaced by a new, random one: the images have 7 classes of other"),
        (tuple(map(str, range(9, -1, -1))), "the images have the same classes in another order"),
    ],
)
def test_of_other_classes_all_but_the_head_is_kept_which_is_said(classes, said):
    start = start_of(DIGITS, classes)
    assert any(said in note for note in start.notes)
    module = start.begin(build_model(start.model, start.arguments, classes))
    own = DIGITS.module.state_dict()
    assert module.head.out_features == len(classes)
    assert set(own) - set(start.weights) == {"head.weight", "head.bias"}
    assert all(torch.equal(module.state_dict()[name], own[name]) for name in start.weights)
    again = start_of(DIGITS, classes).begin(build_model(start.model, start.arguments, classes))
    assert not torch.equal(module.head.weight, again.head.weight)  # it was made with what was drawn meanwhile


def test_a_new_head_follows_from_the_seed(tmp_path):
    shown = dataclasses.replace(SHOWN, annotation=dataclasses.replace(SHOWN.annotation, classes=tuple("abcdefghij")))
    heads = []
    for seed in (0, 0, 1):
        first = First()
        torch.rand(3)
        train(dataclasses.replace(LIGHT, seed=seed), shown, tmp_path / f"{len(heads)}", start=DIGITS, observer=first)
        heads.append(first.module.head.weight)
    assert torch.equal(heads[0], heads[1]) != torch.equal(heads[0], heads[2])


def test_positions_are_resampled_as_timm_resamples_them(tmp_path):
    own = DIGITS.module.positions.detach()
    side = DIGITS.preprocessing.shape[1]
    found = start_of(DIGITS, DIGITS.classes, (2 * side, 2 * side)).weights["positions"]
    wanted = resample_abs_pos_embed(own[None], [2 * side, 2 * side], [side, side], num_prefix_tokens=0)[0]
    torch.testing.assert_close(found, wanted)
    module = grid()
    start = start_of(saved(module, tmp_path / "m.safetensors"), tuple("abcde"), (48, 48))
    wanted = resample_abs_pos_embed(module.pos_embed.detach(), [6, 6], [4, 4], num_prefix_tokens=1)
    torch.testing.assert_close(start.weights["pos_embed"], wanted)
    assert start.input == PixelInput(48, 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert any("resampled from 32 x 32 to 48 x 48 pixels" in note for note in start.notes)
    assert not any("head" in note for note in start.notes)
    assert start.begin(build_model(start.model, start.arguments, None))(torch.zeros(1, 3, 48, 48)).shape == (1, 5)


def test_a_model_of_timm_is_trained_on_at_another_size_and_loads_again(tmp_path):
    subject = saved(grid(), tmp_path / "m.safetensors")
    recipe = dataclasses.replace(LIGHT, image=16, layer_decay=0.5, drop_path=0.1)
    trained = train(recipe, SHOWN, tmp_path / "run", start=subject)
    again = load(trained.weights)
    assert (again.preprocessing.shape, again.class_count, again.name) == ((3, 16, 16), 10, subject.name)
    assert again.preprocessing.std == (0.4, 0.5, 0.6)
    on = train(LIGHT, SHOWN, tmp_path / "on", start=again)
    assert not any("head" in note or "resampled" in note for note in on.notes)


def test_all_but_the_head_is_frozen(tmp_path):
    trained = train(dataclasses.replace(LIGHT, freeze=("all-but-head",)), SHOWN, tmp_path, start=DIGITS)
    own, found = DIGITS.module.state_dict(), read_checkpoint(trained.weights).weights
    assert {name for name in own if not torch.equal(own[name], found[name])} == {"head.weight", "head.bias"}


def test_what_fits_a_pattern_is_frozen_with_its_batch_statistics_and_the_rest_is_trained(tmp_path):
    recipe = dataclasses.replace(LIGHT, model="timm/test_resnet", image=32, freeze=("layer1.*", "conv1.*", "bn1.*"))
    first = First()
    trained = train(recipe, SHOWN, tmp_path, test=SHOWN, observer=first)
    before, after = first.module.state_dict(), read_checkpoint(trained.weights).weights
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    wanted = {name for name in before if name.startswith(("layer1.", "conv1.", "bn1."))}
    assert frozen == wanted
    assert any("running_mean" in name for name in wanted)


def test_evaluation_leaves_every_part_in_its_mode():
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()))
    module[0].requires_grad_(False)
    set_training(module)
    before = [part.training for part in module.modules()]
    assert before == [True, False, True, True, True]
    with evaluating(module):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module.modules()] == before


def test_learning_rates_fall_by_layers_as_timms_do():
    for module in (grid(), build_model("timm/test_resnet", {}, None)):
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        wanted = {
            names[id(one)]: group["lr_scale"]
            for group in param_groups_layer_decay(module, layer_decay=0.7)
            for one in group["params"]
        }
        groups = parameter_groups(module, 0.05, 0.7)
        assert {names[id(one)]: group["scale"] for group in groups for one in group["params"]} == pytest.approx(wanted)
    own = build_model("vit-micro", {"depth": 2}, None)
    names = {id(parameter): name for name, parameter in own.named_parameters()}
    found = {names[id(one)]: group["scale"] for group in parameter_groups(own, 0.05, 0.5) for one in group["params"]}
    assert {found[name] for name in ("patches.weight", "prefix", "positions")} == {0.125}
    assert {found[name] for name in ("blocks.0.attn.qkv.weight", "blocks.0.norm1.bias")} == {0.25}
    assert {found[name] for name in ("blocks.1.mlp.0.weight", "norm.weight")} == {0.5}
    assert {found[name] for name in ("head.weight", "head.bias")} == {1.0}


def test_heads_are_what_follows_from_the_number_of_classes():
    assert head_names("vit-micro", {}) == ("head.weight", "head.bias")
    assert head_names("timm/test_resnet", {"in_chans": 3}) == ("fc.weight", "fc.bias")


@pytest.mark.parametrize("step", [1, 2, 3])
def test_resumed_from_a_start_the_weights_are_those_of_no_kill(tmp_path, step):
    recipe = dataclasses.replace(LIGHT, freeze=("blocks.0.*",), layer_decay=0.8)
    whole = train(recipe, SHOWN, tmp_path / "whole", start=DIGITS)
    with pytest.raises(Killed):
        train(recipe, SHOWN, tmp_path / "run", start=DIGITS, observer=First(step))
    resumed = train(recipe, SHOWN, tmp_path / "run", start=DIGITS, resume=True)
    wanted, found = (read_checkpoint(one.weights).weights for one in (whole, resumed))
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_a_training_goes_on_only_from_the_start_it_had(tmp_path):
    train(LIGHT, SHOWN, tmp_path, start=DIGITS)
    with pytest.raises(UserError, match="was begun with other weights; resume with the same, or begin anew"):
        train(LIGHT, SHOWN, tmp_path, start=load("vit-micro", options={"image": 8, "channels": 1}), resume=True)
    with pytest.raises(UserError, match=r"was begun with another recipe"):
        train(dataclasses.replace(LIGHT, image=8, channels=1), SHOWN, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "vit-tiny"}, "model is vit-tiny, but it comes from the start, vit-micro; leave model out"),
        ({"channels": 3}, "channels is 3, but it comes from the start, vit-micro; leave channels out"),
        ({"depth": 2}, "depth is 2, but it comes from the start, vit-micro; leave depth out"),
        ({"freeze": ("block.0.*",)}, r"freeze is 'block\.0\.\*', which fits no weight of the model"),
        ({"freeze": ("*",)}, r"freeze \(\*\) leaves no weight to train"),
        ({"layer_decay": 0.0}, "layer_decay is 0.0; it must be above 0 and at most 1"),
        ({"image": 9, "freeze": ()}, "vit-micro cannot be made with|image/patch is 9/"),
    ],
)
def test_a_recipe_that_no_start_can_follow_says_why(tmp_path, changes, said):
    image = {"image": 9} if "image" in changes else {}
    start = load("vit-micro", options={"image": 8, "patch": 4, "channels": 1}) if image else DIGITS
    with pytest.raises(UserError, match=said):
        train(dataclasses.replace(LIGHT, **changes), SHOWN, tmp_path, start=start)


def test_a_model_that_no_name_makes_cannot_be_a_start(tmp_path):
    module = nn.Sequential(nn.Conv2d(1, 4, 4, 4), nn.Flatten(), nn.Linear(16, 10))
    subject = load(module, input=PixelInput(8, 1, (0.5,), (0.5,)), units=["0"])
    with pytest.raises(UserError, match="Sequential cannot be trained, because it cannot be rebuilt from a name"):
        train(LIGHT, SHOWN, tmp_path, start=subject)
    with pytest.raises(UserError, match="The layers of Sequential are not known here; leave layer_decay out"):
        parameter_groups(module, 0.05, 0.7)
    with pytest.raises(UserError, match="leaves no weight to train"):
        freeze(module, ("0.*", "2.*"), ())
