"""Weights of people's own: found behind wrappers and averages, in the size they are of, or refused in a sentence."""

import argparse
import collections
import datetime
import decimal
import functools
import pathlib
import re
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from checkpoint_files import NAME, SMALL, behind, holds, small, weights
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision import models

from vitscope import PixelInput, load
from vitscope.measurement.errors import UserError
from vitscope.models.adapter import Size
from vitscope.models.architectures import nearest_architectures
from vitscope.models.classes import label_outputs
from vitscope.models.made import LoadOptions, _head_note, make_from_module
from vitscope.models.recorded import class_names, note_ignored_input, read_record
from vitscope.models.sized import _SIDES, NamedModel, _side, size_of
from vitscope.models.timm.construction import show_as
from vitscope.models.timm.library import Timm
from vitscope.models.torchvision.library import Torchvision
from vitscope.models.weight_file import read_contents

RAW, MEAN = weights(0), weights(1)


@pytest.fixture
def loaded(tmp_path):
    """Save it, and load the small model with it."""

    def run(content, model=NAME, file="last.pth", **asked):
        torch.save(content, tmp_path / file)
        return load(model, weights=tmp_path / file, options=SMALL, **asked)

    return run


@pytest.fixture
def refused(loaded):
    """Save it, and what is said of it when it is loaded."""

    def run(*given, **asked):
        with pytest.raises(UserError) as said:
            loaded(*given, **asked)
        assert "\x1b" not in str(said.value)
        assert "weights_only" not in str(said.value)
        return str(said.value)

    return run


def compiled_within(state):
    return {name.replace("blocks.0.", "blocks.0._orig_mod."): value for name, value in state.items()}


def wrapped_within(state):
    return {name.replace("blocks.", "blocks.module."): value for name, value in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        RAW,
        behind("module.", RAW),
        behind("_orig_mod.", RAW),
        behind("module._orig_mod.", RAW),
        behind("_orig_mod.module.", RAW),
        behind("net.backbone.", RAW),
        behind("_fsdp_wrapped_module.", RAW),
        compiled_within(RAW),
        wrapped_within(RAW),
        {"state_dict": behind("model.", compiled_within(RAW))},
        {"model": RAW, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}},
        {"optimizer": {"exp_avg": MEAN}, "net": RAW},
        {"checkpoint": {"weights": {"model_state_dict": RAW}}},
        {"state_dict": {**behind("model.", RAW), **behind("net.", RAW)}},
        {"model": {name: nn.Parameter(value) for name, value in RAW.items()}},
    ],
)
def test_weights_behind_one_prefix_or_nesting_are_the_models(loaded, content):
    assert holds(loaded(content), RAW)


def test_what_was_left_out_is_said_in_one_line(loaded):
    state = {**behind("model._orig_mod.", RAW), "criterion.weight": torch.ones(4), "accuracy.hits": torch.ones(1)}
    subject = loaded({"state_dict": state, "pytorch-lightning_version": "2.4", "hyper_parameters": {"lr": 1e-3}})
    assert holds(subject, RAW)
    assert subject.notes[-1] == (
        "Weights of last.pth: those under state_dict.model; their names without _orig_mod; "
        "left out: criterion.weight, accuracy.hits."
    )


def test_known_wrappers_save_what_can_be_read(loaded):
    model = small()
    average = AveragedModel(model)
    average.n_averaged += 3
    subject = loaded(average.state_dict())
    assert holds(subject, model.state_dict())
    assert subject.weights.endswith("last.pth (averaged: module)")
    assert holds(loaded(torch.compile(model, backend="eager").state_dict()), model.state_dict())
    assert holds(loaded(nn.DataParallel(model).state_dict()), model.state_dict())


