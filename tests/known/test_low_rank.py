"""Linear layers of low rank: pencil and paper, Eckart and Young, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitscope import PixelInput, UserError, images, load
from vitscope.interventions import LowRank
from vitscope.models.own.vit import Vit, VitConfig


class Block(nn.Module):
    """A residual linear layer on the channels of 2 x 2 cells."""

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.linear(x.movedim(1, -1)).movedim(-1, 1)


class Plain(nn.Module):
    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        self.stem = nn.Identity()
        self.blocks = nn.Sequential(Block(dim, bias), Block(dim, bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.stem(x)).mean((2, 3))


def plain(weight: torch.Tensor, bias: torch.Tensor | None = None):
    """A subject whose first linear layer reads what its pictures say: four numbers a cell, or as many as channels."""
    module = Plain(len(weight), bias is not None).double().eval()
    module.blocks[0].linear.weight.data = weight.double()
    if bias is not None:
        module.blocks[0].linear.bias.data = bias.double()
    channels = len(weight)
    return load(
        module, units=["blocks.0", "blocks.1"], input=PixelInput(4, channels, (0.5,) * channels, (0.5,) * channels)
    )


@pytest.fixture(scope="module")
def pictures():
    return images(np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), "uint8"))


def vit(dim: int = 12) -> Vit:
    torch.manual_seed(0)
    module = Vit(VitConfig(image=8, channels=3, patch=2, dim=dim, depth=2, heads=3, classes=4)).double()
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module


def test_by_pencil_and_paper():
    """Inputs of variance 1, 9, 0: W = diag(2, 1, 5) keeps direction 2, as 1² x 9 > 2² x 1 > 5² x 0; its SVD keeps 3."""
    from vitscope.interventions.low_rank import _output_components, _project
    from vitscope.numerics.moments import scatter

    rows = torch.tensor([[1.0, 3.0, 4.0], [-1.0, 3.0, 4.0], [1.0, -3.0, 4.0], [-1.0, -3.0, 4.0]]).double()
    layer = nn.Linear(3, 3).double()
    layer.weight.data, layer.bias.data = torch.diag(torch.tensor([2.0, 1.0, 5.0])).double(), torch.ones(3).double()
    values, vectors = _output_components(layer, scatter(rows))
    torch.testing.assert_close(values, torch.tensor([9.0, 4.0, 0.0]).double())
    found = _project("x", layer, scatter(rows), vectors[:, :1])
    product = found.outward.weight @ found.inward.weight
    torch.testing.assert_close(product, torch.diag(torch.tensor([0.0, 1.0, 0.0])).double())
    torch.testing.assert_close(found.outward.bias, torch.tensor([1.0, 1.0, 21.0]).double())  # 1 + 5 x 4
    bare = nn.Linear(3, 3, bias=False).double()
    bare.weight.data = layer.weight.data
    values, vectors = _output_components(bare, scatter(rows))
    torch.testing.assert_close(values, torch.tensor([400.0, 9.0, 4.0]).double())
    assert _project("x", bare, scatter(rows), vectors[:, :1]).outward.bias is None


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(0, 1000), st.integers(2, 6), st.integers(2, 6), st.integers(1, 3))
def test_no_other_pair_of_that_rank_is_nearer_in_the_norm_of_the_inputs(seed, outputs, inputs, rank):
    """The error is the sum of the discarded eigenvalues, which Eckart and Young's whitened SVD in NumPy has too."""
    from vitscope.interventions.low_rank import _output_components, _project
    from vitscope.numerics.moments import scatter

    generator = np.random.default_rng(seed)
    rank = min(rank, outputs, inputs)
    rows = generator.standard_normal((40, inputs)) @ generator.standard_normal((inputs, inputs)) + 3
    weight = generator.standard_normal((outputs, inputs))
    layer = nn.Linear(inputs, outputs).double()
    layer.weight.data = torch.from_numpy(weight)
    values, vectors = _output_components(layer, scatter(torch.from_numpy(rows)))
    found = _project("x", layer, scatter(torch.from_numpy(rows)), vectors[:, :rank])

    def error(product: np.ndarray) -> float:
        """With the bias that is best for it."""
        missed = (rows - rows.mean(0)) @ (weight - product).T
        return float((missed**2).sum(1).mean())

    root = np.linalg.cholesky(np.cov(rows.T, bias=True) + 1e-12 * np.eye(inputs))
    left, scale, right = np.linalg.svd(weight @ root, full_matrices=False)
    best = (left[:, :rank] * scale[:rank]) @ right[:rank] @ np.linalg.inv(root)
    own = error((found.outward.weight @ found.inward.weight).detach().numpy())
    assert own == pytest.approx(error(best), rel=1e-6, abs=1e-9)
    assert own == pytest.approx(float(values[rank:].sum()), rel=1e-6, abs=1e-9)
    outs = rows @ (found.outward.weight @ found.inward.weight).detach().numpy().T + found.outward.bias.detach().numpy()
    full = rows @ weight.T + layer.bias.detach().numpy()
    assert float(((outs - full) ** 2).sum(1).mean()) == pytest.approx(own, rel=1e-6, abs=1e-9)


