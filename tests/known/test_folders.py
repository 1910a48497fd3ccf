"""Saved folders: what they hold is examined, and what their configuration names elsewhere is never reached."""

import json
import socket
import sys

import huggingface_hub
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from small_folders import BODY, NAMES, SIZE, changed, logits, timm_folder, transformers_folder

from vitscope import checkup, images, load
from vitscope.measurement.errors import UserError

TEXT = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "vocab_size": 50,
}
MAPS = {"hidden_sizes": [8, 8], "depths": [1, 1]}
FOLDERS = [timm_folder, transformers_folder]
OPENED: list[str] = []
WATCHING: list[bool] = []
sys.addaudithook(lambda event, given: OPENED.append(str(given[0])) if WATCHING and event == "open" else None)


@pytest.fixture
def nothing_reaches_out(monkeypatch):
    """Connections and downloads fail the test; the files that are opened are listed."""

    def reached(*given, **_named):
        raise AssertionError(f"reached out for {given}")

    monkeypatch.setattr(socket, "create_connection", reached)
    monkeypatch.setattr(socket.socket, "connect", reached)
    monkeypatch.setattr(socket, "getaddrinfo", reached)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", reached)
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_url", reached)
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", reached)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", reached)
    monkeypatch.setattr("builtins.input", reached)
    OPENED.clear()
    WATCHING.append(True)
    yield OPENED
    WATCHING.clear()


@pytest.mark.parametrize("write", FOLDERS)
@pytest.mark.usefixtures("nothing_reaches_out")
def test_a_folder_is_the_model_that_was_saved(tmp_path, write):
    module = write(tmp_path)
    subject = load(tmp_path)
    assert torch.equal(logits(subject.module), logits(module))
    assert subject.classes == tuple(NAMES)
    assert subject.preprocessing.shape == (3, 32, 32)