BOTH = [
    {"state_dict": RAW, "state_dict_ema": MEAN},
    {"model": RAW, "model_ema": behind("module.", MEAN)},
    {"model": RAW, "ema": {"module": MEAN}},
    {"model": RAW, "modelEMA": MEAN},
    {"net": RAW, "swa_state_dict": {**behind("module.", MEAN), "n_averaged": torch.tensor(2)}},
    {"state_dict": {**behind("model.", RAW), **behind("ema_model.module.", MEAN)}},
    {"state_dict": {**behind("model.", RAW), **behind("swa.module.", MEAN), "swa.n_averaged": torch.tensor(2)}},
    {**RAW, **behind("ema.", MEAN)},
    {**RAW, **behind("module.", MEAN), "n_averaged": torch.tensor(2)},
    {"state_dict": MEAN, "current_model_state": RAW, "averaging_state": {"n_averaged": torch.tensor(2)}},
]


@pytest.mark.parametrize("content", BOTH)
def test_of_raw_and_averaged_weights_it_is_said_which_are_taken(loaded, content):
    taken = {average: loaded(content, average=average) for average in (None, True, False)}
    assert holds(taken[None], MEAN)
    assert holds(taken[True], MEAN)
    assert holds(taken[False], RAW)
    assert "(averaged: " in taken[None].weights
    assert "(raw: " in taken[False].weights
    assert any("which --raw takes" in note for note in taken[None].notes)
    assert any("which --ema takes" in note for note in taken[False].notes)


def test_averages_that_are_not_there_are_not_taken_silently(refused):
    assert "holds no averaged weights that fit (what fits: state_dict); leave out --ema" in refused(
        {"state_dict": RAW}, average=True
    )
    assert "holds only averaged weights (ema)" in refused({"ema": MEAN}, average=False)


def test_several_sets_are_asked_about(loaded, refused):
    content = {"student": behind("module.backbone.", RAW), "teacher": behind("backbone.", MEAN)}
    assert "choose one: --part student or --part teacher" in refused(content)
    assert holds(loaded(content, part="student"), RAW)
    assert holds(loaded(content, part="teacher"), MEAN)
    assert "has no weights under 'nobody' that fit" in refused(content, part="nobody")


def test_a_classifier_that_the_name_has_not_is_the_files(tmp_path):
    options = {"depth": 1, "embed_dim": 24, "num_heads": 3}
    bare = timm.create_model("vit_small_patch14_dinov2", num_classes=3, img_size=28, **options)
    torch.save(bare.state_dict(), tmp_path / "w.pt")
    subject = load("timm/vit_small_patch14_dinov2", weights=tmp_path / "w.pt", image_size=28, options=options)
    assert subject.class_count == 3
    assert holds(subject, bare.state_dict())


@pytest.mark.parametrize("classes", [0, 1, 10, 1000])
def test_the_number_of_classes_is_the_files(loaded, classes):
    state = weights(0, num_classes=classes)
    subject = loaded(state)
    assert holds(subject, state)
    assert subject.class_count == classes
    if classes != 1000:
        assert subject.classes is None
        assert any("last.pth" in note for note in subject.notes)


def test_two_classifiers_have_one_number_of_classes(tmp_path):
    module = timm.create_model("deit_tiny_distilled_patch16_224", **SMALL, num_classes=7)
    torch.save(module.state_dict(), tmp_path / "w.pt")
    assert load("timm/deit_tiny_distilled_patch16_224", weights=tmp_path / "w.pt", options=SMALL).class_count == 7


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "swin_t"])
def test_torchvisions_models_take_their_classes_from_the_file_too(tmp_path, name):
    module = models.get_model(name, weights=None, num_classes=6).eval()
    torch.save({"model": behind("module.", module.state_dict())}, tmp_path / "w.pt")
    subject = load(f"torchvision/{name}", weights=tmp_path / "w.pt")
    assert subject.class_count == 6
    assert holds(subject, module.state_dict())


