"""Edited subjects saved as ordinary models: the same logits from a file that anything can load, or a plain refusal."""

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from vitscope.data import images
from vitscope.interventions.attention_shape import AttentionShape
from vitscope.interventions.bypass import irremovable_layers
from vitscope.interventions.direction import RandomDirection
from vitscope.interventions.frequency_noise import FrequencyNoise
from vitscope.interventions.head_lesion import HeadLesion, head_counts
from vitscope.interventions.lesion import Lesion, mean_branches
from vitscope.interventions.token_keep import TokenKeep
from vitscope.interventions.weight_displacement import WeightDisplacement
from vitscope.interventions.weight_prune import WeightPrune
from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, Example
from vitscope.models.baked import bake
from vitscope.models.catalogue import import_installed_adapters
from vitscope.models.load import load
from vitscope.models.pixels import PixelInput
from vitscope.models.saved import save
from vitscope.models.subject import Preprocessing, Subject, Unwatched

import_installed_adapters()
FAMILIES = [(adapter, adapter.examples()[0]) for _, adapter in ADAPTERS.items()]
INPUT = PixelInput(32, 3, (0.5,), (0.25,))
IDS = [adapter.name for adapter, _ in FAMILIES]


def of_family(adapter, example: Example) -> Subject:
    torch.manual_seed(0)
    module = example.build().eval()
    with torch.no_grad():
        for parameter in module.parameters():  # heads, biases and last norms often begin at zero
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return Subject(
        "x", adapter.name, module, adapter.anatomy(module), Preprocessing(example.image_shape, torch.tensor, ""), 7
    )


def logits(subject, seed=1):
    shape = (3, *subject.preprocessing.shape)
    with torch.no_grad():
        return subject.anatomy.walk(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), Unwatched())


@pytest.mark.parametrize(("adapter", "example"), FAMILIES, ids=IDS)
def test_a_family_saves_without_a_unit_and_with_other_weights(adapter, example, tmp_path):
    subject = of_family(adapter, example)
    before = subject.fingerprint
    free = [layer for layer in range(1, len(subject.places) + 1) if layer not in irremovable_layers(subject)]
    edited = WeightPrune(0.2)(WeightDisplacement(RandomDirection(), alpha=0.1)(Lesion(tuple(free[-1:]))(subject)))
    saved = save(edited, tmp_path / "m.safetensors")
    assert len(saved.zeroed) > 0
    fresh = example.build().eval()
    fresh.load_state_dict(load_file(saved.path))
    again = of_family(adapter, example)
    again = Subject("y", again.family, fresh, adapter.anatomy(fresh), again.preprocessing, 7)
    torch.testing.assert_close(logits(again), logits(edited), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits(again), logits(subject), rtol=1e-3, atol=1e-4)
    assert subject.fingerprint == before


@pytest.mark.parametrize("family", ["vitscope/vit", "timm/cait", "torchvision/swin", "transformers/vit"])
def test_heads_that_are_left_out_are_zeros_in_the_projection(family):
    adapter, example = FAMILIES[IDS.index(family)]
    subject = of_family(adapter, example)
    several = [layer for layer, count in head_counts(subject).items() if count > 1]
    edited = HeadLesion(tuple((layer, (0,)) for layer in several[:2]))(subject)
    module, zeroed = bake(edited)
    assert len(zeroed) == 2
    plain = Subject("y", subject.family, module, adapter.anatomy(module), subject.preprocessing, 7)
    torch.testing.assert_close(logits(plain), logits(edited), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("digits", WeightPrune(0.5)),
        ("digits", Lesion((1, 4))),
        ("digits", HeadLesion(((1, (0,)),))),
        ("timm/resnet18_cifar", WeightDisplacement(RandomDirection(), alpha=0.2)),
    ],
)
def test_what_has_a_name_loads_again_by_its_file_alone(name, change, tmp_path):
    state = torch.get_rng_state()
    edited = change(load(name))
    torch.set_rng_state(state)
    saved = save(edited, tmp_path / "m.safetensors")
    assert torch.equal(state, torch.get_rng_state())
    assert saved.model is not None
    again = load(tmp_path / "m.safetensors")
    torch.testing.assert_close(logits(again), logits(edited), rtol=1e-5, atol=1e-5)
    assert again.classes == edited.classes
    assert again.preprocessing.text == edited.preprocessing.text
    assert again.edits == ()


def test_a_saved_model_saves_again_and_keeps_what_it_is(tmp_path):
    save(WeightPrune(0.3)(load("digits")), tmp_path / "one.safetensors")
    loaded = Lesion((2,))(load(tmp_path / "one.safetensors"))
    saved = save(loaded, tmp_path / "two.safetensors")
    torch.testing.assert_close(logits(load(saved.path)), logits(loaded), rtol=1e-5, atol=1e-5)


def test_a_module_that_was_handed_over_says_what_it_is_where_timm_knows(tmp_path):
    small = {"num_classes": 5, "img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 3}
    edited = Lesion((2,))(load(timm.create_model("vit_tiny_patch16_224", **small), input=INPUT))
    saved = save(edited, tmp_path / "m.safetensors")
    assert saved.model is None  # its depth and width are not to be had from timm's configuration
    plain = timm.create_model("vit_tiny_patch16_224", **small).eval()
    plain.load_state_dict(load_file(saved.path))
    torch.testing.assert_close(logits(load(plain, input=INPUT)), logits(edited), rtol=1e-5, atol=1e-5)
    standard = load(timm.create_model("resnet10t", num_classes=5), input=INPUT)
    assert save(standard, tmp_path / "n.safetensors").model == "timm/resnet10t"
    torch.testing.assert_close(logits(load(tmp_path / "n.safetensors")), logits(standard), rtol=1e-5, atol=1e-5)


class Plain(nn.Module):
    """Residual blocks that nobody described."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 5)
        self.blocks = nn.ModuleList(PlainBlock() for _ in range(3))

    def forward(self, pixels):
        x = self.stem(pixels)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class PlainBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.GELU(), nn.Conv2d(6, 6, 1))

    def forward(self, x):
        return x + self.layers(x)


def test_a_plain_modules_blocks_are_written_into_their_last_weights(tmp_path):
    edited = Lesion((1, 3))(load(Plain(), input=INPUT, units=["blocks.0", "blocks.1", "blocks.2"]))
    saved = save(edited, tmp_path / "m.safetensors")
    assert saved.model is None
    assert saved.zeroed == tuple(f"blocks.{i}.layers.2.{part}" for i in (0, 2) for part in ("weight", "bias"))
    plain = Plain()
    plain.load_state_dict(load_file(saved.path))
    torch.testing.assert_close(logits(load(plain, input=INPUT)), logits(edited))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (TokenKeep(0.5, 2), "at layer"),
        (FrequencyNoise(0.5), "before its first unit"),
        (AttentionShape("uniform", layers=(1,)), "at layer 1"),
    ],
    ids=["tokens", "noise", "shape"],
)
def test_what_weights_cannot_carry_is_refused(change, where, tmp_path):
    with pytest.raises(UserError, match=f"digits cannot be saved as an ordinary model.*{where}"):
        save(change(load("digits")), tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_means_that_differ_from_token_to_token_are_refused(tmp_path):
    subject = load("digits")
    with pytest.raises(UserError, match="at layer 2"):
        save(mean_branches(subject, images("digits", limit=20), (2,))(subject), tmp_path / "m.safetensors")


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"m\.safetensors"):
        save(load("digits"), tmp_path / "m.pt")
