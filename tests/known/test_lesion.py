"""Lesions and attention shapes whose answer is known by hand, and what they refuse."""

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from vitscope import PixelInput, Plan, images, load
from vitscope.engine.curvature.hessian import trainable_copy
from vitscope.engine.study import study
from vitscope.interventions import all_interventions
from vitscope.interventions.attention_shape import AttentionShape
from vitscope.interventions.bypass import Mean, irremovable_layers
from vitscope.interventions.head_lesion import HeadLesion, mean_contexts
from vitscope.interventions.lesion import Lesion, mean_branches
from vitscope.interventions.studies import all_studies
from vitscope.interventions.studies.attention_shape import AttentionShapeStudy
from vitscope.interventions.studies.lesion import LesionStudy
from vitscope.interventions.token_keep import TokenKeep
from vitscope.interventions.weight_prune import WeightPrune
from vitscope.measurement.errors import UserError
from vitscope.measurement.ranges import parse_layers, parse_numbers
from vitscope.models.attention import Attention
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.models.subject import AbstractObserver, Subject, Unwatched


@pytest.fixture(scope="module")
def vit() -> Subject:
    torch.manual_seed(0)
    return load(Vit(VitConfig(image=8, channels=3, patch=2, dim=12, depth=2, heads=3, classes=4, registers=1)).double())


@pytest.fixture(scope="module")
def pictures():
    return images((np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), "uint8"), np.array([0, 1, 2, 3, 0])))


def pixels_of(side: int) -> PixelInput:
    return PixelInput(image=side, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)


class Weights(AbstractObserver):
    """Keeps the attention weights of every unit."""

    def __init__(self) -> None:
        self.found: dict[int, torch.Tensor] = {}
        self.attention_of: dict[int, Attention] = {}

    def stream(self, layer, stream) -> None:
        pass

    def attention(self, layer, attention):
        self.found[layer], self.attention_of[layer] = attention.weights(), attention
        return attention.context()


def walked(subject: Subject, pixels: torch.Tensor, observer: AbstractObserver | None = None) -> torch.Tensor:
    with torch.inference_mode():
        return subject.anatomy.walk(pixels, observer or Unwatched())


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# Lesion


def test_a_unit_without_its_branch_is_the_model_without_that_module(vit):
    pixels, module = noise(2, 3, 8, 8), vit.module
    first, second = module.blocks
    with torch.inference_mode():
        tokens = module.embed(pixels)
        tokens = tokens + first.attn(first.norm1(tokens))  # no MLP
        tokens = tokens + second.attn(second.norm1(tokens))
        tokens = tokens + second.mlp(second.norm2(tokens))
        torch.testing.assert_close(walked(Lesion((2,))(vit), pixels), module.classify(tokens), rtol=1e-9, atol=1e-9)
        nothing_left = walked(Lesion((1, 2, 3, 4))(vit), pixels)
        torch.testing.assert_close(nothing_left, module.classify(module.embed(pixels)), rtol=1e-9, atol=1e-9)


def test_a_block_is_its_two_units(vit):
    assert Lesion.of_block(vit, 1) == Lesion((3, 4))
    with pytest.raises(UserError, match=r"has no block 7 with a unit"):
        Lesion.of_block(vit, 7)


