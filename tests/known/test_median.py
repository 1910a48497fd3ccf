"""Medians by pencil and paper: exact intervals, quantiles of ragged rows, and the bootstrap over blocks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vitscope.measurement.median import bootstrap_quantiles, median_interval, quantiles, values_needed

NUMBERS = st.floats(-1e6, 1e6, width=32)


@pytest.mark.parametrize(
    ("count", "rate", "place"),
    [(6, 0.05, 1), (8, 0.05, 1), (9, 0.05, 2), (10, 0.05, 2), (20, 0.05, 6), (8, 0.01, 1), (25, 0.05, 8)],
)
def test_the_interval_lies_between_the_ordered_values_of_the_tables(count, rate, place):
    """Conover's table A3 (binomial, p = 1/2): 2 P(B <= place - 1) <= rate < 2 P(B <= place)."""
    values = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    assert median_interval(values, rate) == (place, count + 1 - place)


def test_too_few_values_leave_the_median_open():
    assert median_interval(np.arange(5.0), 0.05) == (-math.inf, math.inf)  # 2 / 2⁵ = 0.0625
    assert values_needed(0.05) == 6
    assert values_needed(0.01) == 8
    assert all(math.isfinite(median_interval(np.arange(values_needed(r) * 1.0), r)[0]) for r in (0.3, 0.05, 0.001))
    assert not any(math.isfinite(median_interval(np.arange(values_needed(r) - 1.0), r)[0]) for r in (0.3, 0.05, 0.001))


@pytest.mark.parametrize("count", [6, 9, 17])
def test_the_interval_misses_at_its_rate_at_most_under_skewed_noise(count):
    drawn = np.random.default_rng(count).lognormal(0, 2, (4000, count))  # whose median is 1
    ends = np.array([median_interval(row, 0.05) for row in drawn])
    missed = float(np.mean((ends[:, 0] > 1) | (ends[:, 1] < 1)))
    assert 0.005 < missed < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


@given(arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=NUMBERS), st.integers(0, 8))
def test_quantiles_are_those_of_numpy_without_what_is_missing(values, missing):
    wanted = [np.quantile(row[: max(len(row) - missing, 1)], (0.1, 0.5, 0.9)) for row in values]
    ragged = values.copy()
    ragged[:, max(values.shape[1] - missing, 1) :] = np.nan
    assert np.allclose(quantiles(ragged, (0.1, 0.5, 0.9)), wanted, rtol=1e-9, atol=1e-6)


def test_blocks_are_drawn_whole():
    blocks = np.array([[1.0, 1.0, 1.0], [5.0, 5.0, np.nan]])
    drawn = bootstrap_quantiles(blocks, (0.5,), seed=0, draws=4000)[:, 0]
    # both blocks: 1 1 1 5 5, median 1, with probability 1/2; the second twice with 1/4
    assert set(drawn) == {1.0, 5.0}
    assert np.mean(drawn == 5.0) == pytest.approx(0.25, abs=0.03)
    assert np.array_equal(drawn, bootstrap_quantiles(blocks, (0.5,), seed=0, draws=4000)[:, 0])


def test_the_bootstrap_has_the_error_of_a_median():
    """Of n normal numbers the median has the standard error sqrt(pi / 2 n)."""
    values = np.random.default_rng(1).normal(size=(1000, 1))
    assert bootstrap_quantiles(values, (0.5,), seed=0).std() == pytest.approx(math.sqrt(math.pi / 2000), rel=0.2)