def test_torchvisions_pictures_have_the_size_that_was_asked_or_said(tmp_path):
    module = models.get_model("resnet18", weights=None, num_classes=3)
    told = {"arch": "resnet18", "image_size": 64, "mean": np.array([0.1, 0.2, 0.3])}
    torch.save(
        {"best_acc1": 1.0, "state_dict": module.state_dict(), "args": argparse.Namespace(**told)}, tmp_path / "a"
    )
    subject = load(tmp_path / "a")
    assert subject.preprocessing.shape == (3, 64, 64)
    assert "and the size of the input (64 x 64) come from a" in " ".join(subject.notes)
    assert any("a sets mean = array([0.1, 0.2, 0.3]) for pictures: that is not" in note for note in subject.notes)
    told = {"model": "resnet18", "val_crop_size": 224, "val_resize_size": 256, "interpolation": "bilinear"}
    said = read_record({"args": argparse.Namespace(**told)})
    assert said.image == (224, 224)
    assert not note_ignored_input(tmp_path, said, Torchvision.preprocessing(module))
    said = read_record({"args": argparse.Namespace(**told | {"val_resize_size": 232, "interpolation": "bicubic"})})
    assert "crop_pct = 0.96" in note_ignored_input(tmp_path, said, Torchvision.preprocessing(module))[0]
    assert "interpolation = 'bicubic'" in note_ignored_input(tmp_path, said, Torchvision.preprocessing(module))[0]


def test_torchvisions_transformers_are_built_for_the_size():
    named = NamedModel(Torchvision, "vit_b_32", {})
    with torch.device("meta"):
        state = models.vit_b_32(image_size=64).state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert named.shapes(Size(image=(64, 64))) == shapes
    with pytest.raises(UserError, match="give --image-size 64 if they were square"):
        size_of(named, Size(), shapes)
    with pytest.raises(UserError, match="takes square pictures, not 64 x 96"):
        named.shapes(Size(image=(64, 96)))


def test_channels_are_the_files_and_pixels_are_asked_for(loaded, refused):
    grey = weights(0, in_chans=1)
    assert holds(loaded(grey), grey)
    square, wide = weights(0, img_size=96), weights(0, img_size=(64, 256))
    assert "give --image-size 96 if they were square" in refused(square)
    assert loaded(square, image_size=96).preprocessing.shape == (3, 96, 96)
    assert loaded(wide, image_size=(64, 256)).preprocessing.shape == (3, 64, 256)
    assert "their height and width, as in --image-size 64x256" in refused(weights(0, img_size=(64, 128)))


