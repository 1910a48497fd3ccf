"""Displaced weights by hand: where they go, what stays, and what is shared with the model they came from."""

import json

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from vitscope.interventions.direction import (
    GivenDirection,
    RandomDirection,
    TowardsWeights,
    fix_direction,
    scale_to_weights,
)
from vitscope.interventions.lesion import Lesion
from vitscope.interventions.weight_displacement import WeightDisplacement
from vitscope.interventions.weight_prune import WeightPrune
from vitscope.measurement.errors import UserError
from vitscope.models.load import load
from vitscope.models.pixels import PixelInput
from vitscope.models.rewritten import kernels_of, parameters_of, replace_parameters
from vitscope.models.subject import Unwatched
from vitscope.numerics.direction import gaussian, normalise_columns, normalise_filters

PIXELS = PixelInput(8, 3, (0.5,), (0.5,))


class Plain(nn.Module):
    """Two layers that share a matrix, batch norm between them, a filter that is zero, and a table."""

    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.three = nn.Conv2d(4, 4, 3, padding=1)
        self.three.weight = self.two.weight
        self.head, self.table = nn.Linear(4, 5), nn.Embedding(6, 4)
        nn.init.zeros_(self.one.weight[1])
        nn.init.zeros_(self.one.bias)

    def forward(self, images):
        x = self.three(self.two(self.norm(self.one(images)).relu()).relu())
        return self.head(x.mean((2, 3)) + self.table.weight.sum(0))


@pytest.fixture(scope="module")
def subject():
    torch.manual_seed(0)
    return load(Plain(), input=PIXELS, units=["one", "two"])


def test_weights_go_as_far_as_they_are_told(subject):
    own = parameters_of(subject)
    one, two = ({name: torch.full_like(p, value) for name, p in own.items()} for value in (1.0, -2.0))
    moved = WeightDisplacement(GivenDirection(one), GivenDirection(two), 0.5, 0.25)(subject)
    for name, parameter in moved.module.named_parameters():
        torch.testing.assert_close(parameter.detach(), own[name] + 0.5 - 0.5)
    moved = WeightDisplacement(GivenDirection({"head.bias": torch.arange(5.0)}), alpha=2.0)(subject)
    torch.testing.assert_close(moved.module.head.bias.detach(), own["head.bias"] + 2 * torch.arange(5.0))


def test_no_distance_is_the_subject_itself(subject):
    assert WeightDisplacement(RandomDirection(), RandomDirection(1))(subject) is subject
    assert WeightPrune(0.0)(subject) is subject


def test_what_does_not_move_is_shared_and_the_old_model_is_untouched(subject):
    before = subject.fingerprint
    torch.manual_seed(3)
    state, numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    moved = WeightDisplacement(RandomDirection(), alpha=1.0)(subject)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy, np.random.get_state()[1])  # noqa: NPY002
    assert subject.fingerprint == before != moved.fingerprint
    old, new = dict(subject.module.named_parameters()), dict(moved.module.named_parameters())
    assert {name for name in old if old[name] is not new[name]} == {
        "one.weight",
        "two.weight",
        "head.weight",
        "table.weight",
    }
    assert moved.module.norm.running_mean is subject.module.norm.running_mean
    assert moved.module.three.weight is moved.module.two.weight
    assert all(new[name].requires_grad == old[name].requires_grad for name in old)
    assert not any(part.training for part in moved.module.modules())
    assert moved.places == subject.places


class Caching(nn.Module):
    """Keeps a gathered copy of its parameter until it is put into training mode, as LeViT does."""

    def __init__(self):
        super().__init__()
        self.bias, self.cache = nn.Parameter(torch.zeros(3)), {}

    def train(self, mode=True):
        if mode:
            self.cache = {}
        return super().train(mode)

    def forward(self, x):
        return x + self.cache.setdefault("bias", self.bias.detach()[[2, 1, 0]])


def test_a_cached_copy_of_a_parameter_is_dropped():
    module = nn.Sequential(Caching(), nn.Sequential(nn.Dropout(0.5)).train()).eval()
    module[1].training = True
    assert module(torch.zeros(3)).tolist() == [0, 0, 0]
    new = replace_parameters(module, {"0.bias": torch.arange(3.0)})
    assert new(torch.zeros(3)).tolist() == [2, 1, 0]
    assert [part.training for part in new.modules()] == [part.training for part in module.modules()]
    assert module(torch.zeros(3)).tolist() == [0, 0, 0]


def test_directions_are_gaussian_and_each_parameters_own():
    draw = gaussian((100, 100), 0, "blocks.0.weight")
    assert stats.kstest(draw.flatten().numpy(), "norm").pvalue > 1e-3  # false alarm: one seed in a thousand
    assert torch.equal(draw, gaussian((100, 100), 0, "blocks.0.weight"))
    others = [gaussian((100, 100), 0, "blocks.1.weight"), gaussian((100, 100), 1, "blocks.0.weight")]
    for other in others:
        correlation = float((draw * other).mean())
        assert abs(correlation) < 0.04  # four standard errors


def test_a_direction_does_not_depend_on_the_other_parameters(subject):
    whole = RandomDirection(3).of(subject)
    weight = parameters_of(subject)["head.weight"]
    assert torch.equal(whole["head.weight"], normalise_filters(gaussian((5, 4), 3, "head.weight"), weight))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3, 3)])