@pytest.mark.parametrize("write", FOLDERS)
@pytest.mark.parametrize("form", ["bin", "both", "shards", "shards of bin", "a name of its own"])
def test_weights_in_every_usual_file(tmp_path, write, form):
    module = write(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    keys = sorted(state)
    parts = {"one": {key: state[key] for key in keys[:5]}, "two": {key: state[key] for key in keys[5:]}}
    if form == "both":
        torch.save({key: torch.zeros_like(value) for key, value in state.items()}, tmp_path / "pytorch_model.bin")
    elif form == "bin":
        torch.save(state, tmp_path / "pytorch_model.bin")
    elif form == "a name of its own":
        save_file(state, tmp_path / "best.safetensors")
        torch.save({"step": 1}, tmp_path / "optimizer.pt")
    else:
        of_bin = form != "shards"
        named = {key: f"{part}.{'bin' if of_bin else 'safetensors'}" for part in parts for key in parts[part]}
        index = tmp_path / ("pytorch_model.bin.index.json" if of_bin else "model.safetensors.index.json")
        index.write_text(json.dumps({"metadata": {}, "weight_map": named}))
        for part, values in parts.items():
            (torch.save if of_bin else save_file)(values, tmp_path / f"{part}.{'bin' if of_bin else 'safetensors'}")
    if form != "both":
        file.unlink()
    subject = load(tmp_path)
    assert torch.equal(logits(subject.module), logits(module))
    assert any("those of model.safetensors were taken" in note for note in subject.notes) == (form == "both")


@pytest.mark.parametrize("write", FOLDERS)
def test_of_several_sets_in_a_folder_the_average_is_taken_or_it_is_asked(tmp_path, write):
    module = write(tmp_path)
    file, state = tmp_path / "model.safetensors", load_file(tmp_path / "model.safetensors")
    other = {name: value + 1 for name, value in state.items()}
    save_file({f"model.{name}": value for name, value in state.items()}, file)
    assert torch.equal(logits(load(tmp_path).module), logits(module))
    file.unlink()
    torch.save({"state_dict": other, "state_dict_ema": state, "loss": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    subject = load(tmp_path)
    assert torch.equal(logits(subject.module), logits(module))
    assert subject.weights == f"{tmp_path} (averaged: state_dict_ema)"
    assert any("not the raw ones (state_dict), which --raw takes" in note for note in subject.notes)
    torch.save({"student": state, "teacher": other}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="choose one: --part student or --part teacher"):
        load(tmp_path)
    assert torch.equal(logits(load(tmp_path, part="student").module), logits(module))


@pytest.mark.parametrize("file", ["folder/model.safetensors", "model.ckpt", "beside.ckpt", "ema.ckpt"])
def test_weights_of_transformers_older_names_are_found_behind_anything(tmp_path, file):
    module = transformers_folder(tmp_path / "folder")
    state = load_file(tmp_path / "folder" / "model.safetensors")
    assert state.keys() != module.state_dict().keys()
    behind = {f"model.{name}": value for name, value in state.items()}
    torch.save({"state_dict": {**behind, "criterion.weight": torch.ones(3)}}, tmp_path / "model.ckpt")
    torch.save({"loss": torch.tensor(0.3), "model_state_dict": state}, tmp_path / "beside.ckpt")
    other = {name: value + 1 for name, value in state.items()}
    torch.save({"model": other, "model_ema": state}, tmp_path / "ema.ckpt")
    subject = load(tmp_path / "folder", weights=tmp_path / file)
    assert torch.equal(logits(subject.module), logits(module))


def test_weights_go_into_the_module_that_is_handed_over_however_it_was_changed(tmp_path):
    module = transformers_folder(tmp_path)
    module.classifier = torch.nn.Sequential(torch.nn.Linear(24, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    module.vit.layers[0].register_forward_hook(lambda part, given, output: 2 * output)
    torch.save(module.state_dict(), tmp_path / "w.pt")
    subject = load(module, weights=tmp_path / "w.pt")
    assert torch.equal(logits(subject.module), logits(module.eval()))
    with pytest.raises(UserError, match="The weights do not fit ViTForImageClassification: missing "):
        load(module, weights=tmp_path / "model.safetensors")


@pytest.mark.parametrize("write", FOLDERS)
def test_weights_may_lie_elsewhere_if_they_are_named(tmp_path, write):
    module = write(tmp_path / "folder")
    (tmp_path / "folder" / "model.safetensors").rename(tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="holds a configuration but no weights: give their file with --weights"):
        load(tmp_path / "folder")
    assert torch.equal(logits(load(tmp_path / "folder", weights=tmp_path / "w.safetensors").module), logits(module))


@pytest.mark.parametrize("elsewhere", ["../w.safetensors", "/etc/passwd", "..", "", "a/b.safetensors", 3])
def test_an_index_stays_in_its_folder(tmp_path, elsewhere, nothing_reaches_out):
    timm_folder(tmp_path / "folder")
    (tmp_path / "folder" / "model.safetensors").rename(tmp_path / "w.safetensors")
    index = {"weight_map": {"head.weight": elsewhere}}
    (tmp_path / "folder" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json (names the file|has no weight_map)"):
        load(tmp_path / "folder")
    assert not [one for one in nothing_reaches_out if "passwd" in one or one.endswith("w.safetensors")]


def test_files_that_are_not_all_there_and_files_of_which_none_is_meant(tmp_path):
    timm_folder(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"head.weight": "one.safetensors"}}))
    (tmp_path / "model.safetensors").rename(tmp_path / "two.safetensors")
    with pytest.raises(UserError, match=r"names the file 'one\.safetensors', which is missing"):
        load(tmp_path)
    save_file({"other": torch.zeros(1)}, tmp_path / "one.safetensors")
    with pytest.raises(UserError, match=r"names the weight 'head\.weight', which is in none of its files"):
        load(tmp_path)
    index.unlink()
    with pytest.raises(UserError, match=r"several files of weights .one\.safetensors, two\.safetensors.: choose one"):
        load(tmp_path)


PLACES = [
    {"pretrained_cfg": {"url": "http://example.org/w.pth", "source": "url"}},
    {"pretrained_cfg": {"hf_hub_id": "org/model", "source": "hf-hub", "custom_load": "hf"}},
    {"pretrained_cfg": {"file": "FOREIGN", "custom_load": True}},
    {"pretrained_cfg": {"state_dict": {"head.bias": [1, 2, 3]}}},
    {"model_args": {"checkpoint_path": "FOREIGN"}},
    {"model_args": {"pretrained": True}},
    {"model_args": {"pretrained_cfg_overlay": {"file": "FOREIGN"}}},
    {"model_args": {"cache_dir": "FOREIGN"}},
    {"model_args": {"act_layer": "../../FOREIGN"}},
    {"model_args": {"features_only": True}},
]


@pytest.mark.parametrize("more", PLACES, ids=str)
def test_a_timm_configuration_reaches_nothing(tmp_path, more, nothing_reaches_out):
    foreign = tmp_path / "foreign.safetensors"
    module = timm_folder(tmp_path / "folder", **json.loads(json.dumps(more).replace("FOREIGN", str(foreign))))
    module = module or timm_folder(tmp_path / "plain")
    save_file({"head.bias": torch.ones(3)}, foreign)
    nothing_reaches_out.clear()
    try:
        subject = load(tmp_path / "folder")
    except UserError as error:
        assert "config.json has" in str(error)  # noqa: PT017 (either is right)
        assert "model_args" in more
    else:
        assert torch.equal(logits(subject.module), logits(module))
        assert "state_dict" not in subject.module.pretrained_cfg
    assert not [one for one in nothing_reaches_out if "foreign" in one]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"attn_implementation": "org/kernel"}, "requests the attention 'org/kernel', which is not fetched"),
        ({"_attn_implementation": "org/kernel"}, "requests the attention 'org/kernel', which is not fetched"),
        ({"attn_implementation": "flash_attention_2"}, "requests the attention 'flash_attention_2'"),
        ({"attn_implementation": "eager"}, ""),
        ({"auto_map": {"AutoModel": "code.Model", "AutoConfig": "org/repo--code.C"}}, "(auto_map) is not run"),
        ({"custom_pipelines": {"x": {"impl": "code.P"}}}, ""),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, ""),
        ({"transformers_weights": "../foreign.safetensors"}, ""),
        ({"_name_or_path": "org/model", "name_or_path": "org/model"}, ""),
        ({"use_pretrained_backbone": True, "backbone": "resnet18"}, ""),
        ({"experts_implementation": "org/kernel", "fusion_config": {"patch_embeddings": True}}, ""),
    ],
)
def test_a_transformers_configuration_reaches_nothing(tmp_path, more, said, nothing_reaches_out):
    module = transformers_folder(tmp_path / "plain")
    transformers_folder(tmp_path / "folder", **more)
    (tmp_path / "folder" / "code.py").write_text("raise SystemExit('custom code was run')")
    nothing_reaches_out.clear()
    subject = load(tmp_path / "folder")
    assert torch.equal(logits(subject.module), logits(module))
    assert said in " ".join(subject.notes)
    assert not [one for one in nothing_reaches_out if "foreign" in one or one.endswith("code.py")]


