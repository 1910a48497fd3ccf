"""Edited subjects saved to a file: the same subject from it, edits included, or a plain refusal."""

import json

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import VisionTransformer

from vitscope.data import images
from vitscope.interventions.attention_shape import AttentionShape
from vitscope.interventions.bypass import irremovable_layers
from vitscope.interventions.direction import RandomDirection
from vitscope.interventions.frequency_noise import FrequencyNoise
from vitscope.interventions.head_lesion import HeadLesion, head_counts
from vitscope.interventions.lesion import Lesion, mean_branches
from vitscope.interventions.remove_neurons import RemoveNeurons
from vitscope.interventions.remove_units import Affine, RemoveUnits
from vitscope.interventions.token_keep import TokenKeep
from vitscope.interventions.token_merge import TokenMerge
from vitscope.interventions.token_ranking import AtRandom, ByMask, ByNorm, ByPixels, Worst
from vitscope.interventions.weight_displacement import WeightDisplacement
from vitscope.interventions.weight_prune import WeightPrune
from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, Example
from vitscope.models.baked import bake
from vitscope.models.catalogue import import_installed_adapters
from vitscope.models.edit import OnInput, with_edit
from vitscope.models.load import load
from vitscope.models.pixels import PixelInput
from vitscope.models.saved import load_again, save
from vitscope.models.shortened import shorten
from vitscope.models.subject import Preprocessing, Subject, Unwatched
from vitscope.models.unit import UnitKind

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


def with_fewer_tokens(subject):
    """The subject with half of its patches from the second unit on, if its family allows that."""
    try:
        return TokenKeep(0.5, 2)(subject)
    except UserError:
        return subject


def smaller(subject):
    """The subject without two neurons of its first MLP, if its family allows that."""
    layers = [layer for layer, place in enumerate(subject.places, start=1) if place.kind is UnitKind.MLP]
    try:
        return RemoveNeurons(((layers[0], (0, 3)),))(subject) if layers else subject
    except UserError:
        return subject


def test_most_families_have_narrower_layers_and_fewer_tokens_here():
    made = [of_family(adapter, example) for adapter, example in FAMILIES]
    assert sum(smaller(one).module is not one.module for one in made) > len(made) / 2
    assert sum(with_fewer_tokens(one).edits != () for one in made) > len(made) / 3


