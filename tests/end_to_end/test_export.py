"""``vitscope export``: files that other programs run, each compared, and nothing where one is not the model."""

import json
import re

import onnx
import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification
from typer.testing import CliRunner

import vitscope
from vitscope import PixelInput, UserError
from vitscope.cli import app
from vitscope.deploy import export, exporting, onnx_file
from vitscope.deploy.own_process import logits_of_program
from vitscope.deploy.recipe import changes_nothing, recipe_lines, recipe_of, recipe_text
from vitscope.interventions.lesion import Lesion
from vitscope.interventions.low_rank import LowRank
from vitscope.interventions.remove_heads import RemoveHeads
from vitscope.interventions.remove_neurons import RemoveNeurons
from vitscope.interventions.remove_units import RemoveUnits
from vitscope.interventions.token_keep import TokenKeep
from vitscope.interventions.token_ranking import AtRandom
from vitscope.models.checkpoint import read_checkpoint

PICTURES = vitscope.images("digits", limit=20)


def edited():
    return TokenKeep(0.5, 4)(RemoveNeurons(((2, (0, 1, 5)),))(Lesion((7,))(vitscope.load("digits"))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "better"
    return path, edited(), vitscope.export(edited(), f"{path}/", PICTURES)


def pixels(subject):
    (batch,) = PICTURES.batches(subject.preprocessing.transform, 20)
    return batch.pixels


def wanted(subject):
    with torch.no_grad():
        return subject(pixels(subject))


def test_a_folder_has_every_form_and_each_gives_the_logits(folder):
    path, subject, result = folder
    assert sorted(one.name for one in path.iterdir()) == ["README.md", "model.onnx", "model.pt2", "model.safetensors"]
    assert [one.path.name for one in result.files] == ["model.safetensors", "model.pt2", "model.onnx"]
    assert result.notes == ()
    assert result.difference < 1e-5
    assert {one.compared for one in result.files} == {24}
    assert {one.agreement for one in result.files} == {1.0}
    logits, shown = wanted(subject), pixels(subject)
    session = onnxruntime.InferenceSession(path / "model.onnx", providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"images": shown.numpy()})[0])
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)
    program = torch.export.load(path / "model.pt2").module()
    torch.testing.assert_close(program(shown), logits, rtol=1e-5, atol=1e-5)
    again = vitscope.load(path / "model.safetensors")
    torch.testing.assert_close(wanted(again), logits, rtol=1e-5, atol=1e-5)
    assert [type(edit).__name__ for edit in again.edits] == ["Lesion", "Keeping"]


def test_the_lines_of_the_readme_load_each_file(folder, monkeypatch):
    path, subject, _ = folder
    monkeypatch.chdir(path)
    blocks = [part.split("```")[0] for part in (path / "README.md").read_text().split("```python\n")[1:]]
    assert len(blocks) == 3
    for block in blocks:
        held = {"images": pixels(subject).numpy() if "onnxruntime" in block else pixels(subject)}
        exec(block, held)
        found = torch.as_tensor(held["logits"]).detach()
        torch.testing.assert_close(found, wanted(subject), rtol=1e-4, atol=1e-4)