@pytest.mark.usefixtures("nothing_reaches_out")
def test_custom_code_is_refused_without_a_question(tmp_path):
    transformers_folder(tmp_path, model_type="mine", auto_map={"AutoConfig": "code.C"})
    with pytest.raises(UserError, match=r"model_type 'mine', which transformers .* does not have.* is never run"):
        load(tmp_path)
    transformers_folder(tmp_path, architectures=["MyModel"], auto_map={"AutoModel": "code.M"})
    with pytest.raises(UserError, match="names the architecture 'MyModel', which transformers does not have"):
        load(tmp_path)


TOWERS = {
    "SiglipVisionModel": lambda t: t.SiglipVisionModel(t.SiglipVisionConfig(**BODY)),
    "CLIPVisionModel": lambda t: t.CLIPVisionModel(t.CLIPVisionConfig(**BODY)),
    "Dinov2Model": lambda t: t.Dinov2Model(t.Dinov2Config(**BODY)),
    "DINOv3ViTModel": lambda t: t.DINOv3ViTModel(t.DINOv3ViTConfig(**BODY)),
    "ViTModel": lambda t: t.ViTModel(t.ViTConfig(**BODY)),
    "BeitModel": lambda t: t.BeitModel(t.BeitConfig(**BODY)),
    "ConvNextModel": lambda t: t.ConvNextModel(t.ConvNextConfig(**MAPS, num_stages=2, image_size=32)),
    "ResNetModel": lambda t: t.ResNetModel(t.ResNetConfig(**MAPS, embedding_size=8, layer_type="basic")),
    "CLIPModel": lambda t: t.CLIPModel(t.CLIPConfig(vision_config=BODY, text_config=TEXT)),
    "SiglipModel": lambda t: t.SiglipModel(t.SiglipConfig(vision_config=BODY, text_config=TEXT)),
}


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.usefixtures("nothing_reaches_out")
def test_a_tower_without_a_classifier_is_examined_without_accuracy(tmp_path, name):
    torch.manual_seed(0)
    TOWERS[name](transformers).eval().save_pretrained(tmp_path)
    subject = load(tmp_path)
    assert (subject.class_count, subject.classes) == (0, None)
    assert any("only its vision tower" in note for note in subject.notes) == name.endswith(("CLIPModel", "SiglipModel"))
    run = checkup(subject, images([Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]))
    assert "accuracy" not in run


