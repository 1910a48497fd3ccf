"""What a module is shown is what it was made for; where its configuration says another input, or none, that is said."""

import json
import pickle
import re
from unittest.mock import Mock

import numpy as np
import pytest
import small_folders
import timm
import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from PIL import Image
from timm.models.levit import Levit
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision import models
from transformers import (
    CLIPImageProcessor,
    ConvNextConfig,
    ConvNextForImageClassification,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from vitscope import PixelInput, images, load, measure
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.measurement.errors import UserError
from vitscope.models.input import InMode
from vitscope.models.pixels import LARGEST
from vitscope.models.timm.library import Timm
from vitscope.models.torchvision.library import Torchvision
from vitscope.models.transformers import input as transformers_input
from vitscope.models.transformers.library import Transformers

TINY = {"embed_dim": 48, "depth": 1, "num_heads": 3, "num_classes": 4}
BODY = {**small_folders.BODY, "num_labels": 3}
MAPS = {"hidden_sizes": [8, 8], "depths": [1, 1]}


def vit(**more):
    return timm.create_model("vit_tiny_patch16_224", **{**TINY, **more}).eval()


def picture(width=50, height=70, colour=(255, 255, 255)):
    return Image.new("RGB", (width, height), colour)


def described(module, **given):
    preprocessing = load(module, **given).preprocessing
    assert tuple(preprocessing.transform(picture()).shape) == preprocessing.shape
    return preprocessing


MODULES = [
    ("vit_tiny_patch16_224", {**TINY, "img_size": 96}, (3, 96, 96)),
    ("vit_tiny_patch16_224", {**TINY, "img_size": 96, "dynamic_img_size": True}, (3, 96, 96)),
    ("vit_tiny_patch16_224", {**TINY, "img_size": 96, "dynamic_img_pad": True}, (3, 96, 96)),
    ("vit_tiny_patch16_224", {**TINY, "img_size": (64, 128)}, (3, 64, 128)),
    ("vit_tiny_patch16_224", {**TINY, "img_size": 64, "use_naflex": True}, (3, 64, 64)),
    ("vit_tiny_patch16_224", {**TINY, "img_size": 64, "pretrained_cfg": {"input_size": (3, 32, 32)}}, (3, 64, 64)),
    (
        "swin_tiny_patch4_window7_224",
        {"img_size": 56, "depths": (1, 1), "embed_dim": 12, "num_heads": (2, 2)},
        (3, 56, 56),
    ),
    ("swinv2_tiny_window8_256", {"img_size": 64, "depths": (1, 1), "embed_dim": 12, "num_heads": (2, 2)}, (3, 64, 64)),
    ("mobilevit_xxs", {"img_size": 64}, (3, 64, 64)),
    ("pit_ti_224", {"img_size": 64}, (3, 64, 64)),
    ("xcit_nano_12_p8_224", {"img_size": 32, "depth": 1}, (3, 32, 32)),
    ("convnext_atto", {}, (3, 224, 224)),
    ("resnet18", {"pretrained_cfg": {"input_size": (3, 64, 64)}}, (3, 64, 64)),
    ("resnet18", {"in_chans": 1}, (1, 224, 224)),
    ("tresnet_m", {"in_chans": 1}, (1, 224, 224)),  # its first convolution sees 16 channels
]


@pytest.mark.parametrize(("name", "arguments", "shape"), MODULES)
def test_a_timm_module_is_shown_its_own_size_and_channels(name, arguments, shape):
    module = timm.create_model(name, **arguments).eval()
    found = Timm.preprocessing(module)
    assert found.shape == shape
    assert tuple(InMode("L" if shape[0] == 1 else "RGB", found.transform)(picture()).shape) == shape
    assert len(found.mean) == len(found.std) == shape[0]
    configured = tuple(module.pretrained_cfg["input_size"])
    assert any("it is shown" in note for note in found.notes) == (configured != shape)
    with torch.inference_mode():
        assert module(torch.zeros(1, *shape)).shape[0] == 1


def test_a_size_that_was_set_later_and_a_stem_that_was_replaced_are_seen():
    module = vit(img_size=64)
    module.set_input_size((32, 96))
    assert Timm.preprocessing(module).shape == (3, 32, 96)
    module.patch_embed.proj = nn.Conv2d(1, 48, 16, 16)
    assert Timm.preprocessing(module).shape == (1, 32, 96)


def test_what_no_configuration_says_is_said_to_be_a_guess():
    made = VisionTransformer(img_size=32, patch_size=16, embed_dim=24, depth=1, num_heads=3, num_classes=3).eval()
    assert described(made).shape == (3, 32, 32)
    assert any("ImageNet's mean and deviation are a guess" in note for note in load(made).notes)
    with pytest.raises(UserError, match=re.escape("Levit does not run on pictures of 3 x 224 x 224")):
        load(Levit(img_size=64, num_classes=3).eval())
    assert "timm's default" in Timm.preprocessing(Levit(img_size=64, num_classes=3)).notes[0]


def test_grey_is_shown_grey_with_the_average_normalisation():
    found = described(vit(img_size=32, in_chans=1, pretrained_cfg={"mean": (0.3, 0.4, 0.5), "std": (0.1, 0.2, 0.3)}))
    assert (found.mean, found.std) == (pytest.approx((0.4,)), pytest.approx((0.2,)))
    assert any("averages are taken" in note for note in found.notes)
    luma = float(np.asarray(picture(colour=(200, 100, 50)).convert("L"))[0, 0]) / 255
    shown = found.transform(picture(colour=(200, 100, 50)))
    torch.testing.assert_close(shown, torch.full((1, 32, 32), (luma - 0.4) / 0.2))
    run = measure(load(vit(img_size=32, in_chans=1)), images(([picture()] * 2, np.arange(2))), [Accuracy()])
    assert np.isfinite(float(run["accuracy/nll"]))


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_channels_that_no_picture_has_are_refused(channels):
    with pytest.raises(UserError, match=f"takes {channels} channels; pictures have 1 .grey. or 3 .RGB."):
        load(vit(img_size=32, in_chans=channels))


def test_an_input_that_the_module_does_not_take_is_refused():
    with pytest.raises(UserError, match=re.escape("VisionTransformer does not run on pictures of 3 x 48 x 48")):
        load(vit(img_size=32), input=PixelInput(48, 3, (0.5,), (0.5,)))
    with pytest.raises(UserError, match="has 2 values of mean"):
        Timm.preprocessing(vit(img_size=32, pretrained_cfg={"mean": (0.5, 0.5)}))


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda count: models.resnet18(num_classes=count), "3 x 224 x 224, bilinear, resize 256"),
        (lambda count: models.efficientnet_b1(num_classes=count), "3 x 240 x 240, bilinear, resize 255"),
        (lambda count: models.regnet_x_400mf(num_classes=count), "3 x 224 x 224, bilinear, resize 232"),
        (lambda count: models.googlenet(num_classes=count, init_weights=False, transform_input=True), "3 x 224 x 224"),
        (
            lambda count: models.inception_v3(num_classes=count, init_weights=False),
            "3 x 299 x 299, bilinear, resize 342",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchvision_s_input_does_not_depend_on_the_number_of_classes(build, text):
    found = [Torchvision.preprocessing(build(count)) for count in (1000, 10)]
    assert found[0].text.startswith(text)
    assert found[0].text == found[1].text
    assert found[0].notes == found[1].notes


def test_a_replaced_head_and_a_replaced_stem_are_no_other_architecture():
    module = models.resnet18()
    module.fc = nn.Sequential(nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 4))
    module.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    found = Torchvision.preprocessing(module)
    assert found.text == "1 x 224 x 224, bilinear, resize 256, mean 0.449, std 0.226"
    assert ["averages are taken" in note for note in found.notes] == [True]


