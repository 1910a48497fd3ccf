"""torchvision as a library: what is known of a model by its class and number of weights, and what is refused."""

from urllib.error import URLError

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import Outputs
from vitscope.models.torchvision.library import Torchvision


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet18", "3 x 224 x 224, bilinear, resize 256, mean 0.485/0.456/0.406, std 0.229/0.224/0.225"),
        ("swin_v2_t", "3 x 256 x 256, bicubic, resize 260, mean 0.485/0.456/0.406, std 0.229/0.224/0.225"),
    ],
)
def test_input_and_classes_of_a_published_architecture(name, text):
    module = Torchvision.create(name, pretrained=False)
    preprocessing = Torchvision.preprocessing(module)
    found = Torchvision.classes(module)
    assert preprocessing.text == text
    assert preprocessing.transform(Image.new("RGB", (300, 280))).shape == torch.Size(preprocessing.shape)
    assert (found.count, len(found.names), found.names[0]) == (1000, 1000, "tench")
    assert "assumed to be those of torchvision's weights" in found.notes[0]


@pytest.mark.parametrize(
    ("build", "shape", "count"),
    [
        (lambda: models.resnet18(num_classes=7), (3, 224, 224), 7),
        (lambda: models.squeezenet1_1(num_classes=5), (3, 224, 224), 5),
        (lambda: models.VisionTransformer(32, 8, 1, 2, 16, 16, num_classes=3), (3, 32, 32), 3),
    ],
)
def test_input_and_classes_of_an_architecture_of_ones_own(build, shape, count):
    module = build()
    assert Torchvision.preprocessing(module).shape == shape
    assert Torchvision.classes(module) == Outputs(count)


def test_a_model_without_classifier_has_no_classes():
    module = models.resnet18()
    module.fc = nn.Identity()
    assert Torchvision.classes(module) == Outputs(0)


def test_an_unknown_name_is_refused_with_near_ones():
    with pytest.raises(UserError, match=r"no classification model named 'resnet19'; .* resnet18"):
        Torchvision.create("resnet19", pretrained=False)


def test_weights_out_of_reach_are_named(monkeypatch):
    def unreachable(*_arguments, **_options):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(UserError, match=r"could not fetch the weights of 'resnet18'.*no route to host.*weight file"):
        Torchvision.create("resnet18", pretrained=True)
