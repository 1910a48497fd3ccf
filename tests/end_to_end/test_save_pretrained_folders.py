"""Models saved by their library's own means are created again from the folder, weights and all."""

import pickle
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionModelWithProjection,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import Outputs
from vitscope.models.timm.library import Timm
from vitscope.models.transformers.library import Transformers

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "image_size": 32,
    "patch_size": 8,
}
NAMES = {0: "cat", 1: "dog", 2: "eel"}


def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def vit() -> ViTForImageClassification:
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(**SMALL, id2label=NAMES)).eval()


@pytest.fixture
def folder(vit, tmp_path) -> str:
    vit.save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_transformers_folder_gives_the_same_logits(vit, folder, pretrained):
    again = Transformers.create(folder, pretrained).eval()
    with torch.inference_mode():
        assert torch.equal(again(images()).logits, vit(images()).logits)


def test_a_timm_folder_gives_the_same_logits(tmp_path):
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7}
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **small).eval()
    timm.models.save_for_hf(model, str(tmp_path), model_args=small, safe_serialization=True)
    again = Timm.create(str(tmp_path), True).eval()
    with torch.inference_mode():
        assert torch.equal(again(images()), model(images()))


def test_a_configuration_alone_gives_random_weights(vit, tmp_path):
    vit.config.architectures = ["ViTForImageClassification"]
    vit.config.save_pretrained(tmp_path)
    again = Transformers.create(str(tmp_path), False)
    assert isinstance(again, ViTForImageClassification)
    assert not torch.equal(again.classifier.weight, vit.classifier.weight)


def test_a_self_supervised_vit_is_not_given_a_random_pooler(tmp_path):
    ViTModel(ViTConfig(**SMALL), add_pooling_layer=False).save_pretrained(tmp_path)
    assert Transformers.create(str(tmp_path), True).pooler is None


def test_a_masked_autoencoder_is_made_to_hide_no_patches(tmp_path):
    ViTMAEModel(ViTMAEConfig(**SMALL, mask_ratio=0.75)).save_pretrained(tmp_path)
    again = Transformers.create(str(tmp_path), True)
    assert again(images()).last_hidden_state.shape == (2, 17, 24)


def test_of_a_clip_the_vision_tower_is_loaded(tmp_path):
    torch.manual_seed(0)
    text = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 40}
    both = CLIPModel(CLIPConfig(vision_config={**SMALL, "projection_dim": 6}, text_config=text, projection_dim=6))
    both.save_pretrained(tmp_path)
    tower = Transformers.create(str(tmp_path), True).eval()
    assert isinstance(tower, CLIPVisionModelWithProjection)
    with torch.inference_mode():
        expected = both.eval().visual_projection(both.vision_model(images()).pooler_output)
        assert torch.equal(tower(images()).image_embeds, expected)


def test_classes_are_named_where_the_configuration_names_them(vit):
    assert Transformers.classes(vit) == Outputs(3, ("cat", "dog", "eel"))
    assert Transformers.classes(ViTForImageClassification(ViTConfig(**SMALL, num_labels=4))) == Outputs(4)
    assert Transformers.classes(ViTModel(ViTConfig(**SMALL))) == Outputs(0)


def test_the_saved_image_processor_is_the_preprocessing(folder):
    ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3]).save_pretrained(folder)
    preprocessing = pickle.loads(pickle.dumps(Transformers.preprocessing(Transformers.create(folder, True))))
    assert preprocessing.shape == (3, 32, 32)
    black = preprocessing.transform(Image.new("RGB", (50, 70)))
    torch.testing.assert_close(black[:, 0, 0], torch.tensor([-0.2, -0.4, -0.6]))


def test_without_a_processor_the_published_normalisation_is_used(folder):
    preprocessing = pickle.loads(pickle.dumps(Transformers.preprocessing(Transformers.create(folder, True))))
    assert preprocessing.shape == (3, 32, 32)
    white = preprocessing.transform(Image.new("RGB", (50, 70), "white"))
    torch.testing.assert_close(white, torch.ones(3, 32, 32))


def test_weights_saved_under_older_names_are_loaded(vit, folder):
    state = load_file(f"{folder}/model.safetensors")
    assert state.keys() != vit.state_dict().keys()
    fresh = ViTForImageClassification(vit.config)
    loaded = Transformers.load_weights(fresh, state).eval()
    with torch.inference_mode():
        assert torch.equal(loaded(images()).logits, vit(images()).logits)


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def break_classifier(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["classifier.bias"]
    state["classifier.weight"] = torch.zeros(5, 24)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def break_configuration(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"ViTForImageClassification"', '"Nonsense"'))


def break_processor(folder: Path) -> None:
    CLIPImageProcessor(do_center_crop=False, size={"shortest_edge": 32}).save_pretrained(folder)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (remove_weights, "holds a configuration but no weights"),
        (break_classifier, r"missing classifier.bias; classifier.weight is \(5, 24\) in the file and \(3, 24\)"),
        (break_configuration, "names the architecture 'Nonsense'"),
        (break_processor, r"\(3, 32, 48\) for a wide picture and \(3, 48, 32\) for a tall one"),
    ],
)
def test_a_broken_folder_is_refused_in_words(folder, harm, message):
    harm(Path(folder))
    with pytest.raises(UserError, match=message):
        Transformers.preprocessing(Transformers.create(folder, True))


def test_unknown_weights_are_refused(vit):
    with pytest.raises(UserError, match="unknown nonsense"):
        Transformers.load_weights(vit, {**vit.state_dict(), "nonsense": torch.zeros(1)})


def test_a_hub_out_of_reach_is_said_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="could not read a configuration of"):
        Transformers.create(str(tmp_path / "nothing here"), True)