def test_tokens_before_the_patches_are_no_pixels():
    low, high = ((side // 16) ** 2 + 5 for side in _SIDES)
    assert _side(low, high, 2**2 + 5) == 2 * 16  # the root of all nine would be 3
    assert _side(low, high, 6 + 5) is None  # six patches are no square


def test_other_weights_are_refused_with_names_of_both(refused):
    said = refused(models.get_model("resnet18", weights=None).state_dict())
    assert "missing blocks.0.attn.proj.bias (24,)" in said
    assert "unknown bn1.bias (64,)" in said
    assert "unknown more.weight (2,)" in refused({**RAW, "more.weight": torch.ones(2)})
    assert "head.weight is (4, 24) in the file and (5, 24) in the model" in refused(RAW, class_count=5)
    less = {name: value for name, value in RAW.items() if name != "blocks.0.mlp.fc1.weight"}
    assert "missing blocks.0.mlp.fc1.weight" in refused(less)
    assert "is int8 in the file" in refused({name: value.to(torch.int8) for name, value in RAW.items()})


def test_the_nearest_architecture_is_named(tmp_path):
    with torch.device("meta"):
        shapes = timm.create_model("deit_tiny_patch16_224", num_classes=10).state_dict()
    torch.save({"net." + name: torch.zeros(value.shape) for name, value in shapes.items()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"they are those of .*timm/deit_tiny_patch16_224"):
        load("timm/deit_small_patch16_224", weights=tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"its weights are those of .*timm/deit_tiny_patch16_224"):
        load(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto", "deit_tiny_distilled_patch16_224"]
)
@pytest.mark.parametrize("classes", [1000, 7])
def test_the_index_has_the_names_and_shapes_of_the_library(name, classes):
    with torch.device("meta"):
        module = timm.create_model(name, num_classes=classes)
    words, exact = nearest_architectures(
        {key: tuple(value.shape) for key, value in module.state_dict().items()}, most=9
    )
    assert exact
    assert f"timm/{name}" in words.split(" or ")


def test_other_precisions_keep_their_values_and_are_said(loaded):
    half = {name: value.half() for name, value in RAW.items()}
    subject = loaded(half)
    assert holds(subject, {name: value.float() for name, value in half.items()})
    assert "last.pth holds float16 weights; the model computes in float32." in subject.notes


def test_the_kind_of_a_file_is_in_its_bytes(tmp_path):
    save_file(RAW, tmp_path / "pytorch_model.bin")
    assert holds(load(NAME, weights=tmp_path / "pytorch_model.bin", options=SMALL), RAW)
    torch.save(RAW, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert holds(load(NAME, weights=tmp_path / "old.pth", options=SMALL), RAW)


SETTINGS = argparse.Namespace(
    model="vit_tiny_patch16_224",
    model_kwargs=SMALL,
    num_classes=None,
    img_size=64,
    mean=(0.1, 0.2, 0.3),
    std=None,
    gp="avg",
    output=pathlib.PosixPath("out"),
    lr=np.float64(1e-3),
)


def test_a_trainers_checkpoint_says_how_its_model_was_made(tmp_path):
    module = small(img_size=64, global_pool="avg")
    content = {"arch": "vit_tiny_patch16_224", "state_dict": module.state_dict(), "args": SETTINGS, "version": 2}
    content |= {"metric": np.float32(3), "history": collections.defaultdict(list), "curve": np.ones(3)}
    torch.save(content, tmp_path / "model_best.pth.tar")
    for subject in (
        load(tmp_path / "model_best.pth.tar"),
        load("timm/vit_tiny_patch16_224", weights=tmp_path / "model_best.pth.tar"),
    ):
        assert holds(subject, module.state_dict())
        assert subject.module.global_pool == "avg"
        assert subject.preprocessing.shape == (3, 64, 64)
        assert subject.preprocessing.mean == (0.1, 0.2, 0.3)
    note = load(tmp_path / "model_best.pth.tar").notes[0]
    assert "model_best.pth.tar names the architecture vit_tiny_patch16_224" in note


def test_an_architecture_of_two_libraries_is_asked_about(tmp_path):
    state = behind("module.", models.get_model("resnet18", weights=None, num_classes=3).state_dict())
    torch.save({"arch": "resnet18", "state_dict": state}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="it names resnet18, which is timm/resnet18 or torchvision/resnet18"):
        load(tmp_path / "a.pth")
    torch.save({"arch": "resnet18", "state_dict": state, "best_acc1": torch.tensor(3.0)}, tmp_path / "b.pth")
    assert load(tmp_path / "b.pth").name == "torchvision/resnet18"


def test_lightnings_settings_name_the_architecture(tmp_path):
    module = timm.create_model("resnet10t", num_classes=3).eval()
    content = {"state_dict": behind("net.", module.state_dict()), "hyper_parameters": {"backbone": "resnet10t"}}
    torch.save(content, tmp_path / "last.ckpt")
    subject = load(tmp_path / "last.ckpt")
    assert (subject.name, subject.class_count) == ("timm/resnet10t", 3)
    assert holds(subject, module.state_dict())


class Foreign:
    pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"state_dict": RAW, "config": Foreign()},
            "it holds a test_checkpoints.Foreign, and a pickled",
        ),
        (small(), "it is a whole timm.models.vision_transformer.VisionTransformer, and a pickled model is never"),
        ([RAW], "holds a list that is not a state_dict of tensors"),
        ({"epoch": 3}, "holds no named tensors"),
    ],
)
def test_what_holds_no_weights_alone_is_named(refused, content, message):
    assert message in refused(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"weights: see drive", "is a text file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"\x1f\x8b" + bytes(300), "is compressed with gzip"),
        (b"\x89HDF\r\n\x1a\n" + bytes(300), "is an HDF5 file"),
        (b"PK\x03\x04" + bytes(300), "was cut short or damaged"),
        (bytes(range(1, 256)), "is neither safetensors nor a file of torch.save"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, message):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"w.pt {message}")):
        load(NAME, weights=tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pach_size": 8}, r"takes no argument 'pach_size' \(is it patch_size\?\)"),
        ({"checkpoint_path": "/etc/passwd"}, "takes no argument 'checkpoint_path'"),
        ({"pretrained_cfg": {"url": "http://example.org"}}, "takes no argument 'pretrained_cfg'"),
        ({"depth": "many"}, "cannot be made with depth='many'"),
        ({"embed_dim": 7}, "cannot be made with embed_dim=7"),
    ],
)
def test_arguments_of_the_constructor_are_its_own(options, message):
    with pytest.raises(UserError, match=message):
        load(NAME, options=options)