@pytest.mark.parametrize(("adapter", "example"), FAMILIES, ids=IDS)
def test_a_family_saves_without_a_unit_and_with_other_weights(adapter, example, tmp_path):
    subject = of_family(adapter, example)
    before = subject.fingerprint
    free = [layer for layer in range(1, len(subject.places) + 1) if layer not in irremovable_layers(subject)]
    edited = WeightPrune(0.2)(WeightDisplacement(RandomDirection(), alpha=0.1)(Lesion(tuple(free[-1:]))(subject)))
    edited = smaller(with_fewer_tokens(edited))
    saved = save(edited, tmp_path / "m.safetensors", original=subject)
    unit = subject.module.get_submodule(subject.places[free[-1] - 1].name)
    gone = {f"{subject.places[free[-1] - 1].name}.{name}" for name, _ in unit.named_parameters()}
    held = load_file(saved.path)
    assert gone <= set(saved.absent)
    assert held.keys() == subject.module.state_dict().keys() - set(saved.absent)  # the file really is smaller
    shown = PixelInput(example.image_shape[1:], example.image_shape[0], (0.5,), (0.25,))
    again = load(example.build(), weights=saved.path, input=shown)
    torch.testing.assert_close(logits(again), logits(edited), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(logits(again), logits(subject), rtol=1e-3, atol=1e-4)
    assert again.edits == edited.edits
    assert sum(one.numel() for one in held.values()) < sum(one.numel() for one in subject.module.state_dict().values())
    assert any("which are zero here" in note for note in again.notes)
    assert all(not again.module.state_dict()[name].any() for name in saved.absent)
    assert subject.fingerprint == before


@pytest.mark.parametrize("family", ["vitscope/vit", "timm/cait", "torchvision/swin", "transformers/vit"])
def test_heads_that_are_left_out_are_zeros_in_the_projection_of_a_training_start(family):
    adapter, example = FAMILIES[IDS.index(family)]
    subject = of_family(adapter, example)
    several = [layer for layer, count in head_counts(subject).items() if count > 1]
    edited = HeadLesion(tuple((layer, (0,)) for layer in several[:2]))(subject)
    module, zeroed = bake(edited)
    assert len(zeroed) == 2
    plain = Subject("y", subject.family, module, adapter.anatomy(module), subject.preprocessing, 7)
    torch.testing.assert_close(logits(plain), logits(edited), rtol=1e-4, atol=1e-5)


MASK = torch.arange(64.0).sin().view(8, 8)
MAPS = tuple(Affine(*(torch.randn(shape, generator=torch.Generator().manual_seed(3)).double() * 0.1 for shape in sides))
             for sides in (((64,), (64, 64)), ((64,),)))  # fmt: skip


NARROW = RemoveNeurons(tuple((layer, tuple(range(64))) for layer in range(2, 13, 2)))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("digits", (WeightPrune(0.5),)),
        ("digits", (Lesion((1, 4)),)),
        ("digits", (HeadLesion(((1, (0,)),)),)),
        ("digits", (TokenKeep(0.5, 2),)),
        ("digits", (TokenKeep(0.5, 2, ByMask(MASK)), TokenKeep(0.5, 5, Worst(ByNorm())), TokenMerge(3, (9,)))),
        ("digits", (TokenKeep(0.7, 3, AtRandom(4)),)),
        ("digits", (FrequencyNoise(0.5, width=1.0),)),
        ("digits", (AttentionShape("uniform", layers=(1,)), RemoveUnits((2, 5), MAPS))),
        ("digits", (RemoveNeurons(((2, (0, 5, 7)), (4, (1,)))), Lesion((3,)))),
        ("timm/resnet18_cifar", (WeightDisplacement(RandomDirection(), alpha=0.2),)),
        ("torchvision/resnet18", (Lesion((2,)),)),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(type(one).__name__ for one in value),
)
def test_what_has_a_name_loads_again_by_its_file_alone(name, changes, tmp_path):
    edited = load(name)
    for change in changes:
        edited = change(edited)
    state = torch.get_rng_state()
    saved = save(edited, tmp_path / "m.safetensors")
    assert torch.equal(state, torch.get_rng_state())
    assert saved.model is not None
    again = load(tmp_path / "m.safetensors")
    torch.testing.assert_close(logits(again), logits(edited), rtol=1e-5, atol=1e-5)
    assert again.classes == edited.classes
    assert again.preprocessing.text == edited.preprocessing.text
    assert [type(edit) for edit in again.edits] == [type(edit) for edit in edited.edits]


def test_a_saved_model_saves_again_and_keeps_what_it_is(tmp_path):
    save(WeightPrune(0.3)(load("digits")), tmp_path / "one.safetensors")
    loaded = Lesion((2,))(TokenKeep(0.5, 4)(load(tmp_path / "one.safetensors")))
    saved = save(loaded, tmp_path / "two.safetensors")
    twice = save(HeadLesion(((9, (1,)),))(load(saved.path)), tmp_path / "three.safetensors")
    assert twice.absent == saved.absent
    assert load(twice.path).edits == (*loaded.edits, HeadLesion(((9, (1,)),)))
    torch.testing.assert_close(logits(load(saved.path)), logits(loaded), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(load(twice.path)), logits(HeadLesion(((9, (1,)),))(loaded)), rtol=1e-5, atol=1e-5)


def test_without_edits_the_file_is_an_ordinary_checkpoint(tmp_path):
    subject = WeightPrune(0.3)(load("digits"))
    saved = save(subject, tmp_path / "m.safetensors")
    assert load_file(saved.path).keys() == subject.module.state_dict().keys()
    assert saved.absent == ()
    assert "amendment" not in facts(saved.path)


