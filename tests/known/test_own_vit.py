"""The project's own vision transformer: sizes by hand, input, and the trained model that comes with the package."""

import numpy as np
import pytest
import torch
from PIL import Image

from vitscope.data.load import images
from vitscope.measurement.errors import UserError
from vitscope.models.adapter import Outputs
from vitscope.models.own.library import Own, make_vit
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.models.pixels import PixelInput


def test_parameters_of_vit_micro_by_hand():
    patches, prefix, positions = 3 * 4 * 4 * 64 + 64, 64, 64 * 64
    norms, qkv, proj, mlp = 2 * 2 * 64, 64 * 192 + 192, 64 * 64 + 64, 64 * 256 + 256 + 256 * 64 + 64
    head = 2 * 64 + 64 * 10 + 10
    expected = patches + prefix + positions + 6 * (norms + qkv + proj + mlp) + head
    assert sum(p.numel() for p in make_vit("vit-micro", {}, None).parameters()) == expected == 307_978


@pytest.mark.parametrize(
    ("config", "prefix"),
    [
        (VitConfig(), 1),
        (VitConfig(registers=3), 4),
        (VitConfig(pool="average"), 0),
        (VitConfig(pool="average", registers=2), 2),
    ],
)
def test_tokens_are_prefix_then_patches(config, prefix):
    assert Vit(config).embed(torch.zeros(2, 3, 32, 32)).shape == (2, prefix + 64, 64)


def test_average_pooling_leaves_registers_out():
    model = Vit(VitConfig(pool="average", registers=2, depth=1)).eval()
    tokens = torch.randn(1, 66, 64, generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[:, :2] += 1
    assert torch.equal(model.classify(tokens), model.classify(other))


def test_the_class_token_is_what_is_classified():
    model = Vit(VitConfig(registers=2, depth=1)).eval()
    tokens = torch.randn(1, 67, 64, generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[:, 1:] += 1
    assert torch.equal(model.classify(tokens), model.classify(other))


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    drop = Vit(VitConfig(depth=2, drop_path=0.25)).blocks[1].drop_path.train()
    torch.manual_seed(0)
    out = drop(torch.ones(4000, 2, 3))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(out.amin((1, 2)), out.amax((1, 2)))
    assert out.mean().item() == pytest.approx(1, abs=0.04)  # five standard errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VitConfig(image=30), "image/patch is 30/4; the first must be a multiple of the second."),
        (lambda: VitConfig(dim=65), "dim/heads is 65/4; the first must be a multiple of the second."),
        (lambda: VitConfig(dim=66, heads=3), "dim is 66; it must be a multiple of 4."),
        (lambda: make_vit("vit-huge", {}, None), "named 'vit-huge'; it has: vit-micro,"),
        (lambda: make_vit("vit-micro", {"width": 3}, None), "vit-micro takes no argument 'width'"),
        (lambda: Own.create("vit-micro", True), "vit-micro has no pretrained weights; train it with"),
        (lambda: Own.create("vit", False), "vitscope has no model named 'vit'; it has: digits, vit-micro"),
        (
            lambda: Vit(VitConfig())(torch.zeros(1, 3, 16, 16)),
            r"are \(3, 16, 16\); this model was made for \(3, 32, 32",
        ),
        (lambda: PixelInput(8, 2, (0.5,), (0.5,)), "An input cannot have 2 channels"),
        (lambda: PixelInput(8, 3, (0.5, 0.5), (0.5,)), "mean has 2 and std 1 values; give one value, or one for each"),
    ],
)
def test_misuse_says_what_to_do(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_picture_of_the_right_size_is_only_normalised():
    values = np.arange(16, dtype=np.uint8).reshape(4, 4)
    found = PixelInput(4, 1, (0.5,), (0.25,))(Image.fromarray(values))
    torch.testing.assert_close(found, (torch.from_numpy(values)[None] / 255 - 0.5) / 0.25)


def test_a_wide_picture_loses_its_sides_and_a_grey_one_gains_channels():
    values = np.zeros((8, 16), np.uint8)
    values[:, 4:12] = 255
    found = PixelInput(4, 3, (0.0,), (1.0,))(Image.fromarray(values))
    assert found.shape == (3, 4, 4)
    assert found[:, :, 1:3].min() > 0.99
    assert found[:, 1:3].mean() > 0.8


def test_each_channel_has_its_own_normalisation():
    picture = Image.new("RGB", (2, 2), (255, 0, 51))
    found = PixelInput(2, 3, (0.5, 0.0, 0.2), (0.5, 1.0, 1.0))(picture)
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


def test_the_embedded_model_reads_digits():
    module = Own.create("digits", False).eval()
    preprocessing = Own.preprocessing(module)
    assert Own.classes(module) == Outputs(10, tuple("0123456789"))
    assert preprocessing.shape == (1, 8, 8)
    (batch,) = images("digits", split="test").batches(preprocessing.transform, 445)
    with torch.inference_mode():
        accuracy = (module(batch.pixels).argmax(1) == batch.labels).float().mean().item()
    assert accuracy >= 0.97