def test_a_model_that_is_made_takes_no_size(tmp_path):
    with pytest.raises(UserError, match=r"A module that you pass \(VisionTransformer\) .*classes=3"):
        load(small(), class_count=3)
    with pytest.raises(UserError, match="two sets of weights; give one of them"):
        load(NAME, pretrained=True, weights=tmp_path / "w.pt")


def test_weights_go_into_a_copy_of_a_module_that_is_handed_over(tmp_path):
    module = small()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.save(RAW, tmp_path / "w.pt")
    assert holds(load(module, weights=tmp_path / "w.pt"), RAW)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def trained(state, **more):
    """What timm's trainer leaves of the small model."""
    asked = {"model": "vit_tiny_patch16_224", "model_kwargs": SMALL, **more}
    return {"arch": asked["model"], "state_dict": state, "args": argparse.Namespace(**asked)}


FOUR = ("dog", "cat", "ant", "bee")


@pytest.mark.parametrize(
    "content",
    [
        {"model": RAW, "class_to_idx": {name: number for number, name in enumerate(FOUR)}},
        {"state_dict": RAW, "classes": list(FOUR)},
        {"state_dict": RAW, "idx_to_class": dict(enumerate(FOUR)), "classes": 4},
        {"model": RAW, "id2label": {str(number): name for number, name in enumerate(FOUR)}},
        {"state_dict": behind("model.", RAW), "hyper_parameters": {"class_names": FOUR, "classes": ["a"]}},
        {"state_dict": behind("model.", RAW), "datamodule_hyper_parameters": {"class_names": FOUR}},
        {"model": RAW, "args": argparse.Namespace(classes=list(FOUR)), "class_names": FOUR},
        {"state_dict": RAW, "meta": {"dataset_meta": {"classes": FOUR}}},
        {"model": RAW, "label2id": {name: str(number) for number, name in enumerate(FOUR)}},
    ],
)
def test_classes_are_called_what_the_file_calls_them(content):
    assert label_outputs(4, class_names(content)).names == FOUR


def test_names_of_classes_that_differ_or_cannot_be_put_in_order_are_left_out(loaded, tmp_path):
    both = loaded({"model": RAW, "classes": sorted(FOUR), "class_to_idx": {name: i for i, name in enumerate(FOUR)}})
    assert both.classes is None
    assert any("The class names in classes and class_to_idx differ" in note for note in both.notes)
    thousand = loaded({"model": weights(0, num_classes=1000), "class_names": ["a", "b"]})
    assert thousand.classes is None
    assert any("class names in class_names are left out" in note for note in thousand.notes)
    torch.save({"net": RAW, "classes": FOUR}, tmp_path / "w.pt")
    module = small(img_size=224)
    assert load(module, weights=tmp_path / "w.pt").classes == FOUR
    assert load(module, weights=tmp_path / "w.pt", classes=sorted(FOUR)).classes == tuple(sorted(FOUR))