def test_a_module_that_was_handed_over_says_what_it_is_where_timm_knows(tmp_path):
    small = {"num_classes": 5, "img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 3}
    edited = Lesion((2,))(load(timm.create_model("vit_tiny_patch16_224", **small), input=INPUT))
    saved = save(edited, tmp_path / "m.safetensors")
    assert saved.model == "timm/vit_tiny_patch16_224"  # its width is in no configuration, but in every shape
    told = facts(saved.path)
    assert told["arguments"]["depth"] == 2
    assert told["amendment"]["changes"]["blocks.0.attn.qkv"] == {"in_features": 24, "out_features": 72}
    torch.testing.assert_close(logits(load(saved.path)), logits(edited), rtol=1e-5, atol=1e-5)
    standard = load(timm.create_model("resnet10t", num_classes=5), input=INPUT)
    assert save(standard, tmp_path / "n.safetensors").model == "timm/resnet10t"
    torch.testing.assert_close(logits(load(tmp_path / "n.safetensors")), logits(standard), rtol=1e-5, atol=1e-5)


def test_a_smaller_module_without_a_name_is_saved_against_its_original(tmp_path):
    def own():
        torch.manual_seed(0)
        return VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=3, hidden_dim=24, mlp_dim=96)

    subject = load(own(), input=INPUT)
    edited = Lesion((3,))(RemoveNeurons(((2, tuple(range(40))),))(subject))
    saved = save(edited, tmp_path / "m.safetensors", original=subject)
    assert saved.model is None
    again = load(own(), weights=saved.path, input=INPUT)
    assert again.module.encoder.layers[0].mlp[0].out_features == 56
    torch.testing.assert_close(logits(again), logits(edited), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        ((RemoveUnits((3, 4)),), {"depth": 5, "mlp_ratio": 4.0}),
        ((Lesion((1, 2)), Lesion((11, 12))), {"depth": 4, "mlp_ratio": 4.0}),
        ((NARROW, RemoveUnits((3, 4))), {"depth": 5, "mlp_ratio": 3.0}),
        ((NARROW,), {"depth": 6, "mlp_ratio": 3.0}),
    ],
    ids=["block", "two blocks", "block and width", "width"],
)
def test_what_the_architecture_can_say_is_an_ordinary_checkpoint(changes, arguments, tmp_path):
    edited = load("digits")
    for change in changes:
        edited = change(edited)
    saved = save(edited, tmp_path / "m.safetensors")
    told = facts(saved.path)
    assert "amendment" not in told
    assert {name: told["arguments"][name] for name in arguments} == arguments
    again = load(saved.path)
    assert again.edits == ()
    assert len(again.places) == 2 * arguments["depth"]
    torch.testing.assert_close(logits(again), logits(edited), rtol=1e-5, atol=1e-5)


def test_uneven_widths_stay_changes_of_the_shorter_model(tmp_path):
    edited = RemoveNeurons(((2, (0, 5, 7)),))(RemoveUnits((3, 4))(load("digits")))
    told = facts(save(edited, tmp_path / "m.safetensors").path)
    assert told["arguments"]["depth"] == 5
    assert told["amendment"]["edits"] == []
    assert told["amendment"]["changes"].keys() == {"blocks.0.mlp.0", "blocks.0.mlp.2"}
    torch.testing.assert_close(logits(load(tmp_path / "m.safetensors")), logits(edited), rtol=1e-5, atol=1e-5)


def test_a_block_that_is_left_out_for_its_mean_is_not_dropped(tmp_path):
    subject = load("digits")
    edited = mean_branches(subject, images("digits", limit=20), (3, 4))(subject)
    assert shorten(edited) is None
    saved = save(edited, tmp_path / "m.safetensors")
    assert len(load(saved.path).places) == 12
    torch.testing.assert_close(logits(load(saved.path)), logits(edited), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "left"),
    [
        ("test_vit", {"depth": 5}, ("blocks.1.attn", "blocks.1.mlp")),
        ("test_convnext", {"depths": [1, 2, 2, 2]}, ("stages.2.blocks.1", "stages.2.blocks.3")),
    ],
)
def test_timm_loads_the_shorter_model_as_usual(name, options, left, tmp_path):
    subject = load(f"timm/{name}", class_count=7)
    names = [place.name for place in subject.places]
    edited = Lesion(tuple(names.index(one) + 1 for one in left))(subject)
    saved = save(edited, tmp_path / "m.safetensors")
    told = facts(saved.path)["arguments"]
    plain = timm.create_model(name, **told).eval()
    plain.load_state_dict(load_file(saved.path))
    with torch.no_grad():
        noise = torch.randn(2, *subject.preprocessing.shape)
        torch.testing.assert_close(plain(noise), edited(noise), rtol=1e-4, atol=1e-5)
    assert options.items() <= told.items()


def facts(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["vitscope"])


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