def test_the_mean_of_a_branch_is_over_images_for_every_token_and_channel(vit, pictures):
    pixels = torch.stack([vit.preprocessing.transform(pictures.read(index)) for index in range(5)]).double()
    wide = load(vit.module.double(), name="wide")
    object.__setattr__(wide.preprocessing, "transform", Double(wide.preprocessing.transform))
    module = wide.module
    first = module.blocks[0]
    with torch.inference_mode():
        tokens = module.embed(pixels)
        branch = first.attn(first.norm1(tokens))
        mean = branch.mean(0)
        after = tokens + branch
        second = first.mlp(first.norm2(after)).mean(0)
    lesion = mean_branches(wide, pictures, (1, 2), batch_size=2)
    assert lesion.layers == (1, 2)
    torch.testing.assert_close(lesion.means[0].value, mean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(lesion.means[1].value, second, rtol=1e-9, atol=1e-12)
    assert lesion.only((2,)).means == (lesion.means[1],)
    with torch.inference_mode():
        tokens = module.embed(pixels) + mean
        for layer in wide.anatomy.units[1:]:
            tokens = layer(wide.anatomy.stem(pixels).with_values(tokens)).values
        torch.testing.assert_close(walked(lesion.only((1,))(wide), pixels), module.classify(tokens))


class Double:
    """A transform, in float64."""

    def __init__(self, transform) -> None:
        self.transform = transform

    def __call__(self, picture):
        return self.transform(picture).double()


def test_means_are_told_apart_by_their_content_in_a_runs_question(vit):
    one, other = (Lesion((1,), (Mean(torch.full((2, 3), value)),)) for value in (1.0, 2.0))
    assert one.settings != other.settings
    assert repr(one) != repr(other)
    assert one != other
    assert one.settings == Lesion((1,), (Mean(torch.ones(2, 3)),)).settings


@pytest.mark.parametrize(
    ("lesion", "match"),
    [
        (Lesion((5,)), r"has 4 units, layers 1 to 4; there is no layer 5\."),
        (Lesion((0,)), r"there is no layer 0\."),
        (HeadLesion(((2, (0,)),)), r"blocks\.0\.mlp has no attention that can be read; there is no head 0"),
        (HeadLesion(((1, (3,)),)), r"blocks\.0\.attn has heads 0 to 2; there is no head 3"),
        (AttentionShape(layers=(2,)), r"blocks\.0\.mlp \(layer 2\) has no attention"),
    ],
)
def test_what_is_not_there_is_refused(vit, lesion, match):
    with pytest.raises(UserError, match=match):
        lesion(vit)


def test_settings_that_make_no_sense_are_refused_at_once():
    with pytest.raises(UserError, match="name each layer once"):
        Lesion((1, 1))
    with pytest.raises(UserError, match="one mean for each"):
        Lesion((1, 2), (Mean(torch.zeros(1)),))
    with pytest.raises(UserError, match="name each layer once"):
        HeadLesion(((1, (0,)), (1, (1,))))
    with pytest.raises(UserError, match="4 x 4 cells has no middle"):
        AttentionShape("neighbourhood", 4)


def test_a_mean_of_other_images_does_not_fit(vit):
    subject = Lesion((1,), (Mean(torch.zeros(3, 12)),))(vit)
    with pytest.raises(UserError, match=r"has the shape \(3, 12\) instead of \(18, 12\)"):
        walked(subject, noise(1, 3, 8, 8))


def test_downsampling_and_computing_shortcuts_are_refused_and_named():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    resnet = load(timm.create_model("resnet18", num_classes=3, layers=(1, 2, 1, 1), channels=(64, 8, 16, 16)))
    why = {resnet.places[layer - 1].name: reason for layer, reason in irremovable_layers(resnet).items()}
    assert why == {
        "layer2.0": "it is downsampling",
        "layer3.0": "it is downsampling",
        "layer4.0": "it is downsampling",
    }
    with pytest.raises(UserError, match=r"Layer 2 of .* \(layer2\.0\) cannot be left out: it is downsampling\."):
        Lesion((2,))(resnet)
    (note,) = LesionStudy().notes(resnet)
    assert note == "Never left out, because it is downsampling: layer2.0 (2), layer3.0 (4), layer4.0 (5)."
    bottlenecks = load(timm.create_model("resnet50", num_classes=3, layers=(2, 1, 1, 1), channels=(8, 8, 8, 8)))
    assert irremovable_layers(bottlenecks)[1] == "its shortcut is not the identity"
    with pytest.raises(UserError, match="has no attention that can be read"):
        AttentionShape()(bottlenecks)


# A model that nobody described


class Block(nn.Module):
    """A residual block of a plain module, as CIFAR ResNets have it."""

    def __init__(self, width: int, residual: bool = True, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.residual = residual

    def forward(self, x):
        branch = self.norm(self.conv(x))
        return torch.relu(branch + x if self.residual else branch)


@pytest.fixture
def plain() -> Subject:
    torch.manual_seed(0)
    blocks = nn.Sequential(Block(4), Block(4, residual=False), Block(4), Block(4, residual=False, stride=2))
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    return load(module.double(), input=pixels_of(8), name="plain")


def test_a_plain_modules_blocks_are_tried_and_left_out_by_hooks_for_one_call(plain):
    assert irremovable_layers(plain) == {2: "its shortcut is not the identity", 4: "it is downsampling"}
    pixels, module = noise(2, 3, 8, 8), plain.module
    expected = nn.Sequential(module[0], module[1], *module[2][1:], *module[3:])
    subject = Lesion((1,))(plain)
    with torch.inference_mode():
        torch.testing.assert_close(walked(subject, pixels), expected(pixels))
        both = nn.Sequential(module[0], module[1], module[2][1], module[2][3], *module[3:])
        torch.testing.assert_close(walked(Lesion((3,))(subject), pixels), both(pixels))
        torch.testing.assert_close(walked(Lesion((1, 3))(plain), pixels), both(pixels))
        torch.testing.assert_close(walked(plain, pixels), module(pixels))
    assert not any(part._forward_hooks for part in module.modules())
    with pytest.raises(UserError, match=r"Layer 4 of plain \(2\.3\) cannot be left out: it is downsampling\."):
        Lesion((4,))(plain)
    with pytest.raises(UserError, match="leave out whole blocks"):
        HeadLesion(((1, (0,)),)).apply(plain.anatomy)


class Overwriting(nn.Module):
    """A block that adds to a rectified input, which it rectifies in place: what entered is no more."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)

    def forward(self, x):
        torch.relu_(x)
        return x + self.conv(x)


def test_a_block_that_overwrites_its_input_is_not_taken_for_a_residual_one():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(Overwriting()), nn.Flatten(), nn.Linear(144, 3))
    subject = load(module, input=pixels_of(8), units=("1.0",))
    assert irremovable_layers(subject) == {1: "its shortcut is not the identity"}
    with pytest.raises(UserError, match="has no residual unit that can be left out"):
        LesionStudy().grid(subject, images(np.zeros((1, 8, 8, 3), "uint8")), Plan())


class Given(nn.Module):
    """A block that is called with its input, by name or not, and with something that it multiplies its branch by."""

    def __init__(self, norm=lambda conv: conv, raises=False) -> None:
        super().__init__()
        self.conv, self.raises = norm(nn.Conv2d(4, 4, 3, padding=1)), raises

    def forward(self, x, scale):
        if self.raises and not self.conv.weight.any():
            raise ValueError("no weights")
        return x + scale * self.conv(x)


class Calling(nn.Module):
    def __init__(self, *blocks, named=False) -> None:
        super().__init__()
        self.stem, self.blocks, self.named = nn.Conv2d(3, 4, 3), nn.ModuleList(blocks), named
        self.scale, self.head = nn.Parameter(torch.full((4, 1, 1), 2.0)), nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x=x, scale=self.scale) if self.named else block(x, self.scale)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("named", [False, True])
def test_blocks_that_are_given_more_than_their_input_are_left_out(named):
    module = Calling(Given(), Given(), named=named)
    subject = load(module, input=pixels_of(8))
    assert not irremovable_layers(subject)
    pixels = noise(2, 3, 8, 8).float()
    with torch.inference_mode():
        entering = module.stem(pixels)
        expected = module.head(module.blocks[1](entering, module.scale).mean((2, 3)))
    torch.testing.assert_close(walked(Lesion((1,))(subject), pixels), expected)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize(
    "norm",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        weight_norm,
        spectral_norm,
        lambda conv: prune.l1_unstructured(conv, "weight", amount=0.2),
    ],
    ids=["weight norm", "spectral norm", "weight norm by hooks", "spectral norm by hooks", "pruned"],
)
def test_blocks_that_compute_their_weights_are_tried_without_them(norm):
    module = Calling(Given(norm), Given())
    subject = load(module, input=pixels_of(8))
    before = walked(subject, noise(2, 3, 8, 8).float())
    assert not irremovable_layers(subject)
    assert torch.equal(walked(subject, noise(2, 3, 8, 8).float()), before)


def test_a_block_that_cannot_be_tried_is_told_apart_from_one_that_is_not_residual():
    subject = load(Calling(Given(), Given(raises=True)), input=pixels_of(8))
    assert irremovable_layers(subject) == {2: "whether it is residual could not be tested (no weights)"}
    alone = load(Calling(Given(raises=True)), input=pixels_of(8))
    with pytest.raises(UserError, match=r"can be left out: whether it is residual could not be tested \(no weights\)"):
        LesionStudy().grid(alone, images(np.zeros((1, 8, 8, 3), "uint8")), Plan())


def test_a_module_that_holds_a_lock_is_said_not_to_be_copied():
    module = Calling(Given())
    module.lock = threading.Lock()
    subject = load(module, input=pixels_of(8))
    for copy in (lambda: WeightPrune(0.5)(subject), lambda: trainable_copy(subject, "float32")):
        with pytest.raises(UserError, match=r"Calling cannot be copied .*: remove locks"):
            copy()


def test_a_plain_modules_branches_have_means_and_a_study(plain):
    pictures = images((np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), "uint8"), np.array([0, 1, 2, 0])))
    object.__setattr__(plain.preprocessing, "transform", Double(plain.preprocessing.transform))
    pixels = torch.stack([plain.preprocessing.transform(pictures.read(index)) for index in range(4)])
    with torch.inference_mode():
        entering = plain.module[1](plain.module[0](pixels))
        mean = (plain.module[2][0](entering) - entering).mean(0)
    lesion = mean_branches(plain, pictures, (1,), batch_size=3)
    torch.testing.assert_close(lesion.means[0].value, mean)
    with torch.inference_mode():
        expected = nn.Sequential(*plain.module[2][1:], *plain.module[3:])(entering + mean)
    torch.testing.assert_close(walked(lesion(plain), pixels), expected)
    run = study(plain, pictures, LesionStudy(), plan=Plan(batch_size=3))
    assert run["lesion-accuracy/nll"]["lesion"].values.tolist() == [1, 3]
    assert any("its shortcut is not the identity: 2.1 (2)" in note for note in run.notes)


# Heads


def test_a_head_contributes_nothing_or_its_mean(vit, pictures):
    object.__setattr__(vit.preprocessing, "transform", Double(vit.preprocessing.transform))
    pixels = torch.stack([vit.preprocessing.transform(pictures.read(index)) for index in range(5)])
    block = vit.module.blocks[0]
    with torch.inference_mode():
        tokens = vit.module.embed(pixels)
        queries, keys, values = block.attn.project(block.norm1(tokens))
        context = ((queries @ keys.transpose(-1, -2)) / 2).softmax(-1) @ values  # heads of width 4
        for lesion in (HeadLesion(((1, (0, 2)),)), mean_contexts(vit, pictures, ((1, (0, 2)),), batch_size=2)):
            kept = context.clone()
            kept[:, [0, 2]] = context[:, [0, 2]].mean(0) if lesion.means else 0.0
            expected = tokens + block.attn.proj(kept.transpose(1, 2).flatten(2))
            seen = Weights()
            subject = lesion(vit)
            stream = subject.anatomy.units[0](subject.anatomy.stem(pixels))
            torch.testing.assert_close(stream.values, expected, rtol=1e-9, atol=1e-9)
            walked(subject, pixels, seen)
            intact = Weights()
            walked(vit, pixels, intact)
            assert torch.equal(seen.found[1], intact.found[1])  # the weights are as they were
    lesion = mean_contexts(vit, pictures, ((1, (0, 2)), (3, (1,))), batch_size=2)
    one = lesion.only(1, 2)
    assert one.heads == ((1, (2,)),)
    assert torch.equal(one.means[0].value[:, 0], lesion.means[0].value[:, 1])


# Attention shapes


def shaped(subject: Subject, pixels: torch.Tensor, intervention: AttentionShape) -> Weights:
    seen = Weights()
    walked(intervention(subject), pixels, seen)
    return seen


def test_global_attention_of_every_shape(vit):
    pixels = noise(1, 3, 8, 8)
    uniform = shaped(vit, pixels, AttentionShape()).found[1]
    torch.testing.assert_close(uniform, torch.full_like(uniform, 1 / 18))
    diagonal = shaped(vit, pixels, AttentionShape("diagonal")).found[3]
    assert torch.equal(diagonal, torch.eye(18, dtype=torch.float64).expand_as(diagonal))
    near = shaped(vit, pixels, AttentionShape("neighbourhood", 3, layers=(1,)))
    before = Weights()
    walked(vit, pixels, before)
    rows = near.found[1][0, 0, 0]
    corner = [0, 1, 2, 3, 6, 7]  # two prefix tokens; of the 4 x 4 grid the cells (0, 0), (0, 1), (1, 0), (1, 1)
    assert rows[2].nonzero()[:, 0].tolist() == corner
    assert rows[7].nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 10, 11, 12]
    expected = before.found[1][0, 0, 0, 2, corner]
    torch.testing.assert_close(rows[2, corner], expected / expected.sum())
    torch.testing.assert_close(rows[:2], before.found[1][0, 0, 0, :2])  # prefix tokens see all
    torch.testing.assert_close(shaped(vit, pixels, AttentionShape("neighbourhood", 7)).found[1], before.found[1])


def test_the_output_of_uniform_attention_is_the_mean_of_the_values(vit):
    pixels, block = noise(2, 3, 8, 8), vit.module.blocks[0]
    subject = AttentionShape(layers=(1,))(vit)
    with torch.inference_mode():
        tokens = vit.module.embed(pixels)
        values = block.attn.project(block.norm1(tokens))[2]
        context = values.mean(2, keepdim=True).expand_as(values).transpose(1, 2).flatten(2)
        found = subject.anatomy.units[0](subject.anatomy.stem(pixels)).values
        torch.testing.assert_close(found, tokens + block.attn.proj(context), rtol=1e-9, atol=1e-9)


def test_masked_keys_and_padding_stay_unseen_in_windows():
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    torch.manual_seed(0)
    swin = torchvision.models.SwinTransformer([4, 4], 8, [2], [2], window_size=[3, 3], num_classes=3)
    subject = load(swin.double(), name="swin")
    pixels = noise(1, 3, 20, 16)  # a grid of 5 x 4, padded to 6 x 6, the second block shifted
    before = Weights()
    walked(subject, pixels, before)
    uniform = shaped(subject, pixels, AttentionShape())
    for layer in (1, 3):
        attention = before.attention_of[layer]
        masked = (attention.bias <= -50).broadcast_to(before.found[layer].shape)
        real = (attention.key_tokens >= 0)[None, :, None, None].expand_as(masked) & ~masked
        weights, queries = uniform.found[layer], attention.query_tokens >= 0
        share = real / real.sum(-1, keepdim=True).clamp(min=1)
        assert bool(masked.any()) == (layer == 3)
        for window, slot in queries.nonzero().tolist():
            torch.testing.assert_close(weights[0, window, :, slot], share[0, window, :, slot].double())
    near = shaped(subject, pixels, AttentionShape("neighbourhood", 1))
    diagonal = shaped(subject, pixels, AttentionShape("diagonal"))
    for layer in (1, 3):
        queries = before.attention_of[layer].query_tokens >= 0
        for window, slot in queries.nonzero().tolist():
            assert diagonal.found[layer][0, window, 0, slot].nonzero()[:, 0].tolist() == [slot]
            assert near.found[layer][0, window, 0, slot].nonzero()[:, 0].tolist() == [slot]


def test_heads_that_are_mixed_before_the_softmax_are_uniform_too():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 3}
    cait = load(timm.create_model("cait_xxs24_224", **small).double(), input=pixels_of(32))
    seen = shaped(cait, noise(1, 3, 32, 32), AttentionShape())
    for layer, tokens in ((1, 16), (4, 17)):  # among patches; of the class token
        torch.testing.assert_close(seen.found[layer], torch.full_like(seen.found[layer], 1 / tokens))


def test_a_grid_with_gaps_has_no_neighbourhoods(vit):
    subject = AttentionShape("neighbourhood", 3)(TokenKeep(0.5, 2)(vit))
    with pytest.raises(UserError, match="no neighbourhoods"):
        walked(subject, noise(1, 3, 8, 8))


# Ranges, and the packages


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.1:0.9:9", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
        ("1.0:0.1:10", (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)),
        ("-1:1:3", (-1.0, 0.0, 1.0)),
        ("0.3:0.3:1", (0.3,)),
        ("0.1, 0.5", (0.1, 0.5)),
        ("2", (2.0,)),
    ],
)
def test_spreads(text, numbers):
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize(
    "text", ["", "a", "0.1:0.9", "0.1:0.9:0", "0.1:0.9:2.5", "0.1:0.9:1", "1:2:3:4", "nan", "1,inf"]
)
def test_what_is_no_spread_is_quoted(text):
    with pytest.raises(UserError, match=r"number|start:stop:count"):
        parse_numbers(text)


def test_layers_are_read_in_order():
    assert parse_layers("7, 3,4,3") == (3, 4, 7)
    for text in ("", "0", "a", "1,,2", "1.5"):
        with pytest.raises(UserError, match="names no layers"):
            parse_layers(text)


def test_a_set_is_one_setting_and_odd_fields_are_refused(vit, pictures):
    grid = LesionStudy(layers="4,1").grid(vit, pictures, Plan())
    assert grid.settings == ((Lesion((1, 4)),),)
    assert grid.axes[0].coordinates["lesion_unit"] == ["blocks.0.attn, blocks.1.mlp"]
    heads = LesionStudy(of="head", layers="3").grid(vit, pictures, Plan())
    assert heads.settings == tuple((HeadLesion(((3, (head,)),)),) for head in range(3))
    for study_, match in (
        (LesionStudy(of="head", layers="2"), "no attention that can be read there"),
        (LesionStudy(layers="9"), "there is no layer 9"),
        (AttentionShapeStudy(shapes="round"), "'round' is not a shape"),
        (AttentionShapeStudy(sizes="3,4"), "no middle"),
        (AttentionShapeStudy(shapes="", sizes=""), "name at least one"),
    ):
        with pytest.raises(UserError, match=match):
            study_.grid(vit, pictures, Plan())


def test_a_head_that_a_unit_does_not_have_has_no_numbers():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    small = {"img_size": 32, "patch_size": 4, "embed_dim": 12, "depths": (1, 1), "num_heads": (2, 3), "num_classes": 3}
    swin = load(timm.create_model("swin_tiny_patch4_window7_224", window_size=4, **small), input=pixels_of(32))
    pictures = images((np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), "uint8"), np.array([0, 1])))
    nll = study(swin, pictures, LesionStudy(of="head"))["lesion-accuracy/nll"]
    assert nll.dims == ("lesion", "lesion_head")
    assert nll.isnull().values.tolist() == [[False, False, True], [False, False, False]]


def test_the_packages_find_their_classes():
    assert {Lesion, HeadLesion, AttentionShape} <= set(all_interventions())
    assert {LesionStudy, AttentionShapeStudy} <= set(all_studies())