def test_the_tag_of_an_architecture_is_kept_with_its_input(tmp_path):
    module = timm.create_model("vit_small_patch16_224.dino", **SMALL, num_classes=4)
    asked = argparse.Namespace(model="vit_small_patch16_224.dino", model_kwargs=SMALL, mean=None)
    torch.save({"arch": asked.model, "state_dict": module.state_dict(), "args": asked}, tmp_path / "w.pt")
    own = module.pretrained_cfg["mean"]
    assert own != (0.5, 0.5, 0.5)
    assert load(tmp_path / "w.pt").preprocessing.mean == own
    untagged = load("timm/vit_small_patch16_224", weights=tmp_path / "w.pt")
    assert untagged.preprocessing.mean == own
    assert "w.pt names the architecture vit_small_patch16_224.dino: its input is timm/" in untagged.notes[0]
    other = load("timm/vit_small_patch16_224.augreg_in21k", weights=tmp_path / "w.pt")
    assert other.preprocessing.mean == (0.5, 0.5, 0.5)
    assert "it is read as timm/vit_small_patch16_224.augreg_in21k, whose input is used" in other.notes[0]


def test_another_architecture_than_the_files_is_said(loaded):
    state = timm.create_model("deit_tiny_patch16_224", **SMALL, num_classes=4).state_dict()
    subject = loaded(trained(state, model="deit_tiny_patch16_224", mean=(0.1, 0.2, 0.3)))
    assert subject.preprocessing.mean == (0.5, 0.5, 0.5)
    assert subject.notes[0] == (
        f"last.pth names the architecture deit_tiny_patch16_224: it is read as {NAME}, whose input is used."
    )


def test_names_that_timm_has_replaced_are_known():
    assert read_record({"arch": "resnet18d_in22k"}).names == ()
    assert read_record({"arch": "tf_efficientnet_b0_ns"}).names == ("timm/tf_efficientnet_b0.ns_jft_in1k",)
    assert read_record({"arch": "vit_tiny_patch16_224.of_our_own"}).names == (NAME,)


HALF = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("told", "mean"),
    [
        ({"mean": 0.25}, (0.25,) * 3),
        ({"mean": torch.tensor([0.25, 0.5, 0.75])}, (0.25, 0.5, 0.75)),
        ({"mean": np.array([0.25, 0.5, 0.75])}, (0.25, 0.5, 0.75)),
        ({"mean": [], "std": None, "interpolation": ""}, HALF),
    ],
)
def test_what_a_trainer_was_told_of_pictures_is_read_in_any_type(told, mean):
    settings = {"model_name": "vit_tiny_patch16_224"}
    for content in ({"args": argparse.Namespace(**settings, **told)}, {"hparams": settings | told}, settings | told):
        module = small()
        show_as(module, read_record(content).shown)
        assert module.pretrained_cfg["mean"] in (mean, mean[:1])
        assert module.pretrained_cfg["interpolation"] == "bicubic"
    assert not read_record({"mean": [0.1]}).shown


@pytest.mark.parametrize(
    "told",
    [
        {"mean": "0.5 0.5 0.5"},
        {"std": [0, 0, 0]},
        {"mean": (124.0, 116.0, 104.0)},
        {"crop_pct": 87.5},
        {"interpolation": "foo"},
        {"interpolation": 3},
        {"interpolation": "random"},
    ],
)
def test_what_no_picture_is_shown_with_is_refused(told):
    with pytest.raises(UserError, match=f"sets {next(iter(told))} = .*give the input as input="):
        show_as(small(), told)


