"""Clustered patches: sizes by hand, and samples by their moments.

Every z-test is at 4.5 standard errors, a false alarm of 7e-6 each; samples are seeded and their number is fixed.
"""

import itertools
import math

import pytest
import torch
from scipy.integrate import quad

from vitscope.labs.masked.clusters import ClusteredPatches, concatenate
from vitscope.measurement.errors import UserError

LIMIT = 4.5
COUNT = 20_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def agrees(values, mean, variance):
    """Whether the mean of independent values of this variance is what it should be."""
    error = math.sqrt(variance / len(values))
    assert abs(float(values.double().mean()) - mean) <= LIMIT * error


@pytest.mark.parametrize(("sizes", "gap", "areas"), [((80, 4), 0.602, 6), ((20, 8), -0.151, 11)])
def test_the_papers_two_settings(sizes, gap, areas):
    setting = ClusteredPatches(100, 3, *sizes)
    assert setting.information_gap == pytest.approx(gap, abs=5e-4)
    assert (setting.areas, setting.masked) == (areas, 75)
    assert 100**setting.global_exponent == pytest.approx(sizes[0])
    assert 100**setting.local_exponent == pytest.approx(sizes[1])


def test_the_gap_is_zero_where_a_local_area_is_the_share_of_the_global_squared():
    assert ClusteredPatches(100, 3, 20, 4).information_gap == pytest.approx(0)  # 4 / 100 = (20 / 100)^2


def test_partitions_have_the_sizes_and_differ_between_clusters():
    partition = ClusteredPatches(20, 5, 8, 3).partition(generator())
    for areas in partition:
        assert torch.bincount(areas).tolist() == [8, 3, 3, 3, 3]
    assert len({tuple(areas.tolist()) for areas in partition}) == 5


def test_partitions_are_uniform():
    setting = ClusteredPatches(6, COUNT, 2, 2)
    partition = setting.partition(generator(1))
    for patch, area in itertools.product(range(6), range(3)):
        agrees(partition[:, patch] == area, 1 / 3, 2 / 9)
    agrees((partition[:, 0] == 0) & (partition[:, 1] == 0), 1 / 15, 14 / 225)


def test_samples_have_the_stated_moments():
    setting = ClusteredPatches(12, 4, 4, 2, low=0.5, high=2.0, masked_share=0.75)
    samples = setting.draw(COUNT, generator(2))
    for cluster in range(4):
        agrees(samples.clusters[0] == cluster, 1 / 4, 3 / 16)
    strengths = samples.strengths[0]
    assert 0.5 <= float(strengths.min()) < 0.51
    assert 1.99 < float(strengths.max()) <= 2.0
    for area in range(setting.areas):
        for power in (1, 2, 3):
            moment = setting.strength_moment(power)
            agrees(strengths[:, area] ** power, moment, setting.strength_moment(2 * power) - moment**2)
    product, mean = strengths[:, 0] * strengths[:, 1], setting.strength_moment(1) ** 2
    agrees(product, mean, setting.strength_moment(2) ** 2 - mean**2)
    visible = samples.visible[0]
    assert set(visible.sum(1).tolist()) == {3}
    pair = 3 * 2 / (12 * 11)
    for patch in range(12):
        agrees(visible[:, patch], 1 / 4, 3 / 16)
        agrees(visible[:, patch] & visible[:, (patch + 5) % 12], pair, pair * (1 - pair))


@pytest.mark.parametrize("power", [1, 2, 3, 4])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.5, 2.0), (1.5, 1.5)])
def test_strength_moments_are_integrals(power, low, high):
    expected = quad(lambda z: z**power / (high - low), low, high)[0] if high > low else low**power
    assert ClusteredPatches(low=low, high=high).strength_moment(power) == pytest.approx(expected)


def test_a_second_mask_is_of_the_same_image():
    setting = ClusteredPatches(12, 4, 4, 2, low=0.5, high=2.0)
    samples = setting.draw(COUNT, generator(3))
    other = setting.mask_again(samples, generator(4))
    assert torch.equal(other.clusters, samples.clusters)
    assert torch.equal(other.strengths, samples.strengths)
    agrees(other.visible[0, :, 0] & samples.visible[0, :, 0], 1 / 16, 15 / 256)


def test_a_generator_decides_everything():
    setting = ClusteredPatches(low=0.5, high=2.0)
    one, same, other = (setting.draw(4, generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(one.visible, same.visible)
    assert torch.equal(one.strengths, same.strengths)
    assert not torch.equal(one.visible, other.visible)
    both = concatenate([one, other])
    assert both.visible.shape == (2, 4, 100)
    assert torch.equal(both.strengths[1], other.strengths[0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"global_size": 81}, "do not partition"),
        ({"global_size": 100}, "do not partition"),
        ({"local_size": 0}, "do not partition"),
        ({"clusters": 0}, "do not partition"),
        ({"low": 2.0}, "no range"),
        ({"low": -1.0}, "no range"),
        ({"low": 0.0, "high": 0.0}, "no range"),
        ({"masked_share": 1.0}, "hides 100 of 100"),
        ({"masked_share": 0.004}, "hides 0 of 100"),
    ],
)
def test_settings_that_are_none_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        ClusteredPatches(**fields)