def test_a_torchvision_transformer_is_shown_its_own_size():
    with torch.device("meta"):
        module = models.vit_b_16(image_size=96, num_classes=3)
    found = Torchvision.preprocessing(module)
    assert found.shape == (3, 96, 96)
    assert "it is shown 96 x 96 pixels, for which it is made" in found.notes[0]
    assert tuple(found.transform(picture()).shape) == (3, 96, 96)
    with torch.device("meta"):
        large = Torchvision.preprocessing(models.vit_b_16(image_size=384))
    assert large.text.startswith("3 x 384 x 384, bicubic, resize 384")  # weights are published for it
    own = Torchvision.preprocessing(models.VisionTransformer(32, 8, 1, 2, 16, 16, num_classes=3))
    assert own.shape == (3, 32, 32)
    assert "are a guess" in own.notes[0]


def test_of_several_published_inputs_the_one_taken_is_said():
    note = Torchvision.preprocessing(models.regnet_x_400mf(num_classes=3)).notes[0]
    assert "resize 232, crop 224; resize 256, crop 224" in note
    assert "IMAGENET1K_V2, is taken" in note
    assert Torchvision.preprocessing(models.resnet18(num_classes=3)).notes == ()


@pytest.fixture
def folder(tmp_path):
    def saved(module, **processor):
        module.save_pretrained(tmp_path)
        if processor:
            ViTImageProcessor(**processor).save_pretrained(tmp_path)
        return tmp_path

    return saved


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: ViTForImageClassification(ViTConfig(**BODY)), (3, 32, 32)),
        (lambda: ViTForImageClassification(ViTConfig(**{**BODY, "image_size": [32, 48]})), (3, 32, 48)),
        (lambda: ViTForImageClassification(ViTConfig(**BODY, num_channels=1)), (1, 32, 32)),
        (lambda: Dinov2Model(Dinov2Config(**{**BODY, "image_size": 48})), (3, 48, 48)),
        (lambda: ConvNextForImageClassification(ConvNextConfig(**MAPS, num_stages=2, image_size=40)), (3, 40, 40)),
        (lambda: ResNetForImageClassification(ResNetConfig(**MAPS, embedding_size=8)), (3, 224, 224)),
    ],
)  # fmt: skip
def test_without_a_processor_a_folder_s_own_size_is_shown(folder, build, shape):
    subject = load(folder(build()))
    assert subject.preprocessing.shape == shape
    assert "comes without an image processor" in subject.notes[0]
    assert ("224 pixels are a guess" in subject.notes[0]) == isinstance(subject.module, ResNetForImageClassification)
    assert tuple(subject.preprocessing.transform(picture()).shape) == shape