def test_a_layer_whose_inputs_lie_in_a_plane_is_exactly_of_rank_two():
    """Grey pictures in three of six channels: all inputs are multiples of one direction, so rank 1 loses nothing."""
    torch.manual_seed(0)
    subject = plain(torch.randn(3, 3), torch.randn(3))
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (16, 4, 4, 1), "uint8"), 3, 3)
    smaller = LowRank.fitted(subject, images(grey), energy=0.999999)(subject)
    assert isinstance(smaller.module.blocks[0].linear, nn.Sequential)
    assert smaller.module.blocks[0].linear[0].out_features == 1
    level = torch.linspace(-1, 1, 16).double().view(1, 1, 4, 4).expand(1, 3, 4, 4)
    torch.testing.assert_close(smaller(level), subject(level))
    coloured = torch.randn(1, 3, 4, 4).double()
    assert not torch.allclose(smaller(coloured), subject(coloured), atol=1e-3)


def test_without_images_it_is_the_nearest_matrix(pictures):
    subject = load(vit())
    smaller = LowRank(0.5, (2,))(subject)
    for name, rank in (("0", 4), ("2", 4)):  # 0.5 x 12 x 48 / 60 = 4.8
        old, (first, second) = (one.module.blocks[0].mlp.get_submodule(name) for one in (subject, smaller))
        assert (first.out_features, first.bias) == (rank, None)
        assert second.bias is not None
        left, scale, right = np.linalg.svd(old.weight.detach().numpy())
        nearest = (left[:, :rank] * scale[:rank]) @ right[:rank]
        np.testing.assert_allclose((second.weight @ first.weight).detach().numpy(), nearest, atol=1e-10)
    assert isinstance(smaller.module.blocks[1].mlp[0], nn.Linear)
    pixels = torch.randn(2, 3, 8, 8).double()
    torch.testing.assert_close(smaller.module(pixels), smaller(pixels))


def test_fitted_pairs_are_nearer_than_those_without_images():
    subject = load("digits")
    train, test = images("digits", split="train", limit=100), images("digits", limit=50)
    pixels = next(iter(test.batches(subject.preprocessing.transform, 50))).pixels
    with torch.no_grad():
        logits = subject(pixels)
        errors = [
            float((one(subject)(pixels) - logits).square().mean())
            for one in (LowRank(0.5), LowRank.fitted(subject, train, 0.5))
        ]
    assert errors[1] < 0.5 * errors[0]


def test_energy_keeps_that_share_of_each_output(pictures):
    subject = load(vit())
    found = LowRank.fitted(subject, pictures, energy=0.6)
    assert found.factors
    for one in found.factors:
        assert one.inward.weight.numel() + one.outward.weight.numel() < 12 * (48 if "mlp" in one.layer else 36)
    more = LowRank.fitted(subject, pictures, energy=0.8)
    ranks = [{one.layer: len(one.inward.weight) for one in each.factors} for each in (found, more)]
    assert ranks[1]
    assert all(ranks[0][name] < ranks[1][name] for name in ranks[1])
    assert found != more
    assert found == LowRank.fitted(subject, pictures, energy=0.6)


def test_what_cannot_be_is_a_sentence(pictures):
    subject = load(vit())
    other = LowRank.fitted(load(vit(24)), pictures, 0.5)
    for low, why in (
        (LowRank(0.01), "gets smaller as two of 0.01"),
        (LowRank(0.5, (9,)), "no layer 9"),
        (other, r"factors of blocks\.0\.attn\.qkv fit no linear layer"),
    ):
        with pytest.raises(UserError, match=why):
            low(subject)
    for asked, why in (
        ({}, "Give either"),
        ({"share": 0.5, "energy": 0.5}, "Give either"),
        ({"share": 0.0}, "above 0"),
        ({"energy": 1.5}, "at most 1"),
        ({"energy": 1.0, "layers": (1,)}, "gets smaller"),
    ):
        with pytest.raises(UserError, match=why):
            LowRank.fitted(subject, pictures, **asked)
    with pytest.raises(UserError, match="share is 2"):
        LowRank(2.0)