def test_the_files_say_what_they_are(folder):
    path, subject, _ = folder
    model = onnx.load(path / "model.onnx")
    told = {one.key: one.value for one in model.metadata_props}
    assert told["model"] == "digits"
    assert json.loads(told["classes"]) == list(subject.classes)
    shown = json.loads(told["preprocessing"])
    assert (shown["height"], shown["width"], shown["colours"]) == (8, 8, "grey")
    assert shown["mean"] == list(subject.preprocessing.mean)
    assert [edit["is"] for edit in json.loads(told["edits"])] == ["lesion", "keeping"]
    assert [one.version for one in model.opset_import if one.domain == ""] == [18]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    extra = {"vitscope.json": ""}
    torch.export.load(path / "model.pt2", extra_files=extra)
    assert json.loads(extra["vitscope.json"])["model"] == "digits"


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_quantised_file_is_smaller_and_keeps_its_metadata(kind, folder, tmp_path):
    path, subject, _ = folder
    result = vitscope.export(subject, tmp_path / "q.onnx", PICTURES, quantise=kind, limit=20)
    (file,) = result.files
    assert file.size < 0.4 * (path / "model.onnx").stat().st_size
    assert 1e-4 < file.difference < 0.3
    assert file.agreement > 0.9
    assert file.compared == 20
    told = {one.key: one.value for one in onnx.load(file.path).metadata_props}
    assert json.loads(told["classes"]) == list(subject.classes)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_file_that_is_not_the_model_is_not_written(suffix, monkeypatch, tmp_path):
    other = vitscope.load("vit-micro", class_count=10, image_size=8, channels=1, options={"patch": 1})
    trace = exporting.trace_program
    monkeypatch.setattr(exporting, "trace_program", lambda _, shape: trace(other.module, shape))
    (tmp_path / f"m{suffix}").write_text("before")
    with pytest.raises(UserError, match=rf"m\{suffix} was not written: when it is loaded again, its logits differ by"):
        vitscope.export(vitscope.load("digits"), tmp_path / f"m{suffix}")
    assert [one.name for one in tmp_path.iterdir()] == [f"m{suffix}"]
    assert (tmp_path / f"m{suffix}").read_text() == "before"


