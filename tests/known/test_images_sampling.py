"""Subsets are stratified, seeded and sorted."""

import numpy as np
import pytest

import vitscope.data
from vitscope.data.sampling import subset

SIZES = np.array([2, 10, 10, 78])
UNEVEN = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], SIZES))


def test_counts_are_sizes_times_one_factor_rounded_up_or_down() -> None:
    for seed in range(20):
        for limit in (1, 3, 10, 37, 50, 99, 100):
            counts = np.bincount(UNEVEN[subset(UNEVEN, 100, limit, seed)], minlength=4)
            assert counts.sum() == limit
            assert ((counts - 1) / SIZES).max() < ((counts + 1) / SIZES).min(), (seed, limit, counts)


def test_a_half_of_even_sizes_is_half_of_each_class() -> None:
    assert all(np.bincount(UNEVEN[subset(UNEVEN, 100, 50, seed)]).tolist() == [1, 5, 5, 39] for seed in range(20))


def test_classes_of_one_size_differ_by_at_most_one() -> None:
    even = np.repeat(np.arange(7), 11)
    for limit in range(1, 77):
        assert np.ptp(np.bincount(even[subset(even, 77, limit, limit)], minlength=7)) <= 1


def test_every_image_is_as_likely_whatever_its_class() -> None:
    hits = np.bincount(np.concatenate([subset(UNEVEN, 100, 30, seed) for seed in range(1000)]), minlength=100)
    assert np.abs(hits - 300).max() < 4.5 * (1000 * 0.3 * 0.7) ** 0.5
    by_class = np.array([hits[label == UNEVEN].mean() for label in range(4)])
    assert np.abs(by_class - 300).max() < 15, (
        by_class
    )  # of 2 images: standard deviation 10; a class-balanced draw: 1000


def test_means_are_those_of_all_images_and_vary_less_than_a_simple_sample_would() -> None:
    values = np.array([0.0, 0.2, 0.5, 0.9])[UNEVEN] + 0.1 * np.random.default_rng(1).standard_normal(100)
    means = np.array([values[subset(UNEVEN, 100, 20, seed)].mean() for seed in range(1000)])
    stated = values.std(ddof=1) / 20**0.5
    assert abs(means.mean() - values.mean()) < 0.005
    assert means.std() < 0.5 * stated


@pytest.mark.parametrize("labels", [UNEVEN, None], ids=["labelled", "unlabelled"])
def test_a_subset_is_sorted_without_repeats_and_fixed_by_its_seed(labels: np.ndarray | None) -> None:
    first, again, other = (subset(labels, 100, 9, seed) for seed in (1, 1, 2))
    assert (np.diff(first) > 0).all()
    assert len(first) == 9
    assert first.tolist() == again.tolist() != other.tolist()
    assert set(subset(labels, 100, 5, 1)) < set(first)


def test_every_image_is_as_likely_without_labels() -> None:
    hits = np.bincount(np.concatenate([subset(None, 10, 5, seed) for seed in range(400)]), minlength=10)
    assert np.abs(hits - 200).max() < 45  # standard deviation 10: beyond 4.5 of them in none of ten


def test_a_limit_beyond_the_images_takes_all() -> None:
    assert len(vitscope.data.images(limit=10_000)) == 445


def test_a_limit_takes_labels_and_pictures_together() -> None:
    everything = vitscope.data.images("digits")
    some = vitscope.data.images("digits", limit=23, seed=5)
    assert some.labels.tolist() == everything.labels[some.positions].tolist()
    assert np.array_equal(some.read(7), everything.read(int(some.positions[7])))
    assert np.ptp(np.bincount(some.labels)) == 1
