"""Moments under any split, any order, any scale."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vitscope.numerics.moments import moments

SAMPLES = arrays(
    np.float64,
    st.tuples(st.integers(2, 12), st.integers(1, 3)),
    elements=st.floats(-1e6, 1e6, allow_nan=False, width=32) | st.just(float("nan")),
)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(SAMPLES, st.integers(0, 12))
def test_any_split_merges_to_the_whole(samples, cut):
    whole = moments(torch.from_numpy(samples))
    merged = moments(torch.from_numpy(samples[:cut])).merge(moments(torch.from_numpy(samples[cut:])))
    scale = float(np.nanmax(np.abs(samples), initial=1.0))
    assert torch.equal(whole.count, merged.count)
    torch.testing.assert_close(whole.observed_mean, merged.observed_mean, rtol=0, atol=1e-13 * scale, equal_nan=True)
    torch.testing.assert_close(whole.squares, merged.squares, rtol=1e-12, atol=1e-12 * scale**2)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(SAMPLES)
def test_nan_is_not_observed(samples):
    found = moments(torch.from_numpy(samples))
    np.testing.assert_array_equal(found.count, (~np.isnan(samples)).sum(0))


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.sampled_from([1.0, 2.0, np.inf, np.nan]), min_size=2, max_size=8), st.integers(0, 8))
def test_an_infinite_sample_is_not_lost_in_any_split(samples, cut):
    values = torch.tensor(samples, dtype=torch.float64)[:, None]
    merged = moments(values[:cut]).merge(moments(values[cut:]))
    assert bool(merged.observed_mean.isinf()) == any(np.isinf(samples))
    torch.testing.assert_close(merged.observed_mean, moments(values).observed_mean, equal_nan=True)