def test_what_a_trainer_was_told_counts_unless_the_input_is_given(tmp_path):
    torch.save(trained(RAW, mean=0.25), tmp_path / "w.pt")
    assert load(tmp_path / "w.pt").preprocessing.mean == (0.25, 0.25, 0.25)
    torch.save(trained(RAW, mean="0.25"), tmp_path / "w.pt")
    assert load(tmp_path / "w.pt", input=PixelInput(224, 3, (0.5,), (0.5,))).preprocessing.mean == HALF


def test_settings_that_are_no_arguments_of_the_model_are_not_given_to_it(tmp_path):
    given = {**SMALL, "pretrained": True, "name": "x", "checkpoint_path": "", "features_only": False}
    torch.save(trained(RAW, model_kwargs=given, global_pool=False), tmp_path / "w.pt")
    assert holds(load(tmp_path / "w.pt"), RAW)
    for name in ("pretrained", "name"):
        with pytest.raises(UserError, match=f"takes no argument '{name}' here"):
            load(NAME, options={name: True})


def test_mae_says_only_whether_tokens_are_averaged(loaded, tmp_path):
    state = weights(0, global_pool="avg")
    subject = loaded({"model": state, "args": argparse.Namespace(model="vit_base_patch16", global_pool=True)})
    assert holds(subject, state)
    assert subject.module.global_pool == "avg"
    module = timm.create_model("resnet10t", num_classes=3)
    content = {"state_dict": module.state_dict(), "hparams": {"model": "resnet10t", "global_pool": True}}
    torch.save(content, tmp_path / "w.pt")
    assert load(tmp_path / "w.pt").class_count == 3


