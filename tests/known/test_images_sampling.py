"""Subsets are balanced, seeded and sorted."""

import numpy as np
import pytest

import vitscope.data
from vitscope.data.sampling import subset

UNEVEN = np.repeat([0, 1, 2], [2, 10, 10])


@pytest.mark.parametrize(
    ("limit", "counts"),
    [(3, [1, 1, 1]), (6, [2, 2, 2]), (8, [2, 3, 3]), (12, [2, 5, 5]), (22, [2, 10, 10])],
)
def test_classes_are_taken_as_equally_as_can_be(limit: int, counts: list[int]) -> None:
    assert np.bincount(UNEVEN[subset(UNEVEN, 22, limit, seed=3)]).tolist() == counts


def test_an_odd_one_out_falls_on_any_class() -> None:
    counts = sum(np.bincount(UNEVEN[subset(UNEVEN, 22, 1, seed)], minlength=3) for seed in range(60))
    assert np.asarray(counts).min() >= 8  # 20 expected of each; fewer than 8 of 60 at a third: p < 2e-4


@pytest.mark.parametrize("labels", [UNEVEN, None], ids=["labelled", "unlabelled"])
def test_a_subset_is_sorted_without_repeats_and_fixed_by_its_seed(labels: np.ndarray | None) -> None:
    first, again, other = (subset(labels, 22, 9, seed) for seed in (1, 1, 2))
    assert (np.diff(first) > 0).all()
    assert len(first) == 9
    assert first.tolist() == again.tolist() != other.tolist()
    assert set(subset(labels, 22, 5, 1)) < set(first)


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