@pytest.mark.parametrize(
    ("processor", "white", "notes"),
    [
        ({"size": {"height": 32, "width": 32}, "image_mean": [0.2] * 3, "image_std": [0.4] * 3}, 2.0, 0),
        ({"size": {"height": 32, "width": 32}, "do_normalize": False}, 1.0, 0),
        ({"size": {"height": 32, "width": 32}, "do_normalize": False, "do_rescale": False}, 255.0, 0),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32, "image_mean": [0.5] * 3}, 1.0, 0),
        ({"size": 32, "resample": 2}, 1.0, 0),
        ({"size": {"height": 96, "width": 96}, "image_mean": [0.2] * 3, "image_std": [0.4] * 3}, 2.0, 1),  # not taken
    ],
)
def test_a_processor_is_followed_if_the_module_takes_what_it_gives(folder, processor, white, notes):
    subject = load(folder(ViTForImageClassification(ViTConfig(**BODY)), **processor))
    assert subject.preprocessing.shape == (3, 32, 32)
    torch.testing.assert_close(subject.preprocessing.transform(picture()), torch.full((3, 32, 32), white))
    assert len([note for note in subject.notes if "it is shown 3 x 32 x 32" in note]) == notes
    assert subject.preprocessing.mean is not None


@pytest.mark.parametrize(
    ("switches", "mean", "whose"),
    [
        ({}, (0.1, 0.2, 0.3), "the processor's normalisation"),
        ({"do_normalize": False}, (0.0, 0.0, 0.0), "the processor's normalisation"),
        ({"rescale_factor": 1.0}, (0.5, 0.5, 0.5), "that of published vit models, a guess"),
    ],
)
def test_of_a_processor_that_pads_it_is_said_whose_normalisation_is_shown(folder, switches, mean, whose):
    where = folder(ViTForImageClassification(ViTConfig(**BODY)))
    padding = {"size": {"shortest_edge": 32}, "crop_size": {"height": 96, "width": 96}, "image_mean": [0.1, 0.2, 0.3]}
    CLIPImageProcessor(**padding, **switches).save_pretrained(where)
    subject = load(where)
    assert subject.preprocessing.mean == mean
    assert any(note.endswith(f"for which it is made, with {whose}.") for note in subject.notes)


@pytest.mark.parametrize("gone", ["./runs/vit/checkpoint-500", "../vit-flowers", "a/b/c", "my model", "C:\\vit"])
def test_a_transformers_module_whose_folder_is_gone_has_no_processor(gone):
    module = ViTForImageClassification(ViTConfig(**BODY)).eval()
    module.config.name_or_path = gone
    assert "comes without an image processor" in Transformers.preprocessing(module).notes[0]


@pytest.mark.parametrize(
    ("error", "said"),
    [(RepositoryNotFoundError, "comes without an image processor"), (GatedRepoError, None), (HfHubHTTPError, None)],
)
def test_what_the_hub_answers_is_no_traceback(monkeypatch, error, said):
    def answer(*_):
        raise error("no", response=Mock())

    monkeypatch.setattr(transformers_input, "hf_hub_download", answer)
    module = ViTForImageClassification(ViTConfig(**BODY)).eval()
    module.config.name_or_path = "org/model"
    if said:
        assert said in Transformers.preprocessing(module).notes[0]
    else:
        with pytest.raises(UserError, match="could not be reached for the preprocessing of 'org/model'"):
            Transformers.preprocessing(module)