def normed(seed):
    """A model with buffers, whose average of parameters alone is no complete set."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    module[1].running_mean.normal_()
    return module


NORMED, SHADOW = normed(0), {name: value.detach() for name, value in normed(1).named_parameters()}


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"model": NORMED.state_dict(), "ema": {"shadow": SHADOW, "decay": 0.999}}, "ema.shadow"),
        ({"state_dict": {**behind("model.", NORMED.state_dict()), **behind("ema.", SHADOW)}}, "state_dict.ema"),
    ],
)
def test_an_average_of_parameters_has_the_raw_buffers(tmp_path, content, place):
    torch.save(content, tmp_path / "w.pt")
    made = make_from_module(normed(2), LoadOptions(weights=tmp_path / "w.pt"))
    state = made.module.state_dict()
    assert all(torch.equal(state[name], value) for name, value in SHADOW.items())
    assert torch.equal(state["1.running_mean"], NORMED[1].running_mean)
    assert f"the averaged ones ({place})" in made.notes[0]
    assert "their buffers are the raw ones' (1.running_mean, 1.running_var)" in made.notes[0]
    raw = make_from_module(normed(2), LoadOptions(weights=tmp_path / "w.pt", average=False))
    assert torch.equal(raw.module.state_dict()["0.weight"], NORMED[0].weight)


@pytest.mark.parametrize(
    ("beside", "place"),
    [
        ({"ema": {"decay": 0.99, "shadow_params": list(SHADOW.values()), "collected_params": None}}, "ema"),
        ({"callbacks": {"EMACallback": {"ema_state_dict": SHADOW}}}, "callbacks.EMACallback"),
        ({"optimizer_states": [{"ema": list(SHADOW.values())}]}, "optimizer_states.0.ema"),
        ({"ema": {"0.weight": SHADOW["0.weight"]}}, "ema"),
        ({"optimizer": {"state": {0: {"exp_avg": torch.ones(2), "square_avg": torch.ones(2)}}}}, None),
        ({"ema_loss": torch.tensor(3.0), "ema_decay": 0.9}, None),
    ],
)
def test_averages_that_cannot_be_taken_are_told_of(tmp_path, beside, place):
    torch.save({"model": NORMED.state_dict(), **beside}, tmp_path / "w.pt")
    notes = make_from_module(normed(2), LoadOptions(weights=tmp_path / "w.pt")).notes
    assert [f"also holds averages ({place})" in note for note in notes] == ([False, True] if place else [False])
    assert len(make_from_module(normed(2), LoadOptions(weights=tmp_path / "w.pt", average=False)).notes) == 1


def test_names_of_earlier_versions_of_timm_are_changed_to_todays(tmp_path):
    arguments = {"depths": (1, 1, 1, 1), "embed_dim": 8, "num_heads": (1, 1, 1, 1), "img_size": 64, "window_size": 2}
    module = timm.create_model("swin_tiny_patch4_window7_224", **arguments, num_classes=3).eval()
    old = {re.sub(r"^head\.fc", "head", name): value for name, value in module.state_dict().items()}
    old = {
        re.sub(r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name): value
        for name, value in old.items()
    }
    torch.save({"model": behind("net.", old), "best": torch.ones(3)}, tmp_path / "w.pt")
    subject = load("timm/swin_tiny_patch4_window7_224", weights=tmp_path / "w.pt", options=arguments)
    assert holds(subject, module.state_dict())
    assert subject.class_count == 3


def test_a_safetensors_file_that_is_another_is_named(tmp_path):
    file = tmp_path / "model.safetensors"
    for content, what in (
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page, not the file itself"),
    ):
        file.write_bytes(content)
        with pytest.raises(UserError, match=what):
            read_contents(file)
    torch.save({"w": torch.arange(3.0)}, file)
    assert torch.equal(read_contents(file).data["w"], torch.arange(3.0))
    with pytest.raises(UserError, match=r"is a folder; give the file of weights in it, such as .*/model\.safetensors"):
        read_contents(tmp_path)


INERT = [
    np.random.RandomState(0).get_state(),
    *(np.ones(2, kind) for kind in ("uint16", "uint32", "uint64", "complex64", "longdouble")),
    np.array([b"a"]),
    np.datetime64("2020-01-01"),
    np.timedelta64(3, "s"),
    torch.torch_version.TorchVersion("2.1"),
    collections.deque([1, 2], maxlen=3),
    collections.Counter("aab"),
    datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    datetime.date(2020, 1, 1),
    datetime.timedelta(3),
    decimal.Decimal("1.5"),
    slice(1, 2),
    range(3),
    frozenset([1]),
]


def test_values_that_do_nothing_are_no_reason_to_refuse(tmp_path):
    torch.save({"w": torch.arange(3.0), "beside": INERT}, tmp_path / "w.pt")
    found = read_contents(tmp_path / "w.pt").data
    assert torch.equal(found["w"], torch.arange(3.0))
    assert len(found["beside"]) == len(INERT)
    assert found["beside"][9:11] == ["2.1", [1, 2]]


def test_what_cannot_be_read_is_damaged_only_if_it_is(tmp_path):
    file = tmp_path / "w.pt"
    torch.save({"w": torch.arange(3.0), "beside": np.array([None], dtype=object)}, file)
    with pytest.raises(UserError, match=r"it holds a numpy\.dtypes\.ObjectDType, and a pickled model is never run"):
        read_contents(file)
    torch.save({"w": torch.arange(3.0), "beside": functools.partial(int)}, file)
    with pytest.raises(UserError, match=r"holds a functools\.partial"):
        read_contents(file)
    torch.save({"w": torch.arange(3000.0)}, file)
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(UserError, match="was cut short or damaged"):
        read_contents(file)


def test_of_pretrained_weights_it_is_said_that_a_classifier_is_random():
    named = NamedModel(Timm, "resnet10t", {"num_classes": 10})
    assert "Pretrained except fc.bias, fc.weight" in _head_note(named, LoadOptions(True, options=named.options))[0]
    assert (
        _head_note(replace(named, options={"num_classes": 1000}), LoadOptions(True, options={"num_classes": 1000}))
        == ()
    )


def test_counters_of_operations_are_no_weights(loaded):
    assert holds(loaded({**RAW, "total_ops": torch.zeros(1), "blocks.0.total_params": torch.zeros(1)}), RAW)
