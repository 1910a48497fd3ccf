"""``load``: every way to a subject, and every mistake in one sentence."""

import json
import re

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from vitscope import PixelInput, images, load, measure
from vitscope.diagnostics import default_diagnostics
from vitscope.measurement.errors import UserError
from vitscope.models.stream import Stream
from vitscope.models.subject import Unwatched
from vitscope.models.unit import UnitKind

INPUT = PixelInput(image=8, channels=1, mean=(0.5,), std=(0.5,))


class Block(nn.Module):
    def __init__(self, entering: int, channels: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(entering, channels, 3, stride, 1)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.conv(x))


class Plain(nn.Module):
    """A model of nobody's library: two stages of two blocks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 1)
        self.stages = nn.ModuleList(
            [nn.Sequential(Block(4, 4, 1), Block(4, 4, 1)), nn.Sequential(Block(4, 8, 2), Block(8, 8, 1))]
        )
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))


class Twice(Plain):
    def forward(self, x):
        return super().forward(x) + super().forward(x)


class Grids(Unwatched):
    def __init__(self):
        self.grids: dict[int, tuple[int, int]] = {}

    def stream(self, layer: int, stream: Stream) -> None:
        self.grids[layer] = stream.grid


def test_a_plain_module_is_read_at_its_blocks():
    torch.manual_seed(0)  # at random weights the test pictures may not tell how every block is laid out
    module = Plain()
    subject = load(module, input=INPUT, name="mine")
    assert [place.name for place in subject.places] == ["stages.0.0", "stages.0.1", "stages.1.0", "stages.1.1"]
    kinds = [place.kind for place in subject.places]
    assert kinds == [UnitKind.CONVOLUTION, UnitKind.CONVOLUTION, UnitKind.DOWNSAMPLING, UnitKind.CONVOLUTION]
    assert [place.stage for place in subject.places] == [0, 0, 1, 1]
    assert subject.class_count == 10
    seen, pixels = Grids(), torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(subject.anatomy.walk(pixels, seen), module(pixels))
    assert seen.grids == {0: (8, 8), 1: (8, 8), 2: (8, 8), 3: (4, 4), 4: (4, 4)}
    assert not any(part._forward_hooks for part in module.modules())


def test_what_a_plain_module_cannot_give_is_said():
    run = measure(load(Plain(), input=INPUT, name="mine"), images("digits", limit=20), default_diagnostics())
    assert "fourier-spectrum" in run
    assert run.skipped["attention-entropy"] == (
        "mine has no attention that this reads (its units: convolution, downsampling)"
    )


def test_units_may_be_named():
    subject = load(Plain(), input=INPUT, units=["stem", "stages.1"])
    assert [place.name for place in subject.places] == ["stem", "stages.1"]


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (Plain, {}, "Plain belongs to no known library, so its input is not known: give it as input="),
        (Plain, {"units": ["layer9"], "input": INPUT}, "Plain has no submodule 'layer9'; it has stem, stages"),
        (Plain, {"units": ["head"], "input": INPUT}, "The unit 'head' returns no feature map"),
        (Twice, {"units": ["stem"], "input": INPUT}, "The unit 'stem' ran 2 times in one pass; a unit must run once"),
        (Plain, {"input": INPUT, "classes": ["a", "b"]}, "2 class names were given for a model of 10 classes"),
        (Plain, {"input": INPUT, "weights": "none.pt"}, "There is no checkpoint file none.pt"),
        (lambda: nn.Conv2d(1, 2, 3), {"input": INPUT}, "Conv2d returns a tensor of shape (1, 2, 6, 6); a classifier"),
        (lambda: "nonsense/vit", {}, "'nonsense/vit' is no file, saved folder or model name"),
        (lambda: "vit-giant", {}, "vitscope has no model named 'vit-giant'; it has: digits, vit-micro"),
        (lambda: "timm/vit_tiny_patch99", {}, "timm has no model named 'vit_tiny_patch99'; some it has: "),
        (lambda: "torchvision/nothing", {}, "nothing"),
        (lambda: "timm/vit_tiny_patch16_224", {"crop": 1.5}, "The crop is 1.5; give the share of the shorter side"),
        (lambda: "digits", {"crop": 0.9}, "A crop (0.9) can be given for models of timm and torchvision"),
        (lambda: "vit-micro", {"pretrained": True}, "vit-micro has no pretrained weights; train it"),
    ],
)
def test_a_mistake_is_one_sentence(module, arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        load(module(), **arguments)


def test_weights_that_do_not_fit_are_named(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", depth=1)
    state = {name: value for name, value in model.state_dict().items() if name != "head.bias"}
    save_file({**state, "extra": torch.zeros(1)}, tmp_path / "some.safetensors")
    with pytest.raises(UserError, match=r"do not fit VisionTransformer: .*missing .* and \d+ more"):
        load("timm/vit_tiny_patch16_224", weights=tmp_path / "some.safetensors")


def test_a_file_that_does_not_say_what_it_is_asks_for_the_architecture(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "some.safetensors")
    with pytest.raises(UserError, match="does not say which model its weights belong to; name the architecture"):
        load(tmp_path / "some.safetensors")


def test_a_pickled_model_is_never_run(tmp_path):
    torch.save(Plain(), tmp_path / "model.pt")
    with pytest.raises(UserError, match="a pickled model is never run"):
        load("timm/resnet18", weights=tmp_path / "model.pt")


def test_a_state_dict_is_loaded(tmp_path):
    model = timm.create_model("resnet18", num_classes=1000)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    subject = load("timm/resnet18", weights=tmp_path / "state.pt")
    assert torch.equal(subject.module.fc.weight, model.fc.weight)
    assert subject.weights == str(tmp_path / "state.pt")


def test_a_folder_of_unknown_kind_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"colour": "blue"}))
    with pytest.raises(UserError, match="names no architecture of timm or transformers; its keys: colour"):
        load(tmp_path)


def test_the_embedded_model_is_trained():
    subject = load()
    run = measure(subject, images("digits"), [d for d in default_diagnostics() if d.name == "accuracy"])
    assert run["accuracy"].item() > 0.96