@pytest.mark.parametrize(("left", "words"), [((), "mean and deviation"), (("std",), "mean"), (("mean",), "deviation")])
def test_a_timm_folder_without_normalisation_is_a_guess_that_is_said(tmp_path, left, words):
    small_folders.timm_folder(tmp_path)
    facts = json.loads((tmp_path / "config.json").read_text())
    facts["pretrained_cfg"] = {key: one for key, one in facts["pretrained_cfg"].items() if key not in ("mean", "std")}
    facts["pretrained_cfg"] |= dict.fromkeys(left, [0.25] * 3)
    (tmp_path / "config.json").write_text(json.dumps(facts))
    subject = load(tmp_path)
    assert any(f"has no {words}: ImageNet's is a guess" in note for note in subject.notes)
    assert subject.preprocessing.mean == ((0.25,) * 3 if "mean" in left else (0.485, 0.456, 0.406))
    assert load(tmp_path, input=PixelInput(32, 3, (0.5,), (0.5,))).notes == ()


def test_a_module_that_takes_any_size_is_shown_its_processor_s(folder):
    where = folder(Dinov2Model(Dinov2Config(**{**BODY, "image_size": 48})), size={"height": 32, "width": 32})
    assert load(where).preprocessing.shape == (3, 32, 32)


def test_a_colour_processor_of_a_grey_module(folder):
    subject = load(
        folder(ViTForImageClassification(ViTConfig(**BODY, num_channels=1)), size={"height": 32, "width": 32})
    )
    assert tuple(subject.preprocessing.transform(picture()).shape) == subject.preprocessing.shape == (1, 32, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_resize": False}, "a size that is the same for all pictures"),
        ({"image_mean": [0.5, 0.5]}, "image processor"),
        ({"image_std": [0.0, 0.5, 0.5]}, "has image_std = 0.0"),
        ({"size": {"height": 10**9, "width": 32}}, "has height = 1000000000"),
        ({"size": {"height": -1, "width": 32}}, "has height = -1"),
        ({"size": "large"}, "image processor"),
        ({"image_processor_type": "../../evil"}, "is not the name of an image processor"),
        ({"image_processor_type": "ViTImageProcesor"}, "is not an image processor of transformers"),
        ({"resample": 99}, "image processor"),
    ],
)
def test_a_malformed_processor_is_one_sentence(folder, change, message):
    where = folder(ViTForImageClassification(ViTConfig(**BODY)), size={"height": 32, "width": 32})
    path = where / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        load(where)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe{}", b"[" * 100_000])
def test_a_processor_that_is_no_object_is_named(folder, content):
    where = folder(ViTForImageClassification(ViTConfig(**BODY)))
    (where / "preprocessor_config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"preprocessor_config\.json"):
        load(where)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((40, 20), (0, 0, 40, 20)),
        ((40, 40), (0, 10, 40, 30)),
        ((100, 20), (30, 0, 70, 20)),
        ((20, 40), (0, 15, 20, 25)),
    ],
)
def test_a_rectangle_is_cut_from_the_middle(size, box):
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    given = PixelInput((20, 40), 3, (0.5,), (0.5,))
    expected = Image.fromarray(noise).resize((40, 20), Image.Resampling.BICUBIC, box=box)
    np.testing.assert_array_equal(given.pixels(Image.fromarray(noise)), np.asarray(expected))
    assert given.preprocessing.shape == given.shape == (3, 20, 40)
    assert tuple(given(Image.fromarray(noise)).shape) == (3, 20, 40)
    assert pickle.loads(pickle.dumps(given)) == given


def test_a_square_is_a_square_however_it_is_told():
    assert PixelInput([32, 32], 3, (0.5,), (0.5,)) == PixelInput(32, 3, (0.5,), (0.5,))
    assert PixelInput([16, 32], 3, (0.5,), (0.5,)).image == (16, 32)
    assert hash(PixelInput([16, 32], 3, (0.5,), (0.5,)))


@pytest.mark.parametrize("image", [0, -3, LARGEST + 1, (8, 0), (8,), (8, 8, 8)])
def test_an_input_of_no_picture_s_size_is_refused(image):
    with pytest.raises(UserError, match="give the side of a square, or height and width"):
        PixelInput(image, 3, (0.5,), (0.5,))


def test_a_mixer_is_shown_what_its_stem_embeds() -> None:
    for name in ("mixer_s32_224", "resmlp_12_224"):
        module = timm.create_model(name, img_size=64, num_classes=3).eval()
        assert load(module).preprocessing.shape == (3, 64, 64)
