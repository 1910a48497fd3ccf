"""Names of classes as configurations hold them: in the order of the outputs, or left out, never shifted."""

import pytest
import timm
from small_folders import BODY
from timm.data.imagenet_info import ImageNetInfo
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from vitscope import PixelInput, load
from vitscope.models.adapter import Outputs
from vitscope.models.classes import named_outputs, outputs_of
from vitscope.models.timm.library import Timm
from vitscope.models.transformers.library import Transformers


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (["b", "a", "c"], ("b", "a", "c")),
        ({"0": "b", "1": "a", "2": "c"}, ("b", "a", "c")),
        ({"2": "c", "0": "b", "1": "a"}, ("b", "a", "c")),
        ({0: "b", 1: "a", 2: "c"}, ("b", "a", "c")),
        ({"b": 0, "c": 2, "a": 1}, ("b", "a", "c")),
        ({"b": "0", "c": "2", "a": "1"}, ("b", "a", "c")),
        ({"0": 7, "1": 5, "2": 6}, ("7", "5", "6")),
        (["a", "a", "b"], ("a", "a", "b")),
        ({"0": "b", "2": "c"}, ("b", "unnamed 1", "c")),
        (["LABEL_0", "LABEL_1", "LABEL_2"], None),
        (None, None),
    ],
)
def test_names_stand_at_their_outputs(found, names):
    outputs = named_outputs(3, found, "id2label")
    assert outputs.names == names
    assert bool(outputs.notes) == (names is not None and "unnamed 1" in names)


@pytest.mark.parametrize(
    "found",
    [
        ["a", "b"],
        ["a", "b", "c", "d"],
        {"1": "a", "2": "b", "3": "c"},
        {"0": "a", "x": "b", "2": "c"},
        {"0": "a", "00": "b"},
        {"-1": "a"},
        {},
        "abc",
        3,
        [["a"], "b", "c"],
        {"0": None, "1": ["a"], "2": "c"},
    ],
)
def test_what_cannot_be_put_in_order_is_left_out_and_said(found):
    outputs = named_outputs(3, found, "id2label")
    assert outputs.names is None
    assert outputs.notes[0].startswith("The class names in id2label are left out")


def vit(**more):
    given = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 3} | more
    return timm.create_model("vit_tiny_patch16_224", **given).eval()


def test_timm_s_configuration_names_the_classes():
    assert Timm.classes(vit(pretrained_cfg={"label_names": ("b", "a", "c")})) == Outputs(3, ("b", "a", "c"))
    told = {"label_names": {"0": "b", "1": "a", "2": "c"}, "label_descriptions": {"a": "the first letter"}}
    assert Timm.classes(vit(pretrained_cfg=told)).names == ("b", "a", "c")
    wnids = {"label_names": ["n02102040", "n01440764", "n01443537"], "label_descriptions": {"n01443537": "gold"}}
    assert Timm.classes(vit(pretrained_cfg=wnids)).names == (
        *(ImageNetInfo("imagenet-1k").label_name_to_description(one) for one in wnids["label_names"][:2]),
        "gold",
    )


@pytest.mark.parametrize(("count", "subset"), [(1000, "imagenet-1k"), (11821, "imagenet-12k")])
def test_as_many_classes_as_imagenet_has_are_taken_for_them_and_that_is_said(count, subset):
    subject = load(vit(num_classes=count))
    assert subject.classes == tuple(ImageNetInfo(subset).label_descriptions())
    assert any("assumed to be those of ImageNet" in note for note in subject.notes)
    assert not load("timm/test_vit").notes  # the name says it


def test_a_head_that_was_replaced_is_counted_as_it_is():
    module = vit(num_classes=1000)
    module.head = nn.Linear(24, 7)
    subject = load(module)
    assert (subject.class_count, subject.classes) == (7, None)
    assert load(vit(num_classes=0)).class_count == 0


def test_a_head_of_several_layers_and_a_subclass_are_classifiers():
    module = vit(num_classes=0)
    module.head = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3), nn.Dropout())
    assert Timm.classes(module).count == 3
    module.head = nn.Identity()
    assert Timm.classes(module).count == 0

    class Ours(ViTForImageClassification):
        pass

    config = ViTConfig(**BODY, id2label=dict(enumerate(("b", "a", "c"))))
    assert Transformers.classes(Ours(config)) == Outputs(3, ("b", "a", "c"))


def test_names_of_another_number_of_classes_are_left_out_with_a_word():
    module = vit(pretrained_cfg={"label_names": ["a", "b", "c", "d"]})
    subject = load(module, input=PixelInput(32, 3, (0.5,), (0.5,)))
    assert subject.classes is None
    assert any("are left out" in note for note in subject.notes)


def test_names_saved_with_weights_are_kept_only_if_they_are_as_many():
    assert outputs_of(nn.Identity(), None, 2, ("a", "b"), None) == Outputs(2, ("a", "b"))
    found = outputs_of(nn.Identity(), None, 3, ("a", "b"), None)
    assert found.names is None
    assert "2 class names that come with the model are left out" in found.notes[0]
