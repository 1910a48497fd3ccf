"""The token model by its moments. Every statistical bound here fails by chance with probability below 1e-6 a draw."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from vitscope.data import images
from vitscope.labs.shallow.planted import Objects, Planted, PlantedTokens, read_objects
from vitscope.labs.shallow.token_model import Role, TokenModel
from vitscope.measurement.errors import UserError

CERTAIN = 5.0  # two-sided normal tail beyond: 6e-7
COUNT = 4000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(**settings):
    model = TokenModel(**settings)
    return model, model.draw(COUNT, generator())


def nearest(model, sample):
    return distances(sample.tokens, model.vectors).argmin(2)


def distances(rows, others):
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")


def share(sample, role):
    return (sample.roles == role).double().mean(1)


def assert_mean(values, expected):
    error = float(values.std() / math.sqrt(len(values)))
    assert abs(float(values.mean()) - expected) <= CERTAIN * error + 1e-7


@pytest.mark.parametrize("relevant", [0.3, 0.33, 0.101])
def test_shares_are_exact_on_average_and_whole_in_every_image(relevant):
    _, sample = draw(relevant=relevant, confusion=0.03, spurious=0.21)
    for role, expected in ((Role.RELEVANT, relevant), (Role.CONFUSION, 0.03), (Role.SPURIOUS, 0.21)):
        found = share(sample, role)
        assert_mean(found, expected)
        assert float((found * 40 - expected * 40).abs().max()) < 1
    assert_mean(share(sample, Role.IRRELEVANT), 1 - relevant - 0.03 - 0.21)


def test_the_label_is_that_of_the_majority_in_every_image_and_fair():
    model, sample = draw(relevant=0.15, confusion=0.1, noise=0.3)
    carried = nearest(model, sample)
    majority = torch.where((carried == 0).sum(1) > (carried == 1).sum(1), 1.0, -1.0)
    assert torch.equal(majority, sample.labels)
    assert_mean(sample.labels.double(), 0.0)


def test_tokens_that_are_not_shuffled_stand_by_role():
    _, sample = draw(relevant=0.3, confusion=0.05, spurious=0.2, shuffled=False)
    order = [Role.RELEVANT] * 12 + [Role.CONFUSION] * 2 + [Role.SPURIOUS] * 8 + [Role.IRRELEVANT] * 18
    assert torch.equal(sample.roles, torch.tensor([int(role) for role in order]).expand(COUNT, -1))


def test_every_token_has_the_pattern_of_its_role():
    model, sample = draw(spurious=0.2, agreement=0.8, noise=0.3)
    carried, positive = nearest(model, sample), sample.labels[:, None] > 0
    own = torch.where(positive, 0, 1).expand_as(carried)
    assert torch.equal(carried == own, sample.roles == Role.RELEVANT)
    assert torch.equal(carried == 1 - own, sample.roles == Role.CONFUSION)
    spurious = (sample.roles == Role.SPURIOUS).nonzero()[:, 0]
    assert torch.equal((carried == 2) | (carried == 3), sample.roles == Role.SPURIOUS)
    first = torch.stack([carried[image][sample.roles[image] == Role.SPURIOUS][0] for image in range(200)])
    assert all((carried[n][sample.roles[n] == Role.SPURIOUS] == first[n]).all() for n in range(200))
    agrees = (carried == own + 2)[sample.roles == Role.SPURIOUS].double()[:: spurious.bincount()[0]]
    assert_mean(agrees, 0.8)
    plain = carried[sample.roles == Role.IRRELEVANT].bincount(minlength=10)[4:].double()
    assert float((plain / plain.sum() - 1 / 6).abs().max()) < CERTAIN * math.sqrt(1 / 6 / float(plain.sum()))


def test_noise_is_uniform_in_the_ball():
    model, sample = draw(noise=0.35, dim=12)
    off = sample.tokens - model.vectors[nearest(model, sample)]
    length = off.norm(dim=2).double()
    torch.testing.assert_close(length.float(), sample.distances, rtol=1e-4, atol=1e-6)
    assert float(length.max()) <= 0.35 + 1e-6
    assert kstest(((length / 0.35) ** 12).flatten()[::17].clamp(max=1), "uniform").pvalue > 1e-6
    assert_mean(off.double().sum((1, 2)), 0.0)


def test_gaussian_noise_has_the_mean_square_length():
    _, sample = draw(noise=0.4, law="gaussian")
    assert_mean(sample.distances.double().square().mean(1), 0.16)
    assert float(sample.distances.max()) > 0.4


def test_places_say_nothing_and_draws_follow_from_their_generator():
    model, sample = draw()
    by_place = (sample.roles == Role.RELEVANT).double().mean(0)
    assert float((by_place - 0.3).abs().max()) < CERTAIN * math.sqrt(0.21 / COUNT)
    again = model.draw(COUNT, generator())
    assert torch.equal(again.tokens, sample.tokens)
    assert not torch.equal(model.draw(COUNT, generator(1)).tokens, sample.tokens)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"noise": 0.36}, "noise"),
        ({"noise": -0.1}, "noise"),
        ({"patterns": 12}, "patterns"),
        ({"patterns": 4, "spurious": 0.1}, "patterns"),
        ({"relevant": 0.9, "confusion": 0.2}, "fit"),
        ({"relevant": 0.06, "confusion": 0.05}, "majority"),
        ({"agreement": 1.5}, "agreement"),
    ],
)
def test_what_the_theorems_exclude_is_refused(settings, word):
    with pytest.raises(UserError, match=word):
        TokenModel(**settings)
    TokenModel(noise=0.35)


def striped(classes=3, each=4, side=16):
    """Objects whose pixels tell the object and the place."""
    count = classes * each
    place = torch.arange(side * side).reshape(1, 1, side, side) / (side * side * 100)
    value = torch.arange(1, count + 1).reshape(-1, 1, 1, 1) / (2 * count)
    return Objects((value + place).expand(-1, 3, -1, -1).clone(), torch.arange(count) % classes)


def test_planted_patches_are_the_objects_own_and_shares_are_met():
    objects, planted = striped(), Planted(grid=6, patch=4, relevant=0.3, confusion=0.111, background=0.0)
    sample = planted.draw(objects, 600, generator())
    assert sample.images.shape == (600, 3, 24, 24)
    for role, expected in ((Role.RELEVANT, 0.3), (Role.CONFUSION, 0.111)):
        found = (sample.roles == role).double().mean(1)
        assert_mean(found, expected)
        assert float((found * 36 - expected * 36).abs().max()) < 1
    patches = torch.nn.functional.unfold(sample.images, 4, stride=4).mT
    rows = torch.nn.functional.unfold(objects.pixels, 4, stride=4).mT.flatten(0, 1)
    owner = torch.arange(len(objects.labels)).repeat_interleave(16)
    for image in range(40):
        roles = sample.roles[image]
        assert (patches[image][roles == Role.IRRELEVANT] == 0.5).all()
        found = [owner[distances(patches[image][roles == role], rows).argmin(1)] for role in (0, 1)]
        assert len(found[0].unique()) == 1
        assert len(found[1].unique()) == 1
        assert (objects.labels[found[0]] == sample.labels[image]).all()
        assert (objects.labels[found[1]] != sample.labels[image]).all()


def test_a_whole_object_without_noise_is_the_picture_itself():
    objects = striped(2)
    sample = Planted(grid=4, patch=4, relevant=1.0).draw(objects, 30, generator())
    apart = distances(sample.images.flatten(1), objects.pixels.flatten(1))
    assert float(apart.min(1).values.max()) < 1e-6
    assert torch.equal(objects.labels[apart.argmin(1)], sample.labels)


def test_pixel_noise_and_background_have_their_deviations():
    planted = Planted(grid=4, patch=4, relevant=0.5, noise=0.1, background=0.3)
    sample = planted.draw(striped(), 2000, generator())
    for role, spread in ((Role.RELEVANT, 0.1), (Role.IRRELEVANT, 0.3)):
        assert_mean(sample.distances[sample.roles == role].double().square() / 48, spread**2)


def test_planted_objects_of_two_classes_are_tokens():
    source = PlantedTokens(Planted(grid=5, patch=4, relevant=0.4), striped(2), patterns=4)
    sample = source.draw(50, generator())
    assert sample.tokens.shape == (50, source.places, 48)
    torch.testing.assert_close(source.vectors @ source.vectors.T, torch.eye(4), atol=1e-5, rtol=0)
    assert set(sample.labels.tolist()) == {-1.0, 1.0}
    with pytest.raises(UserError, match="two classes"):
        replace(source, objects=striped(3))


def test_objects_are_read_with_their_classes_renumbered():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(12) % 4
    found = read_objects(images((pixels, labels)), (3, 1))
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    expected = pixels[[3, 7, 11, 1, 5, 9]].transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(found.pixels, expected, atol=1e-6)
    with pytest.raises(UserError, match="no image"):
        read_objects(images((pixels, labels)), (0, 9))


def test_too_large_a_share_and_too_large_an_object_are_refused():
    with pytest.raises(UserError, match="covers only"):
        Planted(grid=8, patch=4, relevant=0.5).draw(striped(), 1, generator())
    with pytest.raises(UserError, match="fit into the grid"):
        Planted(grid=2, patch=4, relevant=0.5).draw(striped(), 1, generator())


def test_cifar_objects_are_planted(real_data):
    source = images(str(real_data / "cifar10"), split="test").sample(40)
    objects = read_objects(source, (3, 5))
    sample = Planted(grid=10, patch=4, relevant=0.32, noise=0.05).draw(objects, 8, generator())
    assert sample.images.shape == (8, 3, 40, 40)
    assert (sample.roles == Role.RELEVANT).sum(1).tolist() == [32] * 8