OTHERS = {
    "BertModel": lambda t: t.BertModel(t.BertConfig(**TEXT)),
    "YolosForObjectDetection": lambda t: t.YolosForObjectDetection(t.YolosConfig(**{**BODY, "image_size": [32, 32]})),
    "ViTForMaskedImageModeling": lambda t: t.ViTForMaskedImageModeling(t.ViTConfig(**BODY)),
    "Dinov2Backbone": lambda t: t.Dinov2Backbone(t.Dinov2Config(**BODY)),
    "Siglip2VisionModel": lambda t: t.Siglip2VisionModel(
        t.Siglip2VisionConfig(**{key: value for key, value in BODY.items() if key != "image_size"}, num_patches=16)
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_classifier_or_tower_of_images_is_refused_by_name(tmp_path, name):
    OTHERS[name](transformers).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=name):
        load(tmp_path)


def test_a_timm_model_that_transformers_saved_is_timm_s(tmp_path):
    arguments = {key: value for key, value in SIZE.items() if key != "num_classes"}
    config = transformers.TimmWrapperConfig(
        architecture="vit_tiny_patch16_224", num_labels=3, model_args=arguments, id2label=dict(enumerate(NAMES))
    )
    module = transformers.TimmWrapperForImageClassification(config).eval()
    module.save_pretrained(tmp_path)
    subject = load(tmp_path)
    assert (subject.family, subject.classes) == ("timm/vit", tuple(NAMES))
    assert torch.equal(logits(subject.module), logits(module))
    changed(tmp_path, label_names=["LABEL_0", "LABEL_1", "LABEL_2"])
    assert load(tmp_path).classes is None
    bare = transformers.TimmWrapperModel(
        transformers.TimmWrapperConfig(architecture="vit_tiny_patch16_224", model_args=arguments)
    )
    bare.eval().save_pretrained(tmp_path / "bare")
    assert load(tmp_path / "bare").class_count == 0


MALFORMED = [
    b"",
    b"{",
    b"[1, 2]",
    b"3",
    b'"a"',
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"a":' * 60 + b"1" + b"}" * 60,
    b'{"a": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("write", FOLDERS)
@pytest.mark.parametrize("content", MALFORMED)
def test_a_configuration_that_is_no_object_is_named(tmp_path, write, content):
    write(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("write", "more", "message"),
    [
        (timm_folder, {"architecture": "vit_tinny_patch16_224"}, r"is it vit_tiny_patch16_224"),
        (timm_folder, {"architecture": 3}, "names the architecture 3"),
        (timm_folder, {"model_args": {"embed_dim": 10**9}}, "which is not a valid argument of a model"),
        (timm_folder, {"model_args": {"embed_dim": 6000}}, "with more weights .* than its files hold"),
        (timm_folder, {"model_args": {"depth": 90_000}}, "with more weights .* than its files hold"),
        (timm_folder, {"model_args": {"depth": -1}}, "that timm cannot make|do not fit|with more weights"),
        (timm_folder, {"model_args": {"num_heads": "three"}}, "that timm cannot make"),
        (timm_folder, {"model_args": {"img_size": 64}}, "do not fit"),
        (timm_folder, {"model_args": {"num_classes": 5}}, "do not fit"),
        (timm_folder, {"pretrained_cfg": {"std": [0, 0, 0]}}, "has std"),
        (timm_folder, {"pretrained_cfg": {"interpolation": "magic"}}, "has interpolation"),
        (transformers_folder, {"hidden_size": 10**9}, "which is not a valid argument of a model"),
        (transformers_folder, {"hidden_size": 6000}, "with more weights .* than its files hold"),
        (transformers_folder, {"num_hidden_layers": 900_000}, "with more weights .* than its files hold"),
        (transformers_folder, {"hidden_size": "many"}, "is not a valid ViTConfig"),
        (transformers_folder, {"image_size": 900_000}, "with more weights .* than its files hold"),
        (transformers_folder, {"patch_size": 0}, "config.json"),
        (transformers_folder, {"model_type": "vitt"}, r"is it vit"),
        (transformers_folder, {"architectures": ["ViTForImageClasification"]}, r"is it ViTForImageClassification"),
        (transformers_folder, {"num_labels": -4, "id2label": None}, "has -4 classes"),
    ],
)
def test_a_malformed_configuration_is_one_sentence(tmp_path, write, more, message):
    write(tmp_path)
    changed(tmp_path, **more)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({"id2label": {"0": "a", "2": "c"}}, ("a", "unnamed 1", "c")),
        ({"id2label": {"0": "a", "1": "b"}, "num_labels": 3}, ("a", "b", "unnamed 2")),
        ({"id2label": {"1": "a", "2": "b", "3": "c"}}, None),
        ({"id2label": None, "label2id": {"a": 0, "c": 2, "b": 1}}, ("a", "b", "c")),
        ({"id2label": ["LABEL_0", "LABEL_1", "LABEL_2"], "label2id": {"c": "0", "a": "1", "b": "2"}}, ("c", "a", "b")),
    ],
)
def test_classes_of_a_transformers_folder_stand_at_their_outputs(tmp_path, more, names):
    transformers_folder(tmp_path)
    facts = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**facts, "label2id": None, **more}))
    subject = load(tmp_path)
    assert (subject.class_count, subject.classes) == (3, names)


def test_accuracy_is_by_name(tmp_path):
    """The model knows three colours; folders are sorted by name, in another order than its classes."""
    module = timm_folder(tmp_path / "model")
    transform = load(tmp_path / "model").preprocessing.transform
    shown = [Image.new("RGB", (40, 40), colour) for colour in ("red", "green", "blue")]
    with torch.inference_mode():
        tokens = module.forward_features(torch.stack([transform(one) for one in shown]))
        features = module.forward_head(tokens, pre_logits=True)
    with torch.no_grad():  # the nearest of the three
        module.head.weight.copy_(features)
        module.head.bias.copy_(-features.square().sum(1) / 2)
    save_file(module.state_dict(), tmp_path / "model" / "model.safetensors")
    for name, picture in zip(NAMES, shown, strict=True):
        (tmp_path / "images" / name).mkdir(parents=True)
        picture.save(tmp_path / "images" / name / "0.png")
    run = checkup(load(tmp_path / "model"), images(tmp_path / "images"))
    assert float(run["accuracy/top1"]) == 1.0