@pytest.mark.parametrize("means", [False, True])
def test_a_plain_modules_blocks_are_not_in_the_file_and_its_units_are(means, tmp_path):
    subject = load(Plain(), input=INPUT, units=["blocks.0", "blocks.1", "blocks.2"])
    edited = Lesion((1, 3))(subject)
    if means:
        pictures = (torch.rand(6, 32, 32, 3, generator=torch.Generator().manual_seed(0)) * 255).byte().numpy()
        edited = mean_branches(subject, images(pictures), (1, 3))(subject)
    saved = save(edited, tmp_path / "m.safetensors")
    assert saved.model is None
    with pytest.raises(UserError, match="pass the module that they were made on, and the file as its weights"):
        load(saved.path)
    names = [f"blocks.{i}.layers.{layer}.{part}" for i in (0, 2) for layer in (0, 2) for part in ("weight", "bias")]
    assert set(saved.absent) == set(names)
    again = load(Plain(), weights=saved.path, input=INPUT)
    assert [place.name for place in again.places] == ["blocks.0", "blocks.1", "blocks.2"]
    torch.testing.assert_close(logits(again), logits(edited))
    same = load_again(saved.path, subject)
    torch.testing.assert_close(logits(same), logits(edited))
    assert (same.name, same.preprocessing, len(same.edits)) == (subject.name, subject.preprocessing, 1)
    with pytest.raises(UserError, match=r"edits are those of a model with 3 units .*, but this one has 2 units"):
        load(Plain(), weights=saved.path, input=INPUT, units=["blocks.0", "blocks.1"])


def noise_of_my_own(pixels):
    return pixels + 0.1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda subject: with_edit(subject, OnInput(noise_of_my_own)), r"OnInput holds the function .*noise_of_my_own"),
        (TokenKeep(0.5, 2, ByPixels(noise_of_my_own)), "Keeping holds a value of .*ByPixels"),
    ],
    ids=["function", "oracle"],
)
def test_what_no_file_can_say_is_refused_by_name(change, what, tmp_path):
    with pytest.raises(UserError, match=f"{what}.*, which no file can say; leave it out."):
        save(change(load("digits")), tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_means_that_differ_from_token_to_token_are_saved(tmp_path):
    subject = load("digits")
    edited = mean_branches(subject, images("digits", limit=20), (2,))(subject)
    saved = save(edited, tmp_path / "m.safetensors")
    torch.testing.assert_close(logits(load(saved.path)), logits(edited), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda amended: amended.update(edits=[{"is": "os.system", "command": "ls"}]), "knows no edit 'os.system'"),
        (lambda amended: amended.update(edits=[{"is": "lesion", "layers": "ab"}]), "damaged"),
        (lambda amended: amended.update(edits=[{"is": "lesion", "layers": [99]}]), "damaged"),
        (
            lambda amended: amended.update(edits=[{"is": "lesion", "layers": [{"is": "tensor", "name": "x"}]}]),
            "damaged",
        ),
        (lambda amended: amended.update(edits=[{"is": "mean", "value": {"is": "tensor", "name": "x"}}]), "damaged"),
        (lambda amended: amended.update(edits=[{"is": "at-random", "seed": 1}]), "is no edit"),
        (lambda amended: amended.update(units=["elsewhere"]), "edits are those of a model with 1 units"),
        (lambda amended: amended.update(absent=[]), "missing"),
        (lambda amended: amended.update(changes={"blocks.0.mlp.0": {"out_features": 10**9}}), "larger"),
        (lambda amended: amended.pop("edits"), "edits' is missing"),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(damage, said, tmp_path):
    saved = save(Lesion((2,))(load("digits")), tmp_path / "m.safetensors")
    told = facts(saved.path)
    damage(told["amendment"])
    save_file(load_file(saved.path), tmp_path / "n.safetensors", {"vitscope": json.dumps(told)})
    with pytest.raises(UserError, match=said):
        load(tmp_path / "n.safetensors")


def test_a_file_that_leaves_out_far_more_than_it_holds_is_refused(tmp_path):
    saved = save(Lesion((2,))(load("digits")), tmp_path / "m.safetensors")
    told = facts(saved.path)
    weights = load_file(saved.path)
    first, *told["amendment"]["absent"] = weights
    save_file({first: weights[first]}, tmp_path / "n.safetensors", {"vitscope": json.dumps(told)})
    with pytest.raises(UserError, match=r"leaves out .* numbers and holds only"):
        load(tmp_path / "n.safetensors")


def test_a_file_of_edits_names_its_own_model(tmp_path):
    saved = save(Lesion((2,))(load("digits")), tmp_path / "m.safetensors")
    with pytest.raises(UserError, match=r"names its own model, .*vit-micro.*load the file by itself"):
        load("vit-micro", weights=saved.path)


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"m\.safetensors"):
        save(load("digits"), tmp_path / "m.pt")