def test_both_normalisations_give_the_weights_norms(shape):
    weights, direction = (gaussian(shape, 0, name) * 3 for name in ("weights", "direction"))
    weights[2] = 0
    filters, columns = normalise_filters(direction, weights), normalise_columns(direction, weights)
    torch.testing.assert_close(filters.flatten(1).norm(dim=1), weights.flatten(1).norm(dim=1))
    assert filters[2].abs().max() == 0
    torch.testing.assert_close(columns.norm(dim=0), weights.norm(dim=0))
    ratio = filters[0] / direction[0]
    torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio))


def test_one_dimensional_tensors_and_zeros_are_left_out():
    ones = torch.ones(4)
    for normalised in (normalise_filters, normalise_columns):
        assert torch.equal(normalised(ones, 2 * ones), torch.zeros(4))
        assert torch.equal(normalised(torch.zeros(2, 3), torch.ones(2, 3)), torch.zeros(2, 3))
        assert torch.equal(normalised(torch.ones(2, 3), torch.zeros(2, 3)), torch.zeros(2, 3))


def test_towards_other_weights_lies_the_other_model(subject):
    torch.manual_seed(5)
    other = load(Plain(), input=PIXELS, units=["one", "two"])
    there = WeightDisplacement(TowardsWeights(other.module.state_dict(), "other"), alpha=1.0)(subject)
    for name, parameter in there.module.named_parameters():
        torch.testing.assert_close(parameter.detach(), parameters_of(other)[name])
    with pytest.raises(UserError, match=r"other has no one.weight of shape \(4, 3, 3, 3\)"):
        WeightDisplacement(TowardsWeights({}, "other"), alpha=1.0)(subject)


def test_directions_that_do_not_fit_are_refused(subject):
    for tensors in ({"head.weight": torch.ones(2, 2)}, {"nothing": torch.ones(2)}):
        with pytest.raises(UserError, match="The direction's"):
            WeightDisplacement(GivenDirection(tensors), alpha=1.0)(subject)
    with pytest.raises(UserError, match="no length"):
        scale_to_weights(GivenDirection({"head.bias": torch.zeros(5)}), subject)


def test_an_eigenvector_is_made_as_long_as_the_weights(subject):
    scaled = scale_to_weights(GivenDirection({"head.bias": torch.ones(5)}), subject)
    random = RandomDirection().of(subject)
    norm = sum(float(one.square().sum()) for one in random.values()) ** 0.5
    assert float(scaled.tensors["head.bias"].norm()) == pytest.approx(norm, rel=1e-5)


def test_settings_name_directions_without_their_tensors(subject):
    first, second = fix_direction(RandomDirection(0), subject), fix_direction(RandomDirection(1), subject)
    words = json.dumps(WeightDisplacement(first, second, 0.5).settings)
    assert len(words) < 500
    assert words != json.dumps(WeightDisplacement(second, first, 0.5).settings)
    assert words == json.dumps(WeightDisplacement(fix_direction(RandomDirection(0), subject), second, 0.5).settings)


def test_edits_survive_new_weights():
    digits = load("digits")
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def logits(one):
        with torch.no_grad():
            return one.anatomy.walk(images, Unwatched())

    prune, lesion = WeightPrune(0.3), Lesion((2,))
    torch.testing.assert_close(logits(prune(lesion(digits))), logits(lesion(prune(digits))))
    assert not torch.allclose(logits(prune(lesion(digits))), logits(prune(digits)))


def test_kernels_are_matrices_that_multiply(subject):
    assert list(kernels_of(subject)) == ["one.weight", "two.weight", "head.weight"]
    digits = kernels_of(load("digits"))
    assert "positions" not in digits
    assert "patches.weight" in digits
    assert "head.weight" in digits


def test_pruned_entries_are_counted_exactly(subject):
    sizes = {name: kernel.numel() for name, kernel in kernels_of(subject).items()}
    total = sum(sizes.values())
    for share in (0.3, 0.5, 0.97, 1.0):
        pruned = kernels_of(WeightPrune(share)(subject))
        assert sum(int((kernel == 0).sum()) for kernel in pruned.values()) == round(share * total)
    layered = kernels_of(WeightPrune(0.5, "layer")(subject))
    assert {name: int((kernel == 0).sum()) for name, kernel in layered.items()} == {
        name: round(0.5 * size) for name, size in sizes.items()
    }
    for share in (-0.1, 1.1):
        with pytest.raises(UserError, match="from 0 to 1"):
            WeightPrune(share)


def test_of_equal_weights_the_first_go_first(subject):
    ones = {name: torch.ones_like(kernel) for name, kernel in kernels_of(subject).items()}
    ones["head.weight"][0, 0] = -0.5
    module = replace_parameters(subject.module, ones)
    pruned = kernels_of(WeightPrune(6 / (108 + 144 + 20))(load(module, input=PIXELS, units=["one", "two"])))
    assert pruned["one.weight"].flatten().eq(0).nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
    assert pruned["head.weight"].flatten().eq(0).nonzero().flatten().tolist() == [0]
    assert torch.equal(pruned["two.weight"], ones["two.weight"])