def test_edits_that_draw_numbers_are_refused_by_name(tmp_path):
    subject = TokenKeep(0.5, 4, AtRandom(1))(vitscope.load("digits"))
    for name in ("m.onnx", "m.pt2"):
        with pytest.raises(UserError, match=r"digits, edited by Keeping, cannot be expressed by torch\.export"):
            vitscope.export(subject, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_not_fit_into_an_onnx_file_lie_beside_it(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_file, "LARGEST", 1000)
    result = vitscope.export(vitscope.load("digits"), tmp_path / "m.onnx")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert result.files[0].size == sum(one.stat().st_size for one in tmp_path.iterdir())
    assert (tmp_path / "m.onnx").stat().st_size < (tmp_path / "m.onnx.data").stat().st_size


def test_a_module_without_a_name_is_exported_and_says_how_it_is_loaded(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(), nn.Linear(4, 5))
    subject = vitscope.load(module, input=PixelInput(8, 3, (0.5,), (0.5,)), units=[])
    result = vitscope.export(subject, tmp_path / "m.safetensors")
    assert result.difference == 0
    assert "load it as vitscope.load(module, weights='m.safetensors')" in result.notes[0]


def small_vit():
    return vitscope.load("timm/test_vit", class_count=5)


@pytest.mark.parametrize(
    ("changes", "plain"),
    [
        ((RemoveUnits((3, 4)),), True),
        (
            (
                RemoveUnits((3, 4)),
                RemoveNeurons(((6, tuple(range(16))),)),
                RemoveHeads(((7, (1,)),)),
                LowRank(0.25, (10,)),
            ),
            False,
        ),
    ],
    ids=["even", "uneven"],
)
def test_a_recipe_makes_the_model_without_this_project(changes, plain, tmp_path):
    subject = small_vit()
    for change in changes:
        subject = change(subject)
    vitscope.save(subject, tmp_path / "model.safetensors")
    recipe = recipe_of(subject, read_checkpoint(tmp_path / "model.safetensors"))
    assert recipe is not None
    assert changes_nothing(recipe) == plain
    assert recipe["arguments"]["depth"] == 5
    (tmp_path / "recipe.json").write_text(recipe_text(recipe))
    shown = torch.randn(3, *subject.preprocessing.shape, generator=torch.Generator().manual_seed(0))
    (found,) = logits_of_program(recipe_lines(recipe), tmp_path / "recipe.json", (shown,))
    with torch.no_grad():
        torch.testing.assert_close(found, subject(shown), rtol=1e-4, atol=1e-5)
    if plain:
        model = timm.create_model("test_vit", **recipe["arguments"])
        model.load_state_dict(load_file(tmp_path / "model.safetensors"))


def test_blocks_that_no_argument_can_say_become_identities(tmp_path):
    subject = vitscope.load("torchvision/resnet18", class_count=5)
    cut = Lesion((2,))(subject)
    vitscope.save(cut, tmp_path / "model.safetensors")
    recipe = recipe_of(cut, read_checkpoint(tmp_path / "model.safetensors"))
    assert recipe["identity"] == (subject.places[1].name,)
    assert recipe_of(TokenKeep(0.5, 3)(small_vit()), read_checkpoint(tmp_path / "model.safetensors")) is None


def test_a_transformers_model_becomes_a_folder_of_transformers(tmp_path, monkeypatch):
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=48,
        image_size=16,
        patch_size=8,
        num_labels=3,
    )
    shown = PixelInput(16, 3, (0.5,), (0.5,))
    subject = vitscope.load(ViTForImageClassification(config), input=shown, classes=["cat", "dog", "owl"])
    cut = RemoveUnits((3, 4))(RemoveNeurons(tuple((layer, tuple(range(8))) for layer in (2, 4, 6)))(subject))
    monkeypatch.setattr(export, "SUFFIXES", (".safetensors",))
    result = vitscope.export(cut, f"{tmp_path}/better/")
    assert [one.path.name for one in result.files] == ["model.safetensors", "transformers"]
    assert 'ViTForImageClassification.from_pretrained("transformers")' in (tmp_path / "better/README.md").read_text()
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "better" / "transformers").eval()
    assert (model.config.num_hidden_layers, model.config.intermediate_size) == (2, 40)
    assert model.config.id2label == {0: "cat", 1: "dog", 2: "owl"}
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model(images).logits, cut(images), rtol=1e-5, atol=1e-6)
    assert vitscope.load(tmp_path / "better" / "transformers").classes == ("cat", "dog", "owl")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["digits", "m.tflite"], "m.tflite is no kind of file that a model is exported to; give .onnx"),
        (["digits", "m.pt2", "--quantise", "dynamic"], "Only .onnx files are quantised"),
        (["digits", "m.onnx", "--quantise", "static"], "--quantise static takes the ranges of activations from images"),
        (["digits", "m.onnx", "--quantise", "half"], "--quantise is one of none, dynamic, static, not 'half'"),
        (["digits", "m.onnx", "--images", "nowhere/"], "--images: nowhere/ does not exist"),
        (["digits", "m.onnx", "--limit", "0"], "--limit"),
        (["digit", "m.onnx"], "digit"),
        (["digits", "s3://bucket/m.onnx"], "is a URL; give a path"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_sentence(given, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export", *given])
    assert result.exit_code == 2
    assert said in result.output.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"m.onnx needs onnxruntime and onnxscript; .*pip install 'vitscope\[onnx\]'"):
        vitscope.export(vitscope.load("digits"), tmp_path / "m.onnx")
    monkeypatch.setattr(export, "SUFFIXES", (".onnx", ".safetensors"))
    result = vitscope.export(vitscope.load("digits"), f"{tmp_path}/all/")
    assert [one.path.name for one in result.files] == ["model.safetensors"]
    assert result.notes[0].startswith("model.onnx was left out: model.onnx needs onnxruntime")


def test_the_command_exports_and_shows_what_was_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vitscope.save(edited(), "model.safetensors")
    given = ["export", "model.safetensors", "better.pt2", "--images", "digits", "--limit", "9"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if "better.pt2" in line)
    assert re.search(r"better\.pt2 +1\.4\d +(nothing|\d\.?\d*e-0[5-9] of the largest) +13 +100\.0%", line)
    assert "next: vitscope bench model.safetensors better.pt2" in result.stderr
    assert (tmp_path / "better.pt2").exists()
